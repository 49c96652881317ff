"""What keeps other runs from the store and the topic of a process, as far as no Kafka is needed."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from bytewax.recovery import init_db_dir

from dataflows.settings import Settings
from heartwheel.cluster import Cluster
from heartwheel.guard import Guard
from heartwheel.store.read_order import STATISTICS
from tests.support.stores import execute

TWO = ("127.0.0.1:1", "127.0.0.1:2")
UNFINISHED = "INSERT INTO snaps VALUES (CURRENT_TIMESTAMP, 'heartwheel.sink', 'lane-000', 7, NULL)"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a new store in which a crash has left a snapshot of an unfinished epoch."""
    init_db_dir(tmp_path, 1)
    execute(tmp_path / "part-0.sqlite3", UNFINISHED)
    return tmp_path


def snapshots(folder: Path) -> int:
    """Return how many there are."""
    with closing(sqlite3.connect(folder / "part-0.sqlite3")) as store:
        count: int = store.execute("SELECT COUNT(*) FROM snaps").fetchone()[0]
        return count


def test_first_process_forgets_what_a_crash_has_left(folder: Path) -> None:
    """Before anybody reads the store, however the run is started."""
    Guard(Settings(fencing=False), Cluster(), folder)
    assert snapshots(folder) == 0


def test_first_process_lets_the_store_be_read_in_order(folder: Path) -> None:
    """Before Bytewax opens it."""
    Guard(Settings(fencing=False), Cluster(), folder)
    with closing(sqlite3.connect(folder / "part-0.sqlite3")) as store:
        found = store.execute("SELECT stat FROM sqlite_stat1 WHERE tbl = 'snaps'").fetchall()
    assert found == [(STATISTICS,)]


def test_other_process_leaves_the_store_to_the_first(folder: Path) -> None:
    """It may be at work there already."""
    Guard(Settings(fencing=False), Cluster(1, TWO), folder)
    assert snapshots(folder) == 1


@pytest.mark.parametrize("number", [0, 1])
def test_every_process_needs_a_permit_unless_the_settings_want_none(
    folder: Path, number: int
) -> None:
    """The first process keeps the lease, the other follows it, and neither has it yet."""
    guard = Guard(Settings(), Cluster(number, TWO), folder)
    assert guard.permit is not None
    assert not guard.permit.valid
    assert Guard(Settings(fencing=False), Cluster(number, TWO), folder).permit is None
