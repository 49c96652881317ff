"""How far a store has read and written, and what it would find there: gaps and strays."""

from collections.abc import Iterator
from typing import cast

from confluent_kafka import Message
from msgspec import Struct

from dataflows.formats import Position, read_outbox
from dataflows.kafka.gaps import Gap, gap_of
from dataflows.kafka.input_topics import InputTopics, other_topic
from dataflows.kafka.reconcile import OutputReader, output_event
from dataflows.messages import DEAD_LETTER_KEY
from dataflows.settings import Settings
from heartwheel.store.contents import FLOW
from heartwheel.store.recovery_files import Entry, Recovery
from heartwheel.store.sources import read_source


class Input(Struct, frozen=True):
    """Up to where an input partition is read; the offset is below 0 if nothing of it is."""

    entry: Entry
    topic: str
    partition: int
    position: Position

    @property
    def offset(self) -> int:
        """The next offset to read."""
        return self.position.offset


class Output(Struct, frozen=True):
    """Up to where a lane knows its output partition, and what it does not know to be there.

    Records before strays_before may be of somebody else.
    """

    entry: Entry
    lane: int
    offset: int
    keys: list[str]
    values: list[bytes]
    strays_before: int


class Strays(Struct):
    """Records in an output partition that are not Heartwheel's."""

    first: int
    last: int
    count: int


class StoredOffsets:
    """The offsets of an open recovery directory, by partition."""

    def __init__(self, recovery: Recovery) -> None:
        """Read them; raises SnapshotError for one that cannot be read."""
        entries = recovery.entries().values()
        self.inputs = [_input(e) for e in entries if e.step == f"{FLOW}.source" and "/" in e.key]
        self.outputs = [
            _output(e) for e in entries if e.step == f"{FLOW}.sink" and e.key != DEAD_LETTER_KEY
        ]

    def input_gaps(self, settings: Settings, reader: OutputReader) -> list[tuple[Input, Gap]]:
        """Return where input that was not read is gone; topics that are not there have none."""
        counts = reader.partition_counts() if self.inputs else {}
        found = []
        for one in self.inputs:
            place = one.topic, one.partition
            is_input = one.topic in settings.all_input_topics
            is_there = one.partition < counts.get(one.topic, 0)
            if is_input and is_there and one.offset >= 0:
                gap = gap_of(*place, one.offset, reader.bounds(*place))
                if gap is not None:
                    found.append((one, gap))
        return found

    def other_topics(self, now: InputTopics) -> Iterator[str]:
        """Yield a line for each input topic that is not the one that was read."""
        errors = {
            one.topic: other_topic(one.topic, one.position, now.position(one.topic, 0))
            for one in sorted(self.inputs, key=lambda one: one.offset)
            if one.partition < now.partitions(one.topic)
        }
        yield from (str(error) for error in errors.values() if error is not None)

    def output_gaps(self, settings: Settings, reader: OutputReader) -> list[tuple[Output, Gap]]:
        """Return where output from the stored offset on is gone."""
        found = []
        for one in self.outputs:
            place = settings.output_topic, one.lane
            if one.offset >= 0 and one.lane < settings.lanes:
                gap = gap_of(*place, one.offset, reader.bounds(*place))
                if gap is not None:
                    found.append((one, gap))
        return found

    def strays(self, settings: Settings, reader: OutputReader) -> list[tuple[Output, Strays]]:
        """Return which records behind the stored offsets are somebody else's.

        No output partition may have a gap. Raises ReadError if one cannot be read.
        """
        found: dict[int, Strays] = {}
        lanes = {one.lane: one for one in self.outputs if one.offset >= 0}

        def take(message: Message) -> None:
            lane, offset = cast("int", message.partition()), cast("int", message.offset())
            event = output_event(message, settings.lanes)
            if event is None and offset >= lanes[lane].strays_before:
                strays = found.setdefault(lane, Strays(offset, offset, 0))
                strays.last, strays.count = offset, strays.count + 1

        if lanes:
            starts = {lane: one.offset for lane, one in lanes.items()}
            reader.read(settings.output_topic, starts, take)
        return [(lanes[lane], strays) for lane, strays in sorted(found.items())]


def _input(entry: Entry) -> Input:
    topic, _, partition = entry.key.rpartition("/")
    return Input(entry, topic, int(partition), read_source(entry))


def _output(entry: Entry) -> Output:
    lane = int(entry.key.removeprefix("lane-"))
    return Output(entry, lane, *read_outbox(lane, entry.value()))
