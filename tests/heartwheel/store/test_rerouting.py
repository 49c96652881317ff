"""Stores of shards made into those of a run by hash and back, and of more lanes."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING
from msgspec.structs import replace

from dataflows.messages import DEAD_LETTER_KEY
from dataflows.shard import Shard
from heartwheel.kafka.partitioners import PARTITIONERS
from heartwheel.store import rerouting
from heartwheel.store.contents import Contents
from heartwheel.store.identity import Layout, bind, identify, note_begin
from heartwheel.store.new_shard import NewShard
from heartwheel.store.recovery_files import Recovery
from heartwheel.store.rerouting import NewLanes, Positions, reroute_stores
from heartwheel.store.sources import source_states
from heartwheel.store.values import Kept
from session_logic.codec import encode_sessions
from session_logic.errors import ConfigError, HeartwheelError
from session_logic.keys import Route, key_group_of, lane_of
from tests.support.flow import SETTINGS
from tests.support.shard_stores import LANES, TOPIC, make_hashed, make_shard, put
from tests.support.stores import Command, active, all_active


def by_murmur2(device_id: str, lanes: int) -> int:
    return PARTITIONERS["murmur2"](device_id.encode(), lanes)


def by_hash(device_id: str, lanes: int) -> int:
    return lane_of(key_group_of(device_id), lanes)


def wanted(route: Route, shards: int = 1, lanes: int = LANES) -> NewLanes:
    place = partial(by_hash if route == "hash" else by_murmur2, lanes=lanes)
    return NewLanes(route, lanes, shards, place, frozenset(["t"]))


def reroute(target: Path, to: NewLanes, *stores: Path) -> list[Path]:
    """Reroute stores; return the new ones."""
    found = reroute_stores(list(stores), target, to, SETTINGS.rules(), lambda _: None)
    assert sum(one.sessions for one in found) == len(all_active(list(stores)))
    return [one.folder for one in found]


def lanes_of(stores: list[Path]) -> dict[str, int]:
    """Return the lane of each device that has an active session."""
    found = {}
    for store in stores:
        with Recovery(store) as recovery:
            contents = Contents(recovery, SETTINGS.rules())
            for number in contents.own_lanes:
                lane, _ = contents.restore(number)
                for group in lane.table.groups.values():
                    found |= dict.fromkeys(group.active, number)
    return found


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Return the stores of four shards that were stopped."""
    return [make_shard(tmp_path / "old" / str(n), n, killed=False) for n in range(4)]


def test_run_by_hash_becomes_shards_and_they_become_one(tmp_path: Path) -> None:
    """Each session is in the lane of its device's input partition, and then in that of its hash."""
    hashed = make_hashed(tmp_path / "hashed")
    three = reroute(tmp_path / "three", wanted("partition", 3), hashed)
    assert all_active(three) == active(hashed) != {}
    assert lanes_of(three) == {name: by_murmur2(name, LANES) for name in active(hashed)}
    assert source_states(three[1]) == {
        "t/1": (2, 101, "id", "cluster"),
        "t/4": (2, OFFSET_BEGINNING, "id", "cluster"),
        "t/7": (2, OFFSET_BEGINNING, "id", "cluster"),
    }
    found = identify(three[1])
    assert (found.output_topic, found.layout) == ("", Layout("partition", Shard(1, 3)))
    for number, store in enumerate(three):
        bind(store, identify(store), TOPIC, Layout("partition", Shard(number, 3)))
    (again,) = reroute(tmp_path / "again", wanted("hash", lanes=4), *three)
    assert active(again) == active(hashed)
    assert lanes_of([again]) == {name: by_hash(name, 4) for name in active(hashed)}
    assert identify(again).layout == Layout()
    assert source_states(again) == source_states(hashed)
    with Recovery(again) as recovery:
        contents = Contents(recovery, SETTINGS.rules())
        assert [entry.key for entry in contents.step("sink")] == [DEAD_LETTER_KEY]


def test_more_partitions_are_read_from_their_beginning(shards: list[Path], tmp_path: Path) -> None:
    """So are the others from where they were, and the sessions are where their devices go."""
    for number, store in enumerate(shards):
        put(store, "source", f"retired/{number}", 2, 7, "its", "cluster")
    two = reroute(tmp_path / "two", wanted("partition", 2, 12), *shards)
    assert all_active(two) == all_active(shards)
    assert lanes_of(two) == {name: by_murmur2(name, 12) for name in all_active(shards)}
    offsets = {part: state[1] for part, state in source_states(two[1]).items()}  # type: ignore[index]
    begin = OFFSET_BEGINNING
    assert offsets == {
        "t/1": 101, "t/3": 103, "t/5": 105, "t/7": 107, "t/9": begin, "t/11": begin,
        "retired/1": 7, "retired/3": 7,
    }  # fmt: skip


def refused(target: Path, to: NewLanes, *stores: Path) -> str:
    """Return why stores are not rerouted; nothing is left of the attempt."""
    beside = set(target.parent.iterdir())
    with pytest.raises(HeartwheelError) as error:
        reroute_stores(list(stores), target, to, SETTINGS.rules(), lambda _: None)
    assert set(target.parent.iterdir()) == beside
    return str(error.value)


def test_what_cannot_be_rerouted_is_refused(shards: list[Path], tmp_path: Path) -> None:
    """Each with one line, before anything is made."""
    target, hashed = tmp_path / "new", make_hashed(tmp_path / "hashed")
    to_hash = wanted("hash")
    assert "shard 3/4 is missing" in refused(target, to_hash, *shards[:3])
    assert "has route hash: give" in refused(target, to_hash, hashed, shards[1])
    assert "has route partition and 8 lanes already" in refused(
        target, wanted("partition", 2), *shards
    )
    assert "`heartwheel store migrate`" in refused(target, wanted("hash", lanes=4), hashed)
    assert "by route hash there can be only 1 here" in refused(target, wanted("hash", 2), *shards)
    for count in (0, 13):
        to = wanted("partition", count, 12)
        assert "by route partition there can be 1 to 12 here" in refused(target, to, *shards)
    assert "input t/4 was read, and there are to be 4 lanes" in refused(
        target, wanted("partition", 2, 4), *shards
    )
    killed = make_shard(tmp_path / "killed", 3)
    assert "ended before all that it has was sent" in refused(target, to_hash, *shards[:3], killed)
    note_begin(killed)
    assert "is of a run that was killed" in refused(target, to_hash, *shards[:3], killed)
    other = replace(SETTINGS, max_session_ms=7_000_000)
    another = make_shard(tmp_path / "another", 3, killed=False, settings=other)
    assert "with other times of heartbeats" in refused(target, to_hash, *shards[:3], another)
    put(hashed, "source", "nowhere", 2, 7, "its", "cluster")
    assert "it is of no partition" in refused(target, wanted("partition"), hashed)


def test_input_that_is_elsewhere_refuses_before_anything_is_made(
    shards: list[Path], tmp_path: Path
) -> None:
    """Who looks at it knows up to where it was read."""
    seen: list[Positions] = []

    def verify(positions: Positions) -> None:
        seen.append(positions)
        raise ConfigError("not there")

    to = wanted("partition", 2, 16)
    with pytest.raises(ConfigError, match="not there"):
        reroute_stores(shards, tmp_path / "new", to, SETTINGS.rules(), verify)
    assert [one.name for one in tmp_path.iterdir()] == ["old"]
    assert {part: one.offset for part, one in seen[0].items()} == {
        f"t/{number}": 100 + number for number in range(LANES)
    }


@pytest.mark.parametrize("step", ["sessions", "source", "rows", "moments"])
def test_new_store_that_differs_is_found_and_not_kept(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """It is read back before any of them has its name."""
    write = rerouting.write_values

    def lossy(folder: Path, kept: list[Kept], inbox: Any) -> None:
        lost = next((one for one in reversed(kept) if one[0] == step), None)
        write(folder, [one for one in kept if one is not lost], inbox)

    monkeypatch.setattr(rerouting, "write_values", lossy)
    relocation = rerouting.Relocation

    class Lossy(relocation):  # type: ignore[misc, valid-type]
        def rows(self) -> Any:
            for row in super().rows():
                yield replace(row, blob=encode_sessions([])) if step == "rows" else row

        def states(self) -> Any:
            for state in super().states():
                if step == "moments":
                    rules = replace(state.rules, sent_ms=[0] * len(state.rules.sent_ms))
                    yield replace(state, rules=rules, watermark_ms=state.watermark_ms - 1)
                else:
                    yield state

    monkeypatch.setattr(rerouting, "Relocation", Lossy)
    said = refused(tmp_path / "new", wanted("hash"), *shards)
    assert "the new store of shard 0/1 is wrong, and nothing was made" in said


def test_command_makes_shards_one_run_without_kafka(
    shards: list[Path], tmp_path: Path, command: Command
) -> None:
    """By the hash nothing has to be known of the senders."""
    target = tmp_path / "new"
    to_hash = [*shards, "--to", target, "--shards", 1, "--route", "hash"]
    code, said = command("store", "reshard", *to_hash, "--partitioner", "murmur2")
    assert (code, "by route hash it tells nothing" in said) == (2, True)
    code, said = command("store", "reshard", *to_hash, "--lanes", 6)
    assert (code, "--lanes is 6: give a power of two up to 256, by --route" in said) == (2, True)
    code, said = command("store", "reshard", *shards, "--to", target, "--shards", 1, "--lanes", 257)
    assert (code, "--lanes is 257" in said) == (2, True)
    code, said = command("store", "reshard", *to_hash, "--lanes", 16)
    assert code == 0, said
    made = NewShard(target / "0", Shard(), 16, len(all_active(shards)), LANES, 0, 0)
    assert str(made) in said
    assert "a new output topic with 16 partitions" in said
    assert "HEARTWHEEL_SHARD" not in said
    assert active(target / "0") == all_active(shards)


def test_command_wants_to_know_the_partitioner(tmp_path: Path, command: Command) -> None:
    """The refusal of a store by hash says what to give."""
    target, hashed = tmp_path / "new", make_hashed(tmp_path / "hashed")
    arguments = ["--to", target, "--shards", 2]
    code, said = command("store", "reshard", hashed, *arguments)
    assert (code, "give --route partition with the partitioner" in said) == (2, True)
    code, said = command("store", "reshard", hashed, *arguments, "--route", "partition")
    assert (code, "--partitioner is missing" in said) == (2, True)
    assert not target.exists()
