"""Resharding: the stores of all shards of a run made into those of another number of shards.

The lanes stay as they are, because a lane is a partition of the topics, and only its shard changes.
So each lane's state, rows, offsets and records on their way are taken over value by value, and a
run that was killed is no exception: what its last snapshot does not have is found in the output.
Lanes need not be of one moment, as each goes on from its own offsets.
"""

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from uuid import uuid4

from dataflows.formats import read_row
from dataflows.messages import DEAD_LETTER_KEY
from dataflows.shard import Shard
from dataflows.store import Inbox
from heartwheel.store.contents import Contents, partition_of
from heartwheel.store.copying import new_folder
from heartwheel.store.identity import (
    Identity,
    Layout,
    identify_resharded,
    may_have_sent_more,
    note_begin,
)
from heartwheel.store.migration import was_killed
from heartwheel.store.new_parts import make_parts
from heartwheel.store.new_shard import NewShard, NewShards, differing_value
from heartwheel.store.old_shards import OldShard, letters_of, open_shards
from heartwheel.store.part_file import Entry
from heartwheel.store.stored_sessions import stored_lanes
from heartwheel.store.values import Kept, write_values
from session_logic.errors import ConfigError
from session_logic.rules import Rules


def reshard_stores(sources: list[Path], target: Path, shards: int, rules: Rules) -> list[NewShard]:
    """Make stores of so many shards, in one new directory each, of those of all shards of a run.

    The old ones stay as they are. Raises StoreInUseError for one of a running shard, ConfigError
    for stores that do not belong together or a target that exists, SnapshotError for one that is
    damaged, or if the new stores are not as the old ones.
    """
    killed = any(map(was_killed, sources))
    with ExitStack() as opened, new_folder(target) as folder:
        old = open_shards(opened, sources, rules)
        _check(old, shards)
        open_ended = killed or any(may_have_sent_more(one.contents.recovery) for one in old)
        make = partial(_make, old, open_ended=open_ended)
        new = NewShards(shards, rules, make, partial(_difference, old))
        return new.make_in(folder, target)


def _check(old: list[OldShard], shards: int) -> None:
    """Raise ConfigError unless so many shards can be made."""
    first = old[0]
    if first.identity.layout.route != "partition":
        msg = (
            f"{first.folder} has route hash: it does not tell in which input partition a device "
            "is; give --route partition with the partitioner of the senders, see docs/shards.md"
        )
        raise ConfigError(msg)
    if shards == first.shard.shards or not 0 < shards <= first.contents.lanes:
        msg = (
            f"--shards is {shards}: there are {first.shard.shards} shards and "
            f"{first.contents.lanes} lanes, so give another number, up to that of the lanes"
        )
        raise ConfigError(msg)


def _make(old: list[OldShard], place: Path, shard: Shard, *, open_ended: bool) -> None:
    """Write the store of a new shard, which tells as little as the old ones of what was sent."""
    parts = len(old[0].contents.recovery.parts)
    make_parts(place, parts)
    inbox = Inbox()
    for entry in _rows(shard, old):
        inbox.put(read_row(entry.key, entry.value()))
    write_values(place, _kept(shard, old), inbox)
    ancestors: dict[str, int] = {}
    for one in _sources(shard, old):
        ancestors |= one.identity.ancestors | {one.identity.id: one.identity.generation}
    topic, layout = old[0].identity.output_topic, Layout("partition", shard)
    note = f"{len(old)} stores"
    identify_resharded(place, Identity(uuid4().hex, topic, layout, ancestors), note)
    if open_ended:
        note_begin(place)


def _sources(shard: Shard, old: list[OldShard]) -> list[OldShard]:
    """Return the stores that have lanes of a new shard, or would, were there more lanes.

    The lease on the topic does not know how many there are.
    """
    return [one for one in old if one.shard.overlaps(shard)]


def _lanes(old: list[OldShard]) -> int:
    return old[0].contents.lanes


def _kept(shard: Shard, old: list[OldShard]) -> list[Kept]:
    """Return what the store of a new shard has, but for rows."""
    kept: list[Kept] = [
        (step, entry.key, entry.value())
        for one in old
        for step in ("source", "sessions", "sink")
        for entry in one.contents.step(step)
        if entry.key != DEAD_LETTER_KEY and shard.has(partition_of(entry))
    ]
    letters = letters_of(shard, _sources(shard, old))
    return kept if letters is None else [*kept, ("sink", DEAD_LETTER_KEY, letters)]


def _rows(shard: Shard, old: list[OldShard]) -> list[Entry]:
    lanes = shard.of(_lanes(old))
    return [
        entry
        for one in old
        for lane in one.contents.own_lanes
        if lane in lanes
        for entry in one.contents.rows(lane)
    ]


def _difference(old: list[OldShard], contents: Contents, shard: Shard) -> str | None:
    """Return the first difference between a new store and what it was to take over."""
    differing = differing_value(_kept(shard, old), contents)
    if differing is not None:
        return differing
    by_lane = {lane.number: lane for one in old for lane in stored_lanes(one.contents)}
    for lane in stored_lanes(contents):
        before = by_lane[lane.number].tables()
        for group, (now, was) in enumerate(zip(lane.tables(), before, strict=True)):
            if any(now.sessions(one) != was.sessions(one) for one in was.groups):
                return f"lane {lane.number}: the sessions of group {group} differ"
    return None
