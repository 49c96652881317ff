"""How SQLite reads a store at a start: in the order of its index, so that nothing is sorted.

Bytewax asks for the newest value of every key, by step and key (`SerializedSnapshotLoader` in its
src/recovery.rs). SQLite would look for the newest first and sort what it has found. The values are
sorted with it: all of the store is written to a temporary file and read back.

How a query is answered follows from statistics, and these can be set by hand (SQLite's
"Manual Control Of Query Plans Using SQLITE_STAT Tables"). They are in a table of SQLite's own in
each part, are copied with it, and change no result.
"""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

_INDEX = ("snaps", "sqlite_autoindex_snaps_1")
# Of the index: 80 rows, 15 with each step, 15 with each step and key. Where a key has many epochs,
# to go through the index once is cheaper than to look for one. Without the last word, the query by
# which Bytewax removes what was replaced would do more at each snapshot.
STATISTICS = "80 15 15 1 noskipscan"
_KNOWN = "SELECT stat FROM sqlite_stat1 WHERE (tbl, idx) = (?, ?)"


def read_in_order(folder: Path) -> None:
    """Let SQLite read every part of a store in order; no run may have it open.

    A part that cannot be written stays as it is: it is only slower.
    """
    for part in folder.glob("*.sqlite3"):
        with suppress(sqlite3.Error), closing(sqlite3.connect(part)) as db, db:
            if not _has_statistics(db):
                db.execute("ANALYZE parts")  # makes the table that cannot be made by its name
                db.execute("DELETE FROM sqlite_stat1 WHERE tbl = 'snaps'")
                db.execute("INSERT INTO sqlite_stat1 VALUES (?, ?, ?)", (*_INDEX, STATISTICS))


def _has_statistics(db: sqlite3.Connection) -> bool:
    if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_stat1'").fetchall():
        return False
    return db.execute(_KNOWN, _INDEX).fetchall() == [(STATISTICS,)]
