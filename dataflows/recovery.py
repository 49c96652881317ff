"""The recovery partitions, put right before a run: what a crash left half-done is taken out.

Bytewax writes the snapshots of an epoch one by one, and then that the epoch is finished. After a
crash in between it resumes before that epoch, but leaves the snapshots there; the one of a key
that the new run does not touch in this epoch would later be taken for the newest.
"""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

from session_logic.errors import HeartwheelError, SnapshotError

# As Bytewax computes where it resumes: the least that any worker of the last run has finished.
_RUNS = "SELECT ex_num, worker_count, resume_epoch FROM exs ORDER BY ex_num DESC LIMIT 1"
_FRONTIERS = "SELECT worker_index, MAX(worker_frontier) FROM fronts WHERE ex_num = ? GROUP BY 1"

# How Bytewax words what SQLite says.
_FAILURE = re.compile(r'SqliteFailure\(.*?Some\("(.*?)"\)')


class RecoveryError(HeartwheelError):
    """A snapshot cannot be written: make room, or see to the disk, and start again."""


def store_failure(error: BaseException, folder: Path) -> RecoveryError | None:
    """Return the error of ours for what Bytewax raises when a snapshot cannot be written."""
    found = _FAILURE.search(str(error))
    if found is None:
        return None
    return RecoveryError(
        f"recovery store {folder} cannot be written ({found[1]}); make room on its disk and start "
        "again: the run resumes from its last snapshot"
    )


def forget_unfinished(folder: Path) -> int:
    """Delete the snapshots of epochs that are not finished; return how many there were.

    Raises SnapshotError if a recovery partition cannot be read.
    """
    parts = sorted(folder.glob("part-*.sqlite3"))
    try:
        epoch = _resume_epoch(parts)
        return 0 if epoch is None else sum(_delete_from(part, epoch) for part in parts)
    except sqlite3.Error as error:
        msg = (
            f"recovery store {folder} cannot be read ({error}); put back a whole copy of the "
            "recovery directory, or make room on its disk"
        )
        raise SnapshotError(msg) from None


def _resume_epoch(parts: list[Path]) -> int | None:
    """Return the epoch from which Bytewax will resume, or None for a store never run."""
    run: tuple[int, int, int] | None = None
    for part in parts:
        with closing(sqlite3.connect(part)) as store:
            run = max(filter(None, (run, store.execute(_RUNS).fetchone())), default=None)
    if run is None:
        return None
    number, workers, resumed = run
    frontiers = dict.fromkeys(range(workers), resumed)
    for part in parts:
        with closing(sqlite3.connect(part)) as store:
            for worker, frontier in store.execute(_FRONTIERS, (number,)):
                frontiers[worker] = max(frontiers[worker], frontier)
    return min(frontiers.values())


def _delete_from(part: Path, epoch: int) -> int:
    with closing(sqlite3.connect(part)) as store, store:
        return store.execute("DELETE FROM snaps WHERE snap_epoch >= ?", (epoch,)).rowcount
