"""The recovery directory before a run: made if it is new, else checked as a whole."""

import tempfile
import time
from errno import EDQUOT, ENOSPC
from pathlib import Path
from tempfile import TemporaryDirectory

from dataflows.errors import lanes_mismatch, make_room, sqlite_failure
from dataflows.settings import Settings
from heartwheel.store.contents import FLOW, lane_states, strangers
from heartwheel.store.identity import Identity, read_identity
from heartwheel.store.lock import is_held_by_first
from heartwheel.store.new_parts import make_parts
from heartwheel.store.recovery_files import Recovery
from session_logic.errors import ConfigError, SnapshotError, StateMismatchError
from session_logic.restoring import check_state


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
        if first and not any(folder.glob("*.sqlite3")):
            _make_parts(folder, settings.recovery_parts)
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


def _make_parts(folder: Path, count: int) -> None:
    """Make new partitions aside, so that none is seen, or left by a kill, before it is whole."""
    with TemporaryDirectory(dir=folder) as aside:
        try:
            make_parts(Path(aside), count)
        except BaseException as error:  # Rust panics
            failure = sqlite_failure(error)
            if failure is None:
                raise
            msg = f"HEARTWHEEL_RECOVERY_DIR {folder} cannot be written ({failure}); {make_room()}"
            raise ConfigError(msg) from None
        for part in Path(aside).iterdir():
            part.rename(folder / part.name)


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
