"""What a crash leaves in the recovery partitions, with real Bytewax."""

import pickle
import sqlite3
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, run_main

from heartwheel.store.uncommitted import forget_unfinished
from session_logic.errors import SnapshotError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a recovery directory with three partitions."""
    init_db_dir(tmp_path, 3)
    return tmp_path


def run(items: Iterable[object], folder: Path) -> list[tuple[str, int]]:
    """Count items by key, one epoch an item, from what the folder holds."""
    out: list[tuple[str, int]] = []
    flow = Dataflow("count")
    keyed = op.key_on("key", op.input("source", flow, TestingSource(list(items))), str)
    counted = op.stateful_map("sum", keyed, lambda s, _: ((s or 0) + 1, (s or 0) + 1))
    op.output("sink", counted, TestingSink(out))
    run_main(
        flow,
        epoch_interval=timedelta(0),
        recovery_config=RecoveryConfig(folder, backup_interval=timedelta(0)),
    )
    return out


def snapshots(folder: Path, where: str = "TRUE") -> list[tuple[str, str, int]]:
    """Return step, key and epoch of every snapshot."""
    found = []
    for part in sorted(folder.glob("part-*.sqlite3")):
        store = sqlite3.connect(part)
        rows = store.execute(f"SELECT step_id, state_key, snap_epoch FROM snaps WHERE {where}")
        found += rows.fetchall()
        store.close()
    return found


def leave_unfinished(folder: Path) -> None:
    """Do what a crash between the snapshots of an epoch and its end does to key a."""
    stores = [sqlite3.connect(part) for part in sorted(folder.glob("part-*.sqlite3"))]
    fronts = [s.execute("SELECT MAX(worker_frontier) FROM fronts").fetchone()[0] for s in stores]
    epoch = max(front for front in fronts if front is not None)
    for store in stores:
        store.execute(
            "INSERT INTO snaps (step_id, state_key, snap_epoch, ser_change) SELECT step_id, "
            "state_key, ?, ? FROM snaps WHERE state_key = 'a' LIMIT 1",
            (epoch, pickle.dumps(99)),
        )
        store.commit()
        store.close()


def test_snapshot_of_an_unfinished_epoch_is_forgotten(folder: Path) -> None:
    """The state of a crashed run does not come back at a later resume."""
    assert run("aba", folder) == [("a", 1), ("b", 1), ("a", 2)]
    leave_unfinished(folder)
    assert forget_unfinished(folder) >= 1
    assert run([*"ababb", TestingSource.ABORT()], folder) == [("b", 2), ("b", 3)]
    forget_unfinished(folder)
    assert run("ababba", folder)[-1] == ("a", 3)


def test_bytewax_alone_takes_it_for_the_newest(folder: Path) -> None:
    """Why it has to be forgotten; when this fails, Bytewax has learned to do it."""
    run("aba", folder)
    leave_unfinished(folder)
    run([*"ababb", TestingSource.ABORT()], folder)  # an end would snapshot all keys
    assert run("ababba", folder)[-1] == ("a", 100)


def test_finished_snapshots_stay(folder: Path) -> None:
    """Only what Bytewax would compute again is deleted, however often."""
    run("aba", folder)
    forget_unfinished(folder)
    before = snapshots(folder)
    assert {key for _, key, _ in before} == {"a", "b", "iterable"}
    assert forget_unfinished(folder) == 0
    assert snapshots(folder) == before


def test_new_store_is_left_alone(folder: Path) -> None:
    """There is nothing to forget before the first run."""
    assert forget_unfinished(folder) == 0


@pytest.mark.parametrize("damage", [b"", b"garbage " * 1_000])
def test_damaged_partition_is_named_with_what_to_do(folder: Path, damage: bytes) -> None:
    """A partition that is no store is an error in one line."""
    (folder / "part-1.sqlite3").write_bytes(damage)
    with pytest.raises(SnapshotError, match="restore an intact copy"):
        forget_unfinished(folder)
