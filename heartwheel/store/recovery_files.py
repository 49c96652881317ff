"""A recovery directory as Bytewax keeps it, read with SQLite: files, epochs, stored values.

A directory has part-0.sqlite3, part-1.sqlite3, ...: each holds a share of the stored values by
step, key and epoch, and a share of what is known of the executions. Bytewax opens every file
that ends in .sqlite3, also a wrong one; here that is an error that names it.

A run commits to one part after the other, and reading does not hold it up. What is read of a
single part is as of one commit. Several parts are read as of one moment if none of them changes
between the last look at how they are and the first read: then they are what a crash would leave.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

from dataflows.errors import make_room
from heartwheel.store.lock import LOCK_FILE
from heartwheel.store.part_file import Entry, Part, StoreInUseError, open_part, refuse
from session_logic.errors import ConfigError, SnapshotError

# All parts are committed at every epoch; parts further apart were not copied together.
MAX_APART_EPOCHS = 100
# How long to look for a moment in which a run commits nothing, and how often. Between two
# snapshots there is one.
MOMENT_S, LOOK_S = 10.0, 0.01


class Recovery:
    """One moment of a recovery directory, for as long as it is open.

    Raises ConfigError where there is no store, and SnapshotError that names the file if a part is
    missing, damaged or from another store. With alone, no other process can open the store
    meanwhile; raises StoreInUseError if one has it open. The write-ahead logs of a killed run are
    there afterwards as well. Without alone, a run may go on meanwhile; raises StoreInUseError if it
    writes all the while.
    """

    def __init__(self, folder: Path, *, alone: bool = False) -> None:
        """Open every part of the directory."""
        self.folder = folder
        self._lock = _lock(folder) if alone else None
        self.parts: list[Part] = []
        self._logs: list[Path] = []
        try:
            for path in sorted(folder.glob("*.sqlite3")):
                self.parts.append(open_part(path, alone=alone))
                if alone:
                    self._keep_log(path)
            self.parts.sort(key=lambda part: part.index)
            self._check_parts()
            self._begin()
            self.executions, self.workers, self.resume_epoch = self._resume()
            self._check_moments()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every part."""
        for part in self.parts:
            part.db.close()
        while self._logs:
            _put_back(self._logs.pop())
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _keep_log(self, part: Path) -> None:
        """Give the log of a part another name, so that it is not lost when SQLite is done with it.

        SQLite takes into the file what is in the log, then deletes the log. But the log is what
        tells that the run was killed. To read it once more changes nothing.
        """
        log = part.with_name(f"{part.name}-wal")
        with suppress(OSError):  # without a log, or links, there is nothing to keep
            if log.stat().st_size:
                _kept(log).unlink(missing_ok=True)  # of a command that was killed
                os.link(log, _kept(log))
                self._logs.append(log)

    def _check_parts(self) -> None:
        if not self.parts:
            msg = (
                f"{self.folder} holds no recovery store (no part-*.sqlite3); give the directory "
                "of a run, or check HEARTWHEEL_RECOVERY_DIR"
            )
            raise ConfigError(msg)
        first = self.parts[0]
        for part, other in pairwise(self.parts):
            if part.index == other.index:
                msg = (
                    f"{part.path} and {other.path.name} are the same part of the recovery store; "
                    "move the wrong one out of the directory"
                )
                raise SnapshotError(msg)
            if other.count != first.count:
                refuse(other, f"is of a store of {other.count} parts, {first.path.name} is not")
        for index, part in enumerate(self.parts):
            if part.index != index or (part is self.parts[-1] and index + 1 < first.count):
                lost = index if part.index != index else index + 1
                refuse(self.folder / f"part-{lost}.sqlite3", f"of {first.count} is missing")

    def _begin(self) -> None:
        """Begin to read every part as of the same moment."""
        deadline_s = time.monotonic() + MOMENT_S
        while True:
            before = [part.version() for part in self.parts]
            for part in self.parts:
                part.begin()
            if len(self.parts) == 1 or before == [part.version() for part in self.parts]:
                return
            if time.monotonic() > deadline_s:
                msg = (
                    f"{self.folder}: a run has written to it all the while for {MOMENT_S:.0f} s, "
                    f"so its {len(self.parts)} parts cannot be read as of one moment; try again"
                )
                raise StoreInUseError(msg)
            for part in self.parts:
                part.end()
            time.sleep(LOOK_S)

    def _resume(self) -> tuple[int, int, int]:
        """Return how many executions there were, the last one's workers, and the resume epoch."""
        executions = [(-1, 0, 1)]
        for part in self.parts:
            executions += part.rows("SELECT ex_num, worker_count, resume_epoch FROM exs")
        execution, workers, epoch = max(executions)
        frontiers = [
            max(frontier, epoch)
            for part in self.parts
            for (frontier,) in part.rows(
                "SELECT worker_frontier FROM fronts WHERE ex_num = ?", execution
            )
        ]
        if len(frontiers) < workers:
            frontiers.append(epoch)
        return execution + 1, workers, min(frontiers, default=epoch)

    def _check_moments(self) -> None:
        """Raise SnapshotError if the parts were not copied at the same moment."""
        newest = max(self.parts, key=lambda part: part.committed)
        if newest.committed > self.resume_epoch:
            what = f"and the other parts go on from epoch {self.resume_epoch}"
            refuse(newest, f"was committed up to epoch {newest.committed}, {what}")
        for part in self.parts:
            if newest.committed - part.committed > MAX_APART_EPOCHS:
                what = f"and {newest.path.name} up to epoch {newest.committed}"
                refuse(part, f"was committed up to epoch {part.committed}, {what}")

    def entries(self) -> dict[tuple[str, str], Entry]:
        """Return where the last value of each step and key before the resume epoch is."""
        found: dict[tuple[str, str], Entry] = {}
        for part in self.parts:
            rows = part.rows(
                # Length apart from the grouping, which would read each value whole to keep it.
                "SELECT step_id, state_key, epoch, "
                "(SELECT LENGTH(ser_change) FROM snaps WHERE rowid = row), row FROM "
                "(SELECT step_id, state_key, MAX(snap_epoch) AS epoch, rowid AS row FROM snaps "
                "WHERE snap_epoch < ? GROUP BY step_id, state_key)",
                self.resume_epoch,
            )
            for step, key, epoch, size, row in rows:
                other = found.get((step, key))
                if size is not None and (other is None or other.epoch < epoch):
                    found[step, key] = Entry(part, step, key, epoch, size, row)
        return found

    def check_values(self) -> None:
        """Raise SnapshotError if a value of `entries` cannot be read; to compare it reads it."""
        for entry in self.entries().values():
            entry.part.rows("SELECT ser_change = x'' FROM snaps WHERE rowid = ?", entry.row)

    def commit(self) -> None:
        """Keep what was changed; only for a store that is open alone."""
        try:
            for part in self.parts:
                part.db.execute("COMMIT")
        except sqlite3.Error as error:
            msg = f"{self.folder} cannot be written ({error}); {make_room()}"
            raise SnapshotError(msg) from None

    def last_epoch(self) -> int:
        """Return the last epoch with a stored value, complete or not."""
        found = [part.rows("SELECT MAX(snap_epoch) FROM snaps") for part in self.parts]
        return max(epoch or 0 for ((epoch,),) in found)

    def faults(self) -> Iterator[str]:
        """Yield what SQLite finds wrong in the files; it reads all of them."""
        for part in self.parts:
            try:
                lines = [line for (line,) in part.rows("PRAGMA integrity_check")]
            except SnapshotError as error:
                lines = [str(error)]
            yield from (f"{part.path}: {' '.join(line.split())}" for line in lines if line != "ok")


def _kept(log: Path) -> Path:
    return log.with_name(f"{log.name}-kept")


def _put_back(log: Path) -> None:
    """Give a log that SQLite has deleted its name back, unless there is one again."""
    with suppress(OSError):
        if not log.exists():
            os.link(_kept(log), log)
    with suppress(OSError):
        _kept(log).unlink()


def _lock(folder: Path) -> int | None:
    """Take the lock that a run holds on its directory, if a run has ever made one."""
    try:
        lock = os.open(folder / LOCK_FILE, os.O_RDWR)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        msg = (
            f"{folder / LOCK_FILE} cannot be opened: {error.strerror}; correct that, or restore it"
        )
        raise ConfigError(msg) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise StoreInUseError(
            f"a run, or another command, holds {folder / LOCK_FILE}; stop it first"
        ) from None
    return lock
