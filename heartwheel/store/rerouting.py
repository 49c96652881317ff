"""Rerouting: the stores of all shards of a run made into stores by other lanes, for new topics.

By the other route, or with another number of input partitions, most devices are in another lane. So
the new stores write to another output topic, and know nothing of the old one: that takes a clean
stop. Their sessions know up to when each is out, because the lanes that they come from were not
stopped at one moment (session_logic.relocation). Input offsets stay, and partitions that were added
are read from their beginning.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from confluent_kafka import OFFSET_BEGINNING
from msgspec import Struct, to_builtins

from dataflows.formats import Position, read_position, source_state
from dataflows.messages import DEAD_LETTER_KEY, lane_key
from dataflows.shard import Shard
from dataflows.store import Inbox
from heartwheel.store.contents import Contents, partition_of
from heartwheel.store.copying import new_folder
from heartwheel.store.identity import Identity, Layout, identify_resharded
from heartwheel.store.migration import check_movable, was_killed
from heartwheel.store.new_parts import make_parts
from heartwheel.store.new_shard import NewShard, NewShards, differing_value
from heartwheel.store.old_shards import OldShard, letters_of, open_shards
from heartwheel.store.stored_sessions import StoredLane, stored_lanes
from heartwheel.store.values import Kept, write_values
from session_logic.errors import ConfigError
from session_logic.events import Watermark
from session_logic.journal import BaseRow
from session_logic.keys import Route
from session_logic.relocation import Relocation
from session_logic.restoring import LaneState
from session_logic.rules import Rules, Session
from session_logic.table import SessionTable

Positions = dict[str, Position]
# How many sessions a lane has, and a sum over what they are.
Print = tuple[int, int]


class NewLanes(Struct, frozen=True):
    """What is to be made: lane_of tells the lane of each device."""

    route: Route
    lanes: int
    shards: int
    lane_of: Callable[[str], int]
    input_topics: frozenset[str]


class _Moved(Struct, frozen=True):
    """What the new stores are to have together, and the stores that it comes from."""

    old: list[OldShard]
    wanted: NewLanes
    states: list[LaneState]
    rows: list[BaseRow]
    positions: dict[str, Any]
    prints: dict[int, Print]

    def kept(self, shard: Shard) -> list[Kept]:
        """Return what the store of a new shard has, but for rows."""
        kept: list[Kept] = [
            ("sessions", lane_key(state.lane), to_builtins(state))
            for state in self.states
            if shard.has(state.lane)
        ]
        kept += [
            ("source", part, position)
            for part, position in self.positions.items()
            if shard.has(int(part.rpartition("/")[2]))
        ]
        letters = letters_of(shard, self.old)
        return kept if letters is None else [*kept, ("sink", DEAD_LETTER_KEY, letters)]


def reroute_stores(
    sources: list[Path],
    target: Path,
    wanted: NewLanes,
    rules: Rules,
    verify: Callable[[Positions], None],
) -> list[NewShard]:
    """Make stores with other lanes, in one new directory for each shard, of all those of a run.

    verify gets the position of each input partition, and raises an error if devices are not where
    they are said to be. The old stores stay as they are. Raises StoreInUseError for one of a
    running shard, ConfigError for stores that do not belong together, were not stopped cleanly or
    have those lanes already, SnapshotError for one that is damaged, or if the new stores are not
    as the old ones.
    """
    killed = {one for one in sources if was_killed(one)}
    with ExitStack() as opened, new_folder(target) as folder:
        old = open_shards(opened, sources, rules)
        _check(old, wanted, killed)
        positions = _positions(old)
        verify(positions)
        moved = _move(old, wanted, positions)
        new = NewShards(wanted.shards, rules, partial(_make, moved), partial(_difference, moved))
        return new.make_in(folder, target)


def _check(old: list[OldShard], wanted: NewLanes, killed: set[Path]) -> None:
    """Raise an error unless the stores can be made into those that are wanted."""
    first = old[0]
    route, lanes = first.identity.layout.route, first.contents.lanes
    if (wanted.route, wanted.lanes) == (route, lanes):
        msg = (
            f"{first.folder} has route {route} and {lanes} lanes already: leave out --route, "
            "--lanes and --partitioner for another number of shards"
        )
        raise ConfigError(msg)
    if wanted.route == route == "hash":
        msg = f"{first.folder} has route hash: `heartwheel store migrate` changes its lanes"
        raise ConfigError(msg)
    most = wanted.lanes if wanted.route == "partition" else 1
    if not 0 < wanted.shards <= most:
        numbers = f"1 to {most}" if most > 1 else "only 1"
        msg = f"--shards is {wanted.shards}: by route {wanted.route} there can be {numbers} here"
        raise ConfigError(msg)
    for one in old:
        check_movable(one.contents, killed=one.folder in killed)
    times = {_times(lane.contents.rules_of(lane.number)) for lane in _old_lanes(old)}
    if len(times) > 1:
        msg = (
            "the stores have last run with other times of heartbeats or timeouts than each other: "
            "start all with the same settings and stop them, then give the command again"
        )
        raise ConfigError(msg)


def _times(rules: Rules) -> tuple[int, int, int]:
    return rules.heartbeat_ms, rules.max_session_ms, rules.deduplication_window_ms


def _old_lanes(old: list[OldShard]) -> list[StoredLane]:
    return [lane for one in old for lane in stored_lanes(one.contents)]


def _positions(old: list[OldShard]) -> Positions:
    entries = [entry for one in old for entry in one.contents.step("source")]
    for entry in entries:
        partition_of(entry)  # whatever is of none is found here
    return {entry.key: read_position(entry.key, entry.value()) for entry in entries}


def _move(old: list[OldShard], wanted: NewLanes, positions: Positions) -> _Moved:
    relocation = Relocation(wanted.lanes, wanted.lane_of)
    for lane in _old_lanes(old):
        relocation.take(lane.contents.restore(lane.number)[0])
    rows = list(relocation.rows())
    new = _new_positions(wanted, positions)
    prints = _prints(_old_lanes(old), wanted.lane_of)
    return _Moved(old, wanted, relocation.states(), rows, new, prints)


def _new_positions(wanted: NewLanes, stored: Positions) -> dict[str, Any]:
    """Return where each partition is to be read from.

    By route partition there is one for each lane of each topic.
    """
    found = dict(stored)
    if wanted.route == "partition":
        of_topic = {_topic(part): position for part, position in stored.items()}
        for topic in of_topic.keys() & wanted.input_topics:
            own = {part for part in stored if _topic(part) == topic}
            parts = {f"{topic}/{number}" for number in range(wanted.lanes)}
            for part in sorted(own - parts):
                if found.pop(part).offset >= 0:
                    msg = (
                        f"input {part} was read, and there are to be {wanted.lanes} lanes: give "
                        "--lanes as many as each input topic has partitions"
                    )
                    raise ConfigError(msg)
            for part in parts - own:
                found[part] = of_topic[topic]._replace(offset=OFFSET_BEGINNING)
    return {part: source_state(position) for part, position in sorted(found.items())}


def _topic(part: str) -> str:
    return part.rpartition("/")[0]


def _make(moved: _Moved, place: Path, shard: Shard) -> None:
    """Write the store of a new shard, which has no output topic yet."""
    old = moved.old
    make_parts(place, len(old[0].contents.recovery.parts))
    inbox = Inbox()
    for row in moved.rows:
        if shard.has(row.lane):
            inbox.put(row)
    write_values(place, moved.kept(shard), inbox)
    layout = Layout(moved.wanted.route, shard)
    note = f"{len(old)} stores with other lanes"
    identify_resharded(place, Identity(uuid4().hex, "", layout), note)


def _difference(moved: _Moved, contents: Contents, shard: Shard) -> str | None:
    """Return the first difference between a new store and what it was to have."""
    differing = differing_value(moved.kept(shard), contents)
    if differing is not None:
        return differing
    lanes = stored_lanes(contents)
    own = _prints(lanes)
    for lane in lanes:
        if own.get(lane.number) != moved.prints.get(lane.number):
            return f"the sessions of lane {lane.number} differ"
    return None


def _prints(
    lanes: Iterable[StoredLane], lane_of: Callable[[str], int] | None = None
) -> dict[int, Print]:
    """Return what tells the sessions of each lane from others, in whatever order they are.

    Without lane_of they are in the lane that they are found in. Only one key group is in memory.
    """
    found: defaultdict[int, Print] = defaultdict(lambda: (0, 0))
    for lane in lanes:
        state = lane.contents.states[lane.number]
        watermark = Watermark(state.watermark_ms, next_group=state.next_group)
        for table in lane.tables():
            for group in table.groups:
                for session in table.sessions(group):
                    to = lane.number if lane_of is None else lane_of(session.device_id)
                    count, total = found[to]
                    mark = hash(_known(session, table, watermark.of(group).upto_ms))
                    found[to] = count + 1, total + mark
    return dict(found)


def _known(session: Session, table: SessionTable, upto_ms: int) -> tuple[Any, ...]:
    """Return all that is known of a session, with up to when its heartbeats are out."""
    interval_ms, sent_ms = table.rules.beats[session.interval]
    return (
        session.device_id,
        session.session_id,
        session.platform,
        session.started_ms,
        session.ended_ms,
        *(getattr(session, name, 0) or 0 for name in ("context", "last_seen_ms")),
        getattr(session, "idle_timeout_ms", 0),
        interval_ms,
        max(sent_ms, upto_ms),
    )
