"""Removes from the recovery partitions, before a run, what a crash left unfinished.

Bytewax writes the snapshots of an epoch one by one, then a note that the epoch is finished. After
a crash in between it resumes before that epoch, but leaves the snapshots there. If the new run
does not write a key in this epoch, the left snapshot would later be taken for the newest one.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from dataflows.errors import make_room
from heartwheel.store.recovery_files import Recovery
from session_logic.errors import RESTORE_COPY, SnapshotError


def forget_unfinished(folder: Path) -> int:
    """Delete the snapshots of epochs that are not finished; return how many there were.

    Raises SnapshotError if a recovery partition cannot be read or written to.
    """
    with Recovery(folder) as recovery:
        epoch, paths = recovery.resume_epoch, [part.path for part in recovery.parts]
    try:
        return sum(_delete_from(path, epoch) for path in paths)
    except sqlite3.Error as error:
        msg = (
            f"recovery store {folder} cannot be repaired ({error}); {RESTORE_COPY}, or "
            f"{make_room()}"
        )
        raise SnapshotError(msg) from None


def _delete_from(part: Path, epoch: int) -> int:
    with closing(sqlite3.connect(part)) as store, store:
        return store.execute("DELETE FROM snaps WHERE snap_epoch >= ?", (epoch,)).rowcount
