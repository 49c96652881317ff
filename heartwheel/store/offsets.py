"""How far a store has read and written, and what it would find there: gaps and strays."""

from collections.abc import Iterator
from typing import cast

from confluent_kafka import Message
from msgspec import Struct

from dataflows.formats import OutboxState, Position, StoredOutbox, outbox_state, read_outbox
from dataflows.kafka.gaps import Gap, gap_of
from dataflows.kafka.input_topics import InputTopics, other_topic
from dataflows.kafka.reconcile import OutputReader, output_event
from dataflows.messages import DEAD_LETTER_KEY
from dataflows.settings import Settings
from heartwheel.store.contents import FLOW
from heartwheel.store.part_file import Entry
from heartwheel.store.recovery_files import Recovery
from heartwheel.store.sources import read_source
from session_logic.events import Kind


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
    """Up to where a lane knows its partition of a topic, and what it does not know to be there.

    The kind is that of records apart; None for the output topic, of which the name is not stored.
    """

    entry: Entry
    lane: int
    kind: Kind | None
    stored: StoredOutbox

    @property
    def offset(self) -> int:
        """The offset after the last record that is known to be there."""
        return self.stored.end_offset

    def topic(self, settings: Settings) -> str:
        """Return the topic."""
        return self.stored.topic or settings.output_topic

    def is_wanted(self, settings: Settings) -> bool:
        """Say whether a run with these settings goes on there."""
        return (
            self.offset >= 0
            and self.lane < settings.lanes
            and self.topic(settings) in settings.lane_topics
        )

    def moved(self, offset: int, strays_before: int = 0) -> OutboxState:
        """Return the state of the lane's sink, as it is now, with another offset.

        Records before strays_before may be of somebody else.
        """
        outbox = read_outbox(self.lane, self.entry.value())
        if self.kind is None:
            return outbox_state(outbox._replace(end_offset=offset, strays_before=strays_before))
        box = outbox.apart[self.kind]._replace(end_offset=offset, strays_before=strays_before)
        return outbox_state(outbox._replace(apart=outbox.apart | {self.kind: box}))


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
        # One that was moved has lanes before it has written anything.
        self.has_lanes = any(e.step == f"{FLOW}.sessions" for e in entries)
        self.inputs = [_input(e) for e in entries if e.step == f"{FLOW}.source" and "/" in e.key]
        self.outputs = [
            output
            for e in entries
            if e.step == f"{FLOW}.sink" and e.key != DEAD_LETTER_KEY
            for output in _outputs(e)
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
            place = one.topic(settings), one.lane
            if one.is_wanted(settings):
                gap = gap_of(*place, one.offset, reader.bounds(*place))
                if gap is not None:
                    found.append((one, gap))
        return found

    def strays(self, settings: Settings, reader: OutputReader) -> list[tuple[Output, Strays]]:
        """Return which records behind the stored offsets are somebody else's.

        No output partition may have a gap. Raises ReadError if one cannot be read.
        """
        found: dict[tuple[str, int], Strays] = {}
        outputs = {
            (one.topic(settings), one.lane): one for one in self.outputs if one.is_wanted(settings)
        }

        def take(message: Message) -> None:
            topic, lane = cast("str", message.topic()), cast("int", message.partition())
            offset, one = cast("int", message.offset()), outputs[topic, lane]
            if one.kind == "table":
                return
            event = output_event(message, settings, one.kind)
            if event is None and offset >= one.stored.strays_before:
                strays = found.setdefault((topic, lane), Strays(offset, offset, 0))
                strays.last, strays.count = offset, strays.count + 1

        for topic in settings.lane_topics:
            starts = {lane: one.offset for (name, lane), one in outputs.items() if name == topic}
            if starts:
                reader.read(topic, starts, take)
        return [(outputs[where], strays) for where, strays in sorted(found.items())]


def _input(entry: Entry) -> Input:
    topic, _, partition = entry.key.rpartition("/")
    return Input(entry, topic, int(partition), read_source(entry))


def _outputs(entry: Entry) -> Iterator[Output]:
    lane = int(entry.key.removeprefix("lane-"))
    outbox = read_outbox(lane, entry.value())
    yield Output(entry, lane, None, outbox)
    for kind, box in outbox.apart.items():
        yield Output(entry, lane, kind, box)
