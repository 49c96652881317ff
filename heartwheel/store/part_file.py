"""One file of a recovery directory: its rows, and the values that Bytewax has stored in them.

Bytewax trusts what is in such a file; here a wrong one is an error that names it.
"""

import sqlite3
from io import BytesIO
from pathlib import Path
from pickle import Unpickler, dumps
from typing import Any, NoReturn

from msgspec import Struct

from dataflows.errors import find_shortage
from session_logic.errors import RESTORE_COPY, ConfigError, HeartwheelError, SnapshotError

# The `user_version` of the tables that Bytewax 0.21 makes.
TABLES_VERSION = 5
# What SQLite says where a user may not do what it needs; the file may be intact.
_NO_ACCESS = {sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}


class StoreInUseError(HeartwheelError):
    """The recovery store belongs to a running process: stop it, then try again."""


class Part(Struct):
    """One file; values from before the epoch committed that were replaced are gone from it."""

    path: Path
    db: sqlite3.Connection
    index: int
    count: int
    committed: int = 0

    def version(self) -> int:
        """Return a number that is another one once somebody else has written to the file."""
        ((version,),) = self.rows("PRAGMA data_version")
        return int(version)

    def begin(self) -> None:
        """Read the file as it is now until the end, whatever is written to it."""
        self.db.execute("BEGIN")
        ((committed,),) = self.rows("SELECT MAX(commit_epoch) FROM commits")
        self.committed = committed or 0

    def end(self) -> None:
        """Read the file as it is at each read."""
        self.db.execute("ROLLBACK")

    def rows(self, query: str, *values: int | str) -> list[Any]:
        """Return the rows of a query; raises SnapshotError if the file is damaged there."""
        try:
            return self.db.execute(query, values).fetchall()
        except (sqlite3.Error, OverflowError) as error:
            refuse(self, f"cannot be read ({error})")

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


def open_part(path: Path, *, alone: bool) -> Part:
    """Open a file; raises SnapshotError if it is no intact part of a store.

    Raises ConfigError if this user cannot open it as SQLite does.
    """
    db = None
    try:
        if not path.is_file() or not path.stat().st_size:
            refuse(path, "is empty or no file")
        mode = "rw" if alone else "ro"
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=1)
        db.isolation_level = None
        if alone:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version != TABLES_VERSION:
            what = "is of a newer Bytewax" if version > TABLES_VERSION else "is no part of a store"
            refuse(path, f"{what} (tables of version {version}, not {TABLES_VERSION})")
        ((index, count),) = db.execute("SELECT part_index, part_count FROM parts").fetchall()
        return Part(path, db, index, count)
    except (sqlite3.Error, ValueError, OSError, SnapshotError) as error:
        short = find_shortage(error)
        if db is not None:
            db.close()
        if short is not None:
            raise short from None
        if isinstance(error, SnapshotError):
            raise
        code = getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_OK
        if code == sqlite3.SQLITE_BUSY:
            raise StoreInUseError(f"{path} is open in another process; stop it first") from None
        if code & 0xFF in _NO_ACCESS:  # the rest of an extended code says more exactly why
            msg = (
                f"{path} cannot be opened ({error}): SQLite makes files beside it; do this as a "
                "user who can write to the directory, which must not be mounted read-only"
            )
            raise ConfigError(msg) from None
        refuse(path, f"cannot be read ({error})")


def refuse(part: Part | Path, what: str) -> NoReturn:
    """Raise SnapshotError: what is wrong with a file, and what to do."""
    path = part if isinstance(part, Path) else part.path
    raise SnapshotError(f"{path} {what}; {RESTORE_COPY}")
