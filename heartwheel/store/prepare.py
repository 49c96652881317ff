"""The recovery directory before a run: made if it is new, else checked as a whole."""

import shutil
import tempfile
import time
from errno import EDQUOT, ENOSPC
from pathlib import Path

from dataflows.errors import lanes_mismatch, make_room, sqlite_failure
from dataflows.settings import Settings
from heartwheel.store.contents import FLOW, lane_states, strangers
from heartwheel.store.identity import Identity, read_identity
from heartwheel.store.lock import is_held_by_first, making_parts
from heartwheel.store.new_parts import is_unused, make_parts
from heartwheel.store.recovery_files import Recovery
from session_logic.errors import ConfigError, SnapshotError, StateMismatchError
from session_logic.restoring import check_state

# New parts are made in this directory of the store, and then moved out of it. No run begins before
# it is gone: where it is, a start was killed, and parts beside it that have no rows are of no use.
UNFINISHED = "heartwheel-unfinished"


def prepare_recovery(settings: Settings, *, first: bool) -> Path:
    """Return the recovery directory, with partitions made if there are none.

    The store is the first process's. Another process of its cluster sees the same directory, or
    has one of its own without partitions: Bytewax then brings it what it needs. Raises
    SnapshotError for a store that is not whole, and ConfigError for one of another number of
    lanes or apart from that of the first process.
    """
    folder = settings.recovery_path()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass  # it can be written to, and so can what is in it
        for part in folder.glob("*.sqlite3"):
            if part.is_file():
                part.open("r+b").close()
        unfinished = (folder / UNFINISHED).exists()
        if first and (unfinished or not any(folder.glob("*.sqlite3"))):
            with making_parts(folder):
                _make_store(folder, settings.recovery_parts)
    except OSError as error:
        full = error.errno in {ENOSPC, EDQUOT}
        advice = make_room() if full else "it must be a directory that this user can write to"
        msg = f"HEARTWHEEL_RECOVERY_DIR {folder} cannot be used: {error.strerror}; {advice}"
        raise ConfigError(msg) from None
    if not first and any(folder.glob("*.sqlite3")):
        _wait_for_first(folder, settings.restore_timeout_ms / 1000)
    if any(folder.glob("*.sqlite3")):
        _check_recovery(folder, settings.lanes)
    return folder


def _wait_for_first(folder: Path, timeout_s: float) -> None:
    """Return once the first process has the store of this directory; raises ConfigError.

    Bytewax would take partitions that are elsewhere for parts of the same store.
    """
    deadline = time.monotonic() + timeout_s
    while not is_held_by_first(folder):
        if time.monotonic() > deadline:
            msg = (
                f"HEARTWHEEL_RECOVERY_DIR {folder} holds recovery partitions that process 0 does "
                "not use; start process 0, and give all processes the same directory or move "
                "the partitions out of this one"
            )
            raise ConfigError(msg)
        time.sleep(0.1)


def _make_store(folder: Path, count: int) -> None:
    """Make new partitions if there are none, or only such as a killed start has left."""
    aside = folder / UNFINISHED
    if aside.exists():
        _remove_unfinished(folder)
    if any(folder.glob("*.sqlite3")):
        return
    aside.mkdir()
    try:
        make_parts(aside, count)
    except BaseException as error:  # Rust panics
        shutil.rmtree(aside, ignore_errors=True)
        failure = sqlite_failure(error)
        if failure is None:
            raise
        msg = f"HEARTWHEEL_RECOVERY_DIR {folder} cannot be written ({failure}); {make_room()}"
        raise ConfigError(msg) from None
    for part in sorted(aside.iterdir()):
        part.rename(folder / part.name)
    aside.rmdir()


def _remove_unfinished(folder: Path) -> None:
    """Remove what a start has made of a new store; partitions that a run has used stay."""
    parts = list(folder.glob("*.sqlite3"))
    # After a loss of power the directory may be there again, with a store that was used since.
    if all(map(is_unused, parts)):
        for part in parts:
            for name in (part.name, f"{part.name}-wal", f"{part.name}-shm"):  # of who looked at it
                (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / UNFINISHED)


def _check_recovery(folder: Path, lanes: int) -> None:
    """Raise an error that says what to do where Bytewax would panic, or a lane after a while."""
    with Recovery(folder) as recovery:
        recovery.check_values()
        entries = recovery.entries().values()
        states, faults = lane_states([e for e in entries if e.step == f"{FLOW}.sessions"])
        layout = (read_identity(recovery) or Identity("")).layout
    faults += strangers(entries, layout.shard)
    for state in states:
        try:
            check_state(state, lanes)
        except StateMismatchError as error:
            raise lanes_mismatch(error) from None
    if faults:
        raise SnapshotError(faults[0])
