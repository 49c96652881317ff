"""A start reads its store in order, by how much Bytewax writes while it does: nothing is sorted."""

import shutil
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig
from bytewax.testing import TestingSink, TestingSource, run_main

from heartwheel.store.copying import copy_store
from heartwheel.store.new_parts import make_parts
from heartwheel.store.read_order import STATISTICS, read_in_order

KEYS, VALUE_BYTES = 24, 1_000_000
STORED_BYTES = KEYS * VALUE_BYTES


def resume(flow: Dataflow, folder: Path) -> None:
    """Run a flow from what the folder holds."""
    config = RecoveryConfig(folder, backup_interval=timedelta(0))
    run_main(flow, epoch_interval=timedelta(0), recovery_config=config)


def store_values(folder: Path, keys: list[str]) -> None:
    """Store a large value for each key."""
    flow = Dataflow("test")
    items = op.input("in", flow, TestingSource([(key, key) for key in keys]))
    stored = op.stateful_map(
        "state", items, lambda state, key: (state or key.ljust(VALUE_BYTES), "")
    )
    op.output("out", stored, TestingSink([]))
    resume(flow, folder)


def written_bytes() -> int:
    """Return how much this process has written so far, to whatever file."""
    (line,) = [
        line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("wchar")
    ]
    return int(line.split()[1])


def written_at_a_start(folder: Path) -> int:
    """Return how much a run writes that reads all values, and has no step which wants them."""
    flow = Dataflow("test")
    op.output("end", op.input("begin", flow, TestingSource([])), TestingSink([]))
    before = written_bytes()
    resume(flow, folder)
    return written_bytes() - before


def statistics(part: Path) -> list[tuple[str, str]]:
    """Return what a part says of its tables."""
    with closing(sqlite3.connect(part)) as db:
        return db.execute("SELECT tbl, stat FROM sqlite_stat1 ORDER BY tbl").fetchall()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store of 24 MB in two parts, in which some values have been replaced."""
    folder = tmp_path_factory.mktemp("made")
    make_parts(folder, 2)
    keys = [f"key-{number:02}" for number in range(KEYS)]
    store_values(folder, [*keys, *keys[:5]])
    return folder


@pytest.fixture
def large(made: Path, tmp_path: Path) -> Path:
    """Return a copy of that store."""
    return Path(shutil.copytree(made, tmp_path / "large"))


def test_start_writes_no_copy_of_its_store(large: Path) -> None:
    """Bytewax alone has SQLite sort all values by way of a temporary file."""
    sorted_bytes = written_at_a_start(large)
    read_in_order(large)
    in_order_bytes = written_at_a_start(large)
    assert sorted_bytes > STORED_BYTES / 2
    assert in_order_bytes < STORED_BYTES / 20


def test_second_start_changes_nothing(large: Path) -> None:
    """It finds in every part what the first one has left."""
    read_in_order(large)
    parts = sorted(large.glob("*.sqlite3"))
    assert [dict(statistics(part))["snaps"] for part in parts] == [STATISTICS] * 2
    before = [part.stat().st_mtime_ns for part in parts]
    read_in_order(large)
    assert [part.stat().st_mtime_ns for part in parts] == before


def test_statistics_that_somebody_has_gathered_are_replaced(large: Path) -> None:
    """By the true ones SQLite would sort again."""
    part = large / "part-0.sqlite3"
    with closing(sqlite3.connect(part)) as db:
        db.execute("ANALYZE")
    gathered = dict(statistics(part))["snaps"]
    read_in_order(large)
    assert dict(statistics(part))["snaps"] == STATISTICS != gathered


def test_copy_is_read_in_order_as_well(large: Path, tmp_path: Path) -> None:
    """A backup is started at night, and in a hurry."""
    read_in_order(large)
    copy_store(large, tmp_path / "copy")
    assert written_at_a_start(tmp_path / "copy") < STORED_BYTES / 20


def test_part_that_cannot_be_written_stays_as_it_is(large: Path) -> None:
    """What is wrong with it is told where it matters; the other one is read in order."""
    part, other = large / "part-0.sqlite3", large / "part-1.sqlite3"
    part.write_bytes(b"no database" * 1000)
    read_in_order(large)
    assert part.read_bytes() == b"no database" * 1000
    assert dict(statistics(other))["snaps"] == STATISTICS
