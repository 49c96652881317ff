"""New partitions of a recovery store, as Bytewax wants them, with pages that suit its rows."""

import sqlite3
from contextlib import closing
from pathlib import Path

from bytewax.recovery import init_db_dir

from dataflows.logs import hide_backtraces

# SQLite's default is 4 KB. A row of the store has up to a megabyte, and SQLite handles it page by
# page: with these a snapshot takes less processor time, and its writes come in fewer pieces.
PAGE_BYTES = 16 * 1024
# The tables of a new partition, and what finds rows in those that a run writes to.
_TABLES = {("parts",), ("exs",), ("fronts",), ("commits",), ("snaps",)}
_ROWS = (
    "SELECT EXISTS (SELECT 1 FROM exs) + EXISTS (SELECT 1 FROM fronts)"
    " + EXISTS (SELECT 1 FROM commits) + EXISTS (SELECT 1 FROM snaps)"
)


def make_parts(folder: Path, count: int) -> None:
    """Make the partitions of a new store in an empty folder; Rust panics if it cannot."""
    hide_backtraces()
    init_db_dir(folder, count)  # type: ignore[no-untyped-call]
    for part in folder.glob("*.sqlite3"):
        with closing(sqlite3.connect(part, isolation_level=None)) as db:
            # With a write-ahead log the size of pages cannot change. Without it, two processes that
            # open the store at once would both want to turn it on, and one of them fail.
            db.execute("PRAGMA journal_mode = DELETE")
            db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            db.execute("VACUUM")
            db.execute("PRAGMA journal_mode = WAL")


def is_unused(part: Path) -> bool:
    """Say whether a file is a partition as it was made, to which no run has written yet.

    Nothing is written beside it, so that a full disk does not matter.
    """
    logs = (part.with_name(f"{part.name}-{log}") for log in ("wal", "journal"))
    if any(log.exists() and log.stat().st_size for log in logs):
        return False
    try:
        with closing(sqlite3.connect(f"{part.absolute().as_uri()}?immutable=1", uri=True)) as db:
            tables = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
            ((index,),) = db.execute("SELECT part_index FROM parts").fetchall()
            # A run also adds tables: its own to the first part, and that of statistics to each.
            is_new = {*tables} == _TABLES and db.execute(_ROWS).fetchall() == [(0,)]
            return is_new and part.name == f"part-{index}.sqlite3"
    except (sqlite3.Error, ValueError):
        return False
