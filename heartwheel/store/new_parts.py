"""New partitions of a recovery store, as Bytewax wants them, with pages that suit its rows."""

import sqlite3
from contextlib import closing
from pathlib import Path

from bytewax.recovery import init_db_dir

from dataflows.logs import hide_backtraces

# SQLite's default is 4 KB. A row of the store has up to a megabyte, and SQLite handles it page by
# page: with these a snapshot takes less processor time, and its writes come in fewer pieces.
PAGE_BYTES = 16 * 1024


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
