"""A recovery directory as Bytewax keeps it, read with SQLite: files, epochs, stored values.

A directory has part-0.sqlite3, part-1.sqlite3, ...: each holds a share of the stored values by
step, key and epoch, and a share of what is known of the executions. Bytewax opens every file
that ends in .sqlite3 and trusts its content; here a wrong file is an error that names it.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from pickle import Unpickler, dumps
from types import TracebackType
from typing import Any, NoReturn, Self

from msgspec import Struct

from dataflows.errors import find_shortage
from heartwheel.store.lock import LOCK_FILE
from session_logic.errors import RESTORE_COPY, ConfigError, HeartwheelError, SnapshotError

# The `user_version` of the tables that Bytewax 0.21 makes.
TABLES_VERSION = 5
# All parts are committed at every epoch; parts further apart were not copied together.
MAX_APART_EPOCHS = 100


class StoreInUseError(HeartwheelError):
    """The recovery store belongs to a running process: stop it, then try again."""


class Part(Struct):
    """One file; values from before the epoch committed that were replaced are gone from it."""

    path: Path
    db: sqlite3.Connection
    index: int
    count: int
    committed: int

    def rows(self, query: str, *values: int) -> list[Any]:
        """Return the rows of a query; raises SnapshotError if the file is damaged there."""
        try:
            return self.db.execute(query, values).fetchall()
        except (sqlite3.Error, OverflowError) as error:
            _refuse(self, f"cannot be read ({error})")

    @property
    def bytes(self) -> int:
        """The size on disk, the write-ahead log included."""
        log = self.path.with_name(f"{self.path.name}-wal")
        return self.path.stat().st_size + (log.stat().st_size if log.exists() else 0)


class Entry(Struct, frozen=True):
    """Where the value of a step and key is, as of the resume epoch."""

    part: Part
    step: str
    key: str
    epoch: int
    bytes: int
    row: int

    @property
    def where(self) -> str:
        """File and row, for messages."""
        return f"{self.part.path}: {self.step} {self.key} (epoch {self.epoch})"

    def value(self) -> Any:
        """Return the stored value; raises SnapshotError if it cannot be read."""
        try:
            ((data,),) = self.part.rows("SELECT ser_change FROM snaps WHERE rowid = ?", self.row)
            return _PlainUnpickler(BytesIO(data)).load()
        except Exception as error:  # noqa: BLE001  # damaged pickles raise anything
            raise SnapshotError(f"the stored value cannot be read: {error}") from None

    def replace(self, value: object) -> None:
        """Put another value in its place, until `Recovery.commit` for this process only."""
        self.part.db.execute(
            "UPDATE snaps SET ser_change = ? WHERE rowid = ?", (dumps(value), self.row)
        )


class _PlainUnpickler(Unpickler):
    """Loads plain values only, so that reading a store cannot run code that was put there."""

    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        raise SnapshotError(f"it names {module_name}.{global_name}, which is no plain value")


class Recovery:
    """One moment of a recovery directory, for as long as it is open.

    Raises ConfigError where there is no store, and SnapshotError that names the file if a part is
    missing, damaged or from another store. With alone, no other process can open the store
    meanwhile; raises StoreInUseError if one has it open.
    """

    def __init__(self, folder: Path, *, alone: bool = False) -> None:
        """Open every part of the directory."""
        self.folder = folder
        self._lock = _lock(folder) if alone else None
        self.parts: list[Part] = []
        try:
            for path in sorted(folder.glob("*.sqlite3")):
                self.parts.append(_open_part(path, alone=alone))
            self.parts.sort(key=lambda part: part.index)
            self._check_parts()
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
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

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
                _refuse(other, f"is of a store of {other.count} parts, {first.path.name} is not")
        for index, part in enumerate(self.parts):
            if part.index != index or (part is self.parts[-1] and index + 1 < first.count):
                lost = index if part.index != index else index + 1
                _refuse(self.folder / f"part-{lost}.sqlite3", f"of {first.count} is missing")

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
            _refuse(newest, f"was committed up to epoch {newest.committed}, {what}")
        for part in self.parts:
            if newest.committed - part.committed > MAX_APART_EPOCHS:
                what = f"and {newest.path.name} up to epoch {newest.committed}"
                _refuse(part, f"was committed up to epoch {part.committed}, {what}")

    def entries(self) -> dict[tuple[str, str], Entry]:
        """Return where the last value of each step and key before the resume epoch is."""
        found: dict[tuple[str, str], Entry] = {}
        for part in self.parts:
            rows = part.rows(
                "SELECT step_id, state_key, MAX(snap_epoch), LENGTH(ser_change), rowid FROM snaps "
                "WHERE snap_epoch < ? GROUP BY step_id, state_key",
                self.resume_epoch,
            )
            for step, key, epoch, size, row in rows:
                other = found.get((step, key))
                if size is not None and (other is None or other.epoch < epoch):
                    found[step, key] = Entry(part, step, key, epoch, size, row)
        return found

    def commit(self) -> None:
        """Keep what was changed; only for a store that is open alone."""
        try:
            for part in self.parts:
                part.db.execute("COMMIT")
        except sqlite3.Error as error:
            msg = f"{self.folder} cannot be written ({error}); make room on its disk"
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


def _open_part(path: Path, *, alone: bool) -> Part:
    """Open a file and begin to read; raises SnapshotError if it is no intact part of a store."""
    db = None
    try:
        if not path.is_file() or not path.stat().st_size:
            _refuse(path, "is empty or no file")
        mode = "rw" if alone else "ro"
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=1)
        db.isolation_level = None
        if alone:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("BEGIN")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version != TABLES_VERSION:
            what = "is of a newer Bytewax" if version > TABLES_VERSION else "is no part of a store"
            _refuse(path, f"{what} (tables of version {version}, not {TABLES_VERSION})")
        ((index, count),) = db.execute("SELECT part_index, part_count FROM parts").fetchall()
        (committed,) = db.execute("SELECT MAX(commit_epoch) FROM commits").fetchone()
        return Part(path, db, index, count, committed or 0)
    except (sqlite3.Error, ValueError, OSError, SnapshotError) as error:
        short = find_shortage(error)
        if db is not None:
            db.close()
        if short is not None:
            raise short from None
        if isinstance(error, SnapshotError):
            raise
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
            raise StoreInUseError(f"{path} is open in another process; stop it first") from None
        _refuse(path, f"cannot be read ({error})")


def _refuse(part: Part | Path, what: str) -> NoReturn:
    path = part if isinstance(part, Path) else part.path
    raise SnapshotError(f"{path} {what}; {RESTORE_COPY}")


def _lock(folder: Path) -> int | None:
    """Take the lock that a run holds on its directory, if a run has ever made one."""
    try:
        lock = os.open(folder / LOCK_FILE, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise StoreInUseError(f"a run holds {folder / LOCK_FILE}; stop it first") from None
    return lock
