"""The lock on a recovery directory: one run at a time uses a store, and every store has a name."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from session_logic.errors import ConfigError

LOCK_FILE = "heartwheel.lock"
# Only the first process locks this byte, which is beyond those of the process numbers. Others test
# it to learn whether the first process runs.
FIRST_BYTE = 1 << 20
# Locked while the parts of a new store are made, before a run has the store.
MAKING_BYTE = FIRST_BYTE + 1
# Made by the kernel when the system starts.
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class StoreLock:
    """Held by a process for as long as it lives, however it ends.

    Every process of a run holds the file's shared lock: tools see by it that the store is in use.
    It also holds the byte of its own number exclusively: a second run cannot get it.
    """

    def __init__(self, folder: Path, process_id: int) -> None:
        """Take the lock; raises ConfigError if another process has it."""
        path = folder / LOCK_FILE
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, process_id)
            if not process_id:
                fcntl.lockf(self._file, fcntl.LOCK_EX, 1, FIRST_BYTE)
        except BlockingIOError:
            msg = (
                f"HEARTWHEEL_RECOVERY_DIR {folder} is in use by another run (process "
                f"{process_id} of it is alive); stop that one, or use another directory"
            )
            raise ConfigError(msg) from None
        except OSError as error:
            msg = f"HEARTWHEEL_RECOVERY_DIR {folder}: {path} cannot be locked: {error.strerror}"
            raise ConfigError(msg) from None
        self.store = self._name()
        self.place = self._place()

    def _name(self) -> str:
        """Return the name of the store, made on first use."""
        name = os.pread(self._file, 64, 0).decode()
        if not name:
            name = uuid4().hex
            os.pwrite(self._file, name.encode(), 0)
            os.fsync(self._file)
        return name

    def _place(self) -> str:
        """Return what no other file has for as long as this system runs: no copy, and no restore.

        Whoever has the lock of the same place knows that its last holder is dead.
        """
        try:
            boot = BOOT_ID.read_text().strip()
        except OSError:  # not on Linux
            boot = uuid4().hex
        file = os.fstat(self._file)
        return f"{boot}/{file.st_dev}/{file.st_ino}"


def is_held_by_first(folder: Path) -> bool:
    """Say whether the first process of a run has the store in this directory."""
    lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.lockf(lock, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, FIRST_BYTE)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)  # and with it the lock, if it was free
    return False


@contextmanager
def making_parts(folder: Path) -> Iterator[None]:
    """Let one process at a time make the parts of a new store; the others wait.

    Without it, two first processes that are started at once would remove what the other makes.
    """
    lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX, 1, MAKING_BYTE)
        yield
    finally:
        os.close(lock)
