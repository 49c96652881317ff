"""Kafka as a Bytewax source: every partition of the input topics, also those that come later.

Bytewax fixes the parts of a source when it starts, and gives a stored state only to a part that is
there again. So two kinds of parts are there beside the partitions that can be read:

- Of each topic some spare partitions that it does not have yet. They wait, and once they are there
  they are read from their beginning, without a restart. Until then their state says that nothing of
  them has been read. So a later start begins there as well, wherever it begins with new topics.
- What the store has read and what is not there, because its topic is not in the settings any more,
  or has fewer partitions. Its offset stays in the store in case it comes back. Only a process that
  has the store knows of it.
"""

import time
from collections.abc import Callable, Mapping
from datetime import datetime

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from confluent_kafka import OFFSET_BEGINNING, KafkaException

from dataflows.epoch_phase import EpochPhase
from dataflows.epoch_rest import EpochRest
from dataflows.formats import Position, SourceState, read_position, source_state
from dataflows.kafka.client import MakeConsumer, make_admin, make_consumer
from dataflows.kafka.consumer import SharedConsumer
from dataflows.kafka.input_topics import MakeAdmin, other_topic
from dataflows.kafka.partition import Gate, InputPartition
from dataflows.kafka.source_errors import source_error
from dataflows.kafka.topic_watch import TopicWatch
from dataflows.logs import log
from dataflows.messages import PartitionBatch
from dataflows.run_state import RunState
from dataflows.settings import Settings
from dataflows.timer_slack import DEFAULT_US, set_timer_slack
from session_logic.clock import PartitionProgress, Progress

# How often a spare partition looks whether it is there.
SPARE_MS = 200
NOTHING: Mapping[str, object] = {}


class KafkaSource(FixedPartitionedSource[PartitionBatch, SourceState]):
    """Reads every partition of the input topics."""

    def __init__(
        self,
        settings: Settings,
        run: RunState,
        on_tick: Callable[[], None] = lambda: None,
        make_consumer: MakeConsumer = make_consumer,
        make_admin: MakeAdmin = make_admin,
    ) -> None:
        """Read what the settings name, until the run is stopped.

        on_tick is called at every poll.
        """
        # The messages of these topics wait at them; given before a partition is read.
        self.gates: Mapping[str, Gate] = {}
        self._topics = settings.all_input_topics
        self.platforms = settings.input_topics  # a table tells that of its topic
        self.run = run
        self.consumer = SharedConsumer(settings, run, on_tick, make_consumer)
        self.topics = TopicWatch(settings, self.consumer, make_admin)
        self._stored: dict[str, Position] = {}
        self._snapshot_ms = settings.snapshot_ms
        self._shard = settings.own_shard
        self.share(0, 1)
        self.parts = 0  # that were there at the start, in all processes

    def share(self, number: int, processes: int) -> None:
        """Be the source of one process of several, so that they share partitions evenly."""
        self._number, self._processes = number, processes
        alone, interval_ms = processes == 1, self._snapshot_ms
        rest = None if alone else EpochRest(interval_ms)
        self.run.epochs = EpochPhase(interval_ms, alone=alone, rest=rest)

    def check(self, stored: Mapping[str, object] = NOTHING) -> None:
        """Take in what the store has of this source, by part; say what is not there any more.

        Raises ConfigError if no broker answers, or an input topic is missing or not the one that
        the store has read.
        """
        self._stored = {part: read_position(part, state) for part, state in stored.items()}
        self.topics.stored = frozenset(_place(part)[0] for part in self._stored)
        self.topics.begin()
        for part, position in self._stored.items():
            topic, number = _place(part)
            self._check_position(topic, number, position)
            if position.offset >= 0 and not self.topics.is_there(topic, number):
                why = "is not there"
                if topic not in self._topics:
                    why = "is of no topic of HEARTWHEEL_INPUT_TOPICS or HEARTWHEEL_INPUTS"
                log.warning(
                    f"an input partition that was read before {why}, and the run goes on without "
                    "it; its offset is kept in case it comes back",
                    part=part,
                    offset=position.offset,
                )

    def _check_position(self, topic: str, number: int, stored: Position) -> None:
        if self.topics.is_there(topic, number):
            error = other_topic(topic, stored, self.topics.now.position(topic, 0))
            if error is not None:
                raise error

    def list_parts(self) -> list[str]:
        """Return topic/partition of all input; Bytewax calls it before it builds any of them.

        Of the partitions that are there, every process leaves out others. Bytewax deals out first
        what fewer processes have: so these are spread evenly, whatever else there is.
        """
        set_timer_slack(DEFAULT_US)  # that of the thread which has made this one may be longer
        self.topics.begin()
        begun = self.topics.begun
        self.parts = sum(len(self._shard.of(begun.partitions(topic))) for topic in self._topics)
        parts = [part for part in self._stored if not self.topics.may_come(*_place(part))]
        for index, topic in enumerate(self._topics):
            count = begun.partitions(topic)
            for number in self._shard.of(count + self.topics.spare_partitions):
                is_other = (index + number) % self._processes != self._number
                if number >= count or is_other or self._processes == 1:
                    parts.append(f"{topic}/{number}")
        return parts

    def build_part(
        self, step_id: str, for_part: str, resume_state: SourceState | int | None
    ) -> "_SourcePart | _LeftPart":
        """Build a partition, from its stored offset or from where the settings say.

        Raises OtherTopicError if the offset is of another topic or cluster.
        """
        topic, number = _place(for_part)
        stored = None if resume_state is None else read_position(for_part, resume_state)
        if stored is not None:
            if not self.topics.may_come(topic, number):
                return _LeftPart(stored)
            self._check_position(topic, number, stored)
        part = _SourcePart(self, topic, number, stored or Position(OFFSET_BEGINNING))
        if self.topics.is_there(topic, number):
            # A partition that is new in a topic that is known was added: all of it is to be read.
            known = stored or any(_place(other)[0] == topic for other in self._stored)
            part.begin(anywhere=not known)
        return part


class _LeftPart(StatefulSourcePartition[PartitionBatch, SourceState]):
    """A partition that cannot be read; it ends at once, and its state stays."""

    def __init__(self, position: Position) -> None:
        self._position = position

    def next_batch(self) -> list[PartitionBatch]:
        raise StopIteration

    def snapshot(self) -> SourceState:
        return source_state(self._position)


class _SourcePart(StatefulSourcePartition[PartitionBatch, SourceState]):
    """One topic partition for Bytewax, which may still have to come; its state is its position.

    The first epoch of a new one has no messages: once it is stored, so is where the dead letters
    begin, and whatever a crash leaves of them is found again.
    """

    def __init__(self, source: KafkaSource, topic: str, number: int, position: Position) -> None:
        self._source = source
        self._consumer = source.consumer
        self._topic = topic
        self._number = number
        self._position = position  # before it is read
        self._platform = source.platforms.get(topic, "")
        self._part: InputPartition | None = None
        self._run = source.run
        self._told_stop = False
        self._told_begin = True  # but for one that is new
        self._snapshot_s: float | None = None  # when the last one began, until it is complete
        self._epochs = 0  # that have ended

    def begin(self, *, anywhere: bool = False) -> InputPartition:
        """Begin to read at the position; anywhere: where the settings say."""
        offset = None if anywhere else self._position.offset
        try:
            self._part = self._consumer.assign(self._topic, self._number, offset)
        except KafkaException as error:
            raise source_error(self._topic, self._number, error.args[0]) from None
        self._part.gate = self._source.gates.get(self._topic)
        self._told_begin = not self._part.new
        self._position = self._source.topics.now.position(self._topic, 0)
        return self._part

    def _begin_if_there(self) -> InputPartition | None:
        """Begin to read what has come while the run goes on."""
        topics, position = self._source.topics, self._position
        if not topics.is_there(self._topic, self._number):
            return None
        if position.topic_id != topics.now.position(self._topic, 0).topic_id:
            self._position = Position(OFFSET_BEGINNING)
        part = self.begin()
        part.added = True
        return part

    def next_batch(self) -> list[PartitionBatch]:
        """Return what has come, and what there is to tell the lanes."""
        if not self._told_begin:
            return self._tell_begin()
        consumer, part = self._consumer, self._part
        if self._snapshot_s is not None:
            # Bytewax asks for more only when everything of the epoch before has been stored.
            self._run.epochs.note_begin(self._epochs, self._run.clock.now_ms())
            if part is not None:
                consumer.snapshots.note(part, self._snapshot_s)
        self._snapshot_s = None
        if self._run.stop.is_set() and not self._run.holds_output():
            return self._tell_stop()
        part = part or self._begin_if_there()
        if part is None:
            return []
        now = consumer.poll()
        messages = [] if part.new else part.take(now)
        progress: Progress | None = part.progress(self._source.parts, consumer.name, now)
        progress = progress or consumer.ends.renewal(now)
        if isinstance(progress, PartitionProgress) and progress.left:
            log.warning(
                "an input partition has no leader, and the lanes go on without it",
                topic=part.topic,
                partition=part.number,
            )
        if not messages and progress is None:
            return []
        return [PartitionBatch(part.topic, part.number, self._platform, messages, progress)]

    def _tell_begin(self) -> list[PartitionBatch]:
        """Tell that the partition is read for the first time."""
        self._told_begin = True
        return [PartitionBatch(self._topic, self._number, self._platform, [], None, begins=True)]

    def _tell_stop(self) -> list[PartitionBatch]:
        """Tell every process of the cluster to stop, then end."""
        if self._told_stop or (self._part is None and self._consumer.is_open):
            raise StopIteration  # another partition of this process tells
        self._told_stop = True
        return [PartitionBatch(self._topic, self._number, self._platform, [], None, stop=True)]

    def next_awake(self) -> datetime | None:
        """Return when the consumer is polled next, or when to look whether there is a partition."""
        if self._part is None:
            clock = self._run.clock
            now = clock.now_ms()
            return clock.at_ms(self._run.epochs.turn_ms(now + SPARE_MS, now))
        return self._consumer.awake_at()

    def snapshot(self) -> SourceState:
        """Return the position."""
        self._snapshot_s = time.monotonic()
        self._epochs += 1
        self._run.epochs.note_end(self._epochs, self._run.clock.now_ms())
        if self._part is None:
            return source_state(self._position)
        return source_state(self._position._replace(offset=self._part.store()))

    def close(self) -> None:
        """Close the consumer with its last partition."""
        if self._part is not None:
            self._consumer.close(self._part)


def _place(part: str) -> tuple[str, int]:
    """Return the topic and number of a part by its name."""
    topic, _, number = part.rpartition("/")
    return topic, int(number)
