"""Resharding: the stores of all shards of a run made into those of another number of shards.

The lanes stay as they are, because a lane is a partition of the topics, and only its shard changes.
So each lane's state, rows, offsets and records on their way are taken over value by value, and a
run that was killed is no exception: what its last snapshot does not have is found in the output.
Lanes need not be of one moment, as each goes on from its own offsets.

What shards share out is the state of the dead letters. A new store looks for those that were
written since the earliest moment of the stores that it comes from.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

from bytewax.recovery import init_db_dir
from msgspec import Struct

from dataflows.formats import (
    DEAD_LETTER_VERSION,
    DeadLetterState,
    read_dead_letters,
    read_row,
    read_waiting_letters,
    to_stored_letter,
)
from dataflows.messages import DEAD_LETTER_KEY
from dataflows.shard import Shard
from dataflows.store import Inbox
from heartwheel.store.contents import Contents
from heartwheel.store.copying import new_folder
from heartwheel.store.identity import Identity, Layout, identify_resharded, read_identity
from heartwheel.store.part_file import Entry
from heartwheel.store.recovery_files import Recovery
from heartwheel.store.sinks import read_sink
from heartwheel.store.sources import is_read
from heartwheel.store.stored_sessions import stored_lanes
from heartwheel.store.values import Kept, write_values
from session_logic.errors import ConfigError, SnapshotError
from session_logic.rules import Rules


class NewShard(Struct, frozen=True):
    """What a new store has, by count."""

    folder: Path
    shard: Shard
    lanes: int
    sessions: int
    offsets: int
    records: int
    letters: int

    def __str__(self) -> str:
        """Return it in one line."""
        return (
            f"{self.folder}: shard {self.shard}, {self.lanes} lanes, {self.sessions} sessions, "
            f"{self.offsets} input offsets; {self.records} records and {self.letters} dead letters "
            "wait for Kafka"
        )


class OldShard(Struct, frozen=True):
    """A store to take lanes from."""

    contents: Contents
    identity: Identity

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self.contents.recovery.folder

    @property
    def shard(self) -> Shard:
        """Which one of how many it is."""
        return self.identity.layout.shard

    @property
    def letters(self) -> tuple[Any, ...] | None:
        """What it knows of the dead letters; None if nothing."""
        found = [e.value() for e in self.contents.step("sink") if e.key == DEAD_LETTER_KEY]
        return found[0] if found else None


def reshard_stores(sources: list[Path], target: Path, shards: int, rules: Rules) -> list[NewShard]:
    """Make stores of so many shards, in one new directory each, of those of all shards of a run.

    The old ones stay as they are. Raises StoreInUseError for one of a running shard, ConfigError
    for stores that do not belong together or a target that exists, SnapshotError for one that is
    damaged, or if the new stores are not as the old ones.
    """
    with ExitStack() as opened, new_folder(target) as folder:
        old = [_open(opened.enter_context(Recovery(one, alone=True)), rules) for one in sources]
        _check(old, shards)
        made = []
        for number in range(shards):
            shard = Shard(number, shards)
            place = folder / str(number)
            place.mkdir()
            _make(place, shard, old)
            made.append(_compare(place, shard, old, rules, target / str(number)))
    return made


def _open(recovery: Recovery, rules: Rules) -> OldShard:
    identity = read_identity(recovery)
    if identity is None or not identity.output_topic:
        raise ConfigError(f"{recovery.folder} was never run: start it once, or use a new directory")
    return OldShard(Contents(recovery, rules), identity)


def _check(old: list[OldShard], shards: int) -> None:
    """Raise ConfigError unless the stores are those of all shards of one run."""
    by_number: dict[int, OldShard] = {}
    first = old[0]
    for one in old:
        if one.identity.layout.route != "partition":
            msg = (
                f"{one.folder} has route hash: it does not tell in which input partition a device "
                "is; docs/shards.md says how to go from processes to shards"
            )
            raise ConfigError(msg)
        for what, mine, its in (
            ("is of", f"{one.shard.shards} shards", f"{first.shard.shards} shards"),
            ("writes to", one.identity.output_topic, first.identity.output_topic),
            ("has", f"{one.contents.lanes} lanes", f"{first.contents.lanes} lanes"),
            ("has", _topics(one), _topics(first)),
            ("is", _generation(one), _generation(first)),
        ):
            if mine != its:
                msg = (
                    f"{one.folder} {what} {mine}, {first.folder} {what} {its}: give the stores of "
                    "one run, each as it is when its shard has last run with the same settings"
                )
                raise ConfigError(msg)
        other = by_number.setdefault(one.shard.number, one)
        if other is not one:
            raise ConfigError(f"{other.folder} and {one.folder} are both of shard {one.shard}")
    missing = [n for n in range(first.shard.shards) if n not in by_number]
    if missing:
        msg = f"the store of shard {Shard(missing[0], first.shard.shards)} is missing: give all"
        raise ConfigError(msg)
    if shards == first.shard.shards or not 0 < shards <= first.contents.lanes:
        msg = (
            f"--shards is {shards}: there are {first.shard.shards} shards and "
            f"{first.contents.lanes} lanes, so give another number, up to that of the lanes"
        )
        raise ConfigError(msg)
    for one in old:
        fault = next(one.contents.faults(), None)
        if fault is not None:
            raise SnapshotError(f"{fault}; see `heartwheel store check`")


def _topics(old: OldShard) -> str:
    topics = {entry.key.rpartition("/")[0] for entry in old.contents.step("source")}
    return f"offsets of {', '.join(sorted(topics)) or 'no topic'}"


def _generation(old: OldShard) -> str:
    return f"of resharding {old.identity.generation}"


def _make(place: Path, shard: Shard, old: list[OldShard]) -> None:
    """Write the store of a new shard."""
    parts = len(old[0].contents.recovery.parts)
    init_db_dir(place, parts)  # type: ignore[no-untyped-call]
    kept: list[Kept] = [
        (entry.step.rpartition(".")[2], entry.key, entry.value()) for entry in _values(shard, old)
    ]
    letters = _letters(shard, old)
    if letters is not None:
        kept.append(("sink", DEAD_LETTER_KEY, letters))
    inbox = Inbox()
    for entry in _rows(shard, old):
        inbox.put(read_row(entry.key, entry.value()))
    write_values(place, kept, inbox)
    ancestors: dict[str, int] = {}
    for one in _sources(shard, old):
        ancestors |= one.identity.ancestors | {one.identity.id: one.identity.generation}
    topic, layout = old[0].identity.output_topic, Layout("partition", shard)
    note = f"made by `heartwheel store reshard` of {len(old)} stores"
    identify_resharded(place, Identity(uuid4().hex, topic, layout, ancestors), note)


def _sources(shard: Shard, old: list[OldShard]) -> list[OldShard]:
    """Return the stores that have lanes of a new shard, or would, were there more lanes.

    The lease on the topic does not know how many there are.
    """
    return [one for one in old if one.shard.overlaps(shard)]


def _lanes(old: list[OldShard]) -> int:
    return old[0].contents.lanes


def _values(shard: Shard, old: list[OldShard]) -> list[Entry]:
    """Return what a new shard takes over as it is, but for rows."""
    return [
        entry
        for one in old
        for step in ("source", "sessions", "sink")
        for entry in one.contents.step(step)
        if entry.key != DEAD_LETTER_KEY and _has(shard, _partition(entry))
    ]


def _has(shard: Shard, partition: int) -> bool:
    return partition % shard.shards == shard.number


def _partition(entry: Entry) -> int:
    """Return the partition that a value is of, which its key ends with."""
    sign = "/" if entry.step.endswith(".source") else "-"
    name, _, number = entry.key.rpartition(sign)
    if not (name and number.isdecimal()):
        raise SnapshotError(f"{entry.where}: it is of no partition; see `heartwheel store check`")
    return int(number)


def _rows(shard: Shard, old: list[OldShard]) -> list[Entry]:
    lanes = shard.of(_lanes(old))
    return [
        entry
        for one in old
        for lane in one.contents.own_lanes
        if lane in lanes
        for entry in one.contents.rows(lane)
    ]


def _letters(shard: Shard, old: list[OldShard]) -> DeadLetterState | None:
    """Return what a new shard must know of the dead letters: None if there were none to be sent."""
    states = [one.letters for one in _sources(shard, old)]
    known = [state for state in states if state is not None]
    if not known:
        return None
    ends = [found for found in map(read_dead_letters, known) if found]
    # Where one of them does not say where it ended, all of the partition is read.
    both = set[int].intersection(*map(set, ends)) if ends else set[int]()
    waiting = [
        to_stored_letter(letter)
        for state in known
        for letter in read_waiting_letters(state)
        if _has(shard, letter.partition)
    ]
    earliest = {number: min(found[number] for found in ends) for number in sorted(both)}
    return DEAD_LETTER_VERSION, earliest, waiting


def _compare(
    place: Path, shard: Shard, old: list[OldShard], rules: Rules, target: Path
) -> NewShard:
    """Read a new store back; raises SnapshotError where it is not as the old ones were."""
    with Recovery(place, alone=True) as recovery:
        contents = Contents(recovery, rules)
        fault = next(contents.faults(), None) or _difference(contents, shard, old)
        if fault is not None:
            msg = (
                f"the new store of shard {shard} is wrong, and nothing was made: {fault}; keep the "
                "old ones and report this"
            )
            raise SnapshotError(msg)
        sinks = {entry.key: read_sink(entry).waiting for entry in contents.step("sink")}
        letters = sinks.pop(DEAD_LETTER_KEY, 0)
        return NewShard(
            target,
            shard,
            len(contents.own_lanes),
            sum(table.active for lane in stored_lanes(contents) for table in lane.tables()),
            sum(map(is_read, contents.step("source"))),
            sum(sinks.values()),
            letters,
        )


def _difference(contents: Contents, shard: Shard, old: list[OldShard]) -> str | None:
    """Return the first difference between a new store and what it was to take over."""
    wanted = {(entry.step, entry.key): entry.value() for entry in _values(shard, old)}
    found = {
        (entry.step, entry.key): entry.value()
        for step in ("source", "sessions", "sink")
        for entry in contents.step(step)
    }
    letters = _letters(shard, old)
    if letters is not None:
        wanted["heartwheel.sink", DEAD_LETTER_KEY] = letters
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            return f"{' '.join(name)} differs"
    by_lane = {lane.number: lane for one in old for lane in stored_lanes(one.contents)}
    for lane in stored_lanes(contents):
        before = by_lane[lane.number].tables()
        for group, (now, was) in enumerate(zip(lane.tables(), before, strict=True)):
            if any(now.sessions(one) != was.sessions(one) for one in was.groups):
                return f"lane {lane.number}: the sessions of group {group} differ"
    return None
