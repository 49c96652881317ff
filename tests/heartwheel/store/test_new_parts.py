"""New partitions: as Bytewax makes them, in larger pages."""

import sqlite3
from contextlib import closing
from pathlib import Path

from bytewax.recovery import init_db_dir

from heartwheel.store.new_parts import PAGE_BYTES, make_parts


def contents(part: Path) -> tuple[list[object], list[object], str, int, int]:
    """Return the tables, the rows that say which part it is, its journal, version and page size."""
    with closing(sqlite3.connect(f"{part.as_uri()}?mode=ro", uri=True)) as db:
        ((version,),) = db.execute("PRAGMA user_version").fetchall()
        ((journal,),) = db.execute("PRAGMA journal_mode").fetchall()
        ((page_bytes,),) = db.execute("PRAGMA page_size").fetchall()
        tables = db.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()
        rows = db.execute("SELECT part_index, part_count FROM parts").fetchall()
        return tables, rows, journal, version, page_bytes


def test_new_parts_are_those_of_bytewax_but_for_the_size_of_their_pages(tmp_path: Path) -> None:
    """Tables, version, journal and what they say of themselves are the same.

    Without Bytewax's journal, processes that open the store at once fail.
    """
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    make_parts(ours, 3)
    init_db_dir(theirs, 3)
    assert sorted(part.name for part in ours.iterdir()) == [f"part-{i}.sqlite3" for i in range(3)]
    for part in ours.iterdir():
        *same, page_bytes = contents(part)
        assert same == list(contents(theirs / part.name)[:4])
        assert page_bytes == PAGE_BYTES
