"""Stores of shards made into those of another number of shards."""

import json
import os
from pathlib import Path

import pytest
from bytewax.recovery import init_db_dir

from dataflows.formats import read_dead_letters, read_waiting_letters
from dataflows.shard import Shard
from heartwheel.store import resharding
from heartwheel.store.contents import Contents
from heartwheel.store.identity import (
    Layout,
    bind,
    identify,
    may_have_sent_more,
    note_begin,
    note_clean_stop,
)
from heartwheel.store.lock import StoreLock
from heartwheel.store.recovery_files import Recovery
from heartwheel.store.sources import source_states
from heartwheel.store.values import Kept
from tests.support.disk import BLOCK, fill, small_disk
from tests.support.flow import SETTINGS
from tests.support.shard_stores import TOPIC, make_shard, put
from tests.support.stores import Command, all_active


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Return the stores of four shards."""
    return [make_shard(tmp_path / "old" / str(number), number) for number in range(4)]


def letters(folder: Path) -> tuple[dict[int, int], list[int]]:
    """Return where a store looks for dead letters, and of which partitions some wait."""
    with Recovery(folder) as recovery:
        (state,) = [
            entry.value()
            for entry in Contents(recovery, SETTINGS.rules()).step("sink")
            if entry.key == "rejected"
        ]
    return read_dead_letters(state), [letter.partition for letter in read_waiting_letters(state)]


def test_four_shards_become_eight_then_three_with_all_that_they_had(
    shards: list[Path], tmp_path: Path, command: Command
) -> None:
    """Sessions, offsets, records and dead letters are where their partitions are."""
    code, said = command("store", "reshard", *shards, "--to", tmp_path / "eight", "--shards", 8)
    assert code == 0, said
    eight = [tmp_path / "eight" / str(number) for number in range(8)]
    each = "1 lanes, 4 sessions, 1 input offsets; 1 records and 1 dead letters wait for Kafka"
    assert f"{eight[5]}: shard 5/8, {each}" in said
    assert all_active(eight) == all_active(shards) != {}
    assert letters(eight[5]) == ({0: 11, 1: 29}, [5])
    code, said = command("store", "reshard", *eight, "--to", tmp_path / "three", "--shards", 3)
    assert code == 0, said
    three = [tmp_path / "three" / str(number) for number in range(3)]
    assert all_active(three) == all_active(shards)
    assert source_states(three[2]) == {
        f"t/{lane}": (2, 100 + lane, "topic", "cluster") for lane in (2, 5)
    }
    ends, waiting = letters(three[2])
    assert (ends[0], sorted(waiting)) == (10, [2, 5])
    found, before = identify(three[2]), [identify(one) for one in shards]
    assert (found.output_topic, found.layout) == (TOPIC, Layout("partition", Shard(2, 3)))
    assert found.generation == 2
    assert {before[2].id, identify(eight[5]).id} <= found.ancestors.keys()
    code, said = command("store", "inspect", three[2], "--json")
    assert "reshard" in json.loads(said)["notes"][0]["note"]


def test_new_shards_of_one_that_was_killed_say_so_all(
    shards: list[Path], tmp_path: Path, command: Command
) -> None:
    """They have no log of SQLite that would tell a later change of lanes."""
    note_begin(shards[1])
    assert command("store", "reshard", *shards, "--to", tmp_path / "two", "--shards", 2)[0] == 0
    for number in range(2):
        with Recovery(tmp_path / "two" / str(number)) as recovery:
            assert may_have_sent_more(recovery)
    note_clean_stop(shards[1])
    assert command("store", "reshard", *shards, "--to", tmp_path / "one", "--shards", 1)[0] == 0
    with Recovery(tmp_path / "one" / "0") as recovery:
        assert not may_have_sent_more(recovery)


def test_one_process_by_the_route_is_the_only_shard(
    shards: list[Path], tmp_path: Path, command: Command
) -> None:
    """Shards become one run with all lanes, and it becomes shards again."""
    alone = tmp_path / "alone"
    code, said = command("store", "reshard", *shards, "--to", alone, "--shards", 1)
    assert code == 0, said
    assert identify(alone / "0").layout == Layout("partition")
    again = tmp_path / "again"
    assert command("store", "reshard", alone / "0", "--to", again, "--shards", 5)[0] == 0
    assert all_active([again / str(n) for n in range(5)]) == all_active(shards)


def refused(command: Command, target: Path, *stores: Path, shards: int = 8) -> str:
    """Return why stores are not resharded; nothing is left of the attempt."""
    beside = set(target.parent.iterdir())
    code, said = command("store", "reshard", *stores, "--to", target, "--shards", shards)
    assert code in {1, 2}
    assert set(target.parent.iterdir()) == beside
    return said


def test_stores_that_do_not_belong_together_are_refused(
    shards: list[Path], tmp_path: Path, command: Command, store: Path
) -> None:
    """Each with one line, before anything is made."""
    target = tmp_path / "new"
    first, *others = shards
    assert "shard 2/4 is missing" in refused(command, target, *shards[:2], shards[3])
    twice = refused(command, target, *shards, shards[1].rename(tmp_path / "moved"))
    assert "holds no recovery store" in twice
    moved = tmp_path / "moved"
    assert "both of shard 1/4" in refused(
        command, target, *shards[2:], first, moved, make_shard(tmp_path / "copy", 1)
    )
    moved.rename(shards[1])
    link = tmp_path / "link"
    link.symlink_to(first)
    for again in (first, link):
        assert f"{first} and {again} are the same store" in refused(command, target, *shards, again)
    link.unlink()
    file = tmp_path / "file"
    file.touch()
    assert f"{file} holds no recovery store" in refused(command, target, *others, file)
    (tmp_path / "odd" / "heartwheel.lock").mkdir(parents=True)
    assert "heartwheel.lock cannot be opened: Is a directory" in refused(
        command, target, *others, tmp_path / "odd"
    )
    for stores, said in {
        (first, make_shard(tmp_path / "of-two", 1, 2)): "is of 2 shards",
        (first, make_shard(tmp_path / "elsewhere", 1, topic="other")): "writes to other",
    }.items():
        assert said in refused(command, target, *stores)
    for number in (0, 4, 9):
        assert "give another number" in refused(command, target, *shards, shards=number)
    bind(store, identify(store), TOPIC, Layout())
    assert "has route hash" in refused(command, target, store)
    put(others[0], "source", "added/1", 2, 7, "its", "cluster")
    assert "has offsets of added, t" in refused(command, target, *shards)
    held = StoreLock(first, 0)
    assert "stop it first" in refused(command, target, *shards)
    assert held.store


@pytest.mark.parametrize("room", [4, 40, 80, 110])
def test_full_disk_is_one_line_and_leaves_nothing(
    shards: list[Path], tmp_path: Path, command: Command, room: int
) -> None:
    """Wherever it becomes full: the stores that are there are as good as before."""
    with small_disk(tmp_path / "disk", 2) as disk:
        ballast = fill(disk)
        os.truncate(ballast, ballast.stat().st_size - room * BLOCK)
        target = disk / "new"
        code, said = command("store", "reshard", *shards, "--to", target, "--shards", 8)
        assert [one.name for one in disk.iterdir()] == ["ballast"]
    assert code == 1
    (line,) = [line for line in said.splitlines() if line.startswith("heartwheel: ")]
    assert line.startswith(f"heartwheel: {target} cannot be made (d")
    assert "make room on its disk" in line
    assert "restore" not in line


def test_store_that_was_never_run_is_refused(tmp_path: Path, command: Command) -> None:
    """There is nothing to take over."""
    folder = tmp_path / "new-one"
    folder.mkdir()
    init_db_dir(folder, 1)
    assert "was never run" in refused(command, tmp_path / "new", folder)


@pytest.mark.parametrize("step", ["sink", "source", "sessions"])
def test_new_store_that_lacks_something_is_found_and_not_kept(
    shards: list[Path],
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    """It is read back before any of them has its name."""
    write = resharding.write_values

    def lossy(folder: Path, kept: list[Kept], inbox: object) -> None:
        lost = next(one for one in reversed(kept) if one[0] == step)
        write(folder, [one for one in kept if one is not lost], inbox)  # type: ignore[arg-type]

    monkeypatch.setattr(resharding, "write_values", lossy)
    said = refused(command, tmp_path / "new", *shards, shards=2)
    assert "the new store of shard 0/2 is wrong, and nothing was made" in said
