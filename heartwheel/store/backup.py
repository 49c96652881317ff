"""A backup of a store: a copy of one moment of it, made while a run goes on, and checked."""

from pathlib import Path

from heartwheel.store.contents import Contents
from heartwheel.store.copying import copy_parts, new_folder
from heartwheel.store.recovery_files import Recovery
from session_logic.errors import SnapshotError
from session_logic.rules import Rules


def back_up(source: Path, target: Path, rules: Rules) -> int:
    """Copy a store to a new directory; return up to when the copy has sent heartbeats, in ms.

    Raises ConfigError if there is something at the target, StoreInUseError if a run writes to
    several parts all the while, SnapshotError if a start could not go on with the copy.
    """
    with new_folder(target) as folder:
        with Recovery(source) as store:
            copy_parts(store, folder)
        return _check(folder, source, rules)


def _check(folder: Path, source: Path, rules: Rules) -> int:
    """Return up to when the slowest lane of a copy has come."""
    with Recovery(folder, alone=True) as copy:  # so that no file is left beside its parts
        contents = Contents(copy, rules)
        for fault in contents.faults():
            where = fault.replace(str(folder), str(source))
            raise SnapshotError(f"{where}; no backup was made, see `heartwheel store check`")
        if not contents.states:
            msg = f"{source} holds no sessions yet; back it up once a run has taken a snapshot"
            raise SnapshotError(msg)
        return min(state.watermark_ms for state in contents.states.values())
