"""Kafka as a Bytewax sink: one partition per lane, one producer per process."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import Event, Lock

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from confluent_kafka import KafkaError, KafkaException, Message

from dataflows.clock import Clock
from dataflows.formats import DeadLetterState, OutboxState, outbox_state
from dataflows.kafka.client import MakeConsumer, MakeProducer, make_consumer, make_producer
from dataflows.kafka.dead_letters import DeadLetterPart
from dataflows.kafka.lane_topics import lane_topic_faults, warn_of_more
from dataflows.kafka.letter_queue import LetterProducer
from dataflows.kafka.letter_topic import LetterTopic
from dataflows.kafka.metadata import partition_counts
from dataflows.kafka.outbox import Outbox
from dataflows.kafka.permit import WritePermit
from dataflows.kafka.producer import SharedProducer, refusal
from dataflows.kafka.reconcile import OutputReader, Reconciliation
from dataflows.kafka.topics_apart import TopicsApart
from dataflows.messages import DEAD_LETTER_KEY, HOLD_EPOCHS, DeadLetter, RejectedByClock, lane_key
from dataflows.metrics import SNAPSHOT_BYTES
from dataflows.run_state import RunState
from dataflows.settings import Settings
from session_logic.errors import ConfigError
from session_logic.events import SessionName
from session_logic.keys import KEY_GROUPS
from session_logic.output import OutputBatch


class _LanePart(StatefulSinkPartition[OutputBatch, OutboxState]):
    """The output partition of one lane.

    Only the last record of a batch has a delivery callback. That is enough: this run alone
    writes to the partition, so the offset of a record tells whether all before it arrived.

    Records have the time of the run's clock, but never one from before what is there already: the
    last one tells a later run how far runs have come by their clocks.
    """

    def __init__(
        self,
        *,
        topic: str,
        lane: int,
        outbox: Outbox,
        producer: SharedProducer,
        reconcile: Callable[[], None],
        stop: Event,
        clock: Clock,
        published_ms: Callable[[], int],
        hold_epochs: int,
    ) -> None:
        """Hold back what is written in the first hold_epochs epochs; reconcile before all else."""
        self._topic = topic
        self._lane = lane
        self._outbox = outbox
        self._producer = producer
        self._reconcile = reconcile
        self._stop = stop
        self._clock = clock
        self._published_ms = published_ms
        self._hold_epochs = hold_epochs

    def write_batch(self, items: list[OutputBatch]) -> None:
        self._producer.poll()
        self._reconcile()
        for records in items:
            if records.rests_on_state:
                self._hold_epochs = HOLD_EPOCHS
            self.send(self._outbox.admit(records))
        self._producer.poll()

    def send(self, records: OutputBatch) -> None:
        """Enqueue records, or hold them back."""
        if self._hold_epochs:
            self._outbox.hold(records)
            return
        self._send(self._topic, self._outbox, records)
        for kind, batch in records.apart.items():
            outbox = self._outbox.apart[kind]
            self._send(outbox.topic, outbox, batch, with_empty=kind == "table")

    def _send(
        self, topic: str, outbox: Outbox, records: OutputBatch, *, with_empty: bool = False
    ) -> None:
        """Enqueue the records of one topic; an empty value among them is sent as none."""
        last = len(records) - 1
        if last < 0:
            return
        self._producer.check()  # what came before it may have taken long
        producer, lane = self._producer, self._lane
        now = max(self._clock.now_ms(), self._published_ms())
        produce = producer.open().produce
        # All by position: a keyword would add a third to what a call costs.
        values: Sequence[bytes | None] = records.values
        if with_empty:
            values = [value or None for value in values]
        for key, value in zip(records.keys[:last], values[:last], strict=True):
            try:
                produce(topic, value, key, lane, None, None, now)
            except (BufferError, KafkaException):
                producer.send(partial(produce, topic, value, key, lane, None, None, now))
        acknowledged = partial(self._on_delivery, topic, outbox, outbox.send(records))
        key, value = records.keys[last], values[last]
        producer.send(partial(produce, topic, value, key, lane, acknowledged, None, now))

    def _on_delivery(
        self,
        topic: str,
        outbox: Outbox,
        expected: int,
        error: KafkaError | None,
        message: Message,
    ) -> None:
        if error is not None:
            self._producer.fail(f"{topic}/{self._lane}: {refusal(error)}")
        elif (offset := message.offset()) is None or outbox.acknowledge(expected, offset):
            # Of a record whose acknowledgement was lost Kafka may say that it has it, and not
            # where (DUPLICATE_SEQUENCE_NUMBER). The next offset tells of that one as well.
            self._producer.note_delivery()
        else:
            self._producer.fail(
                f"{topic}/{self._lane}: offset {offset} instead of {expected}: a "
                "record was lost, or another program writes to this partition"
            )

    @property
    def holds(self) -> bool:
        """Whether records are held back until the snapshots of some epochs are stored."""
        return self._hold_epochs > 0

    def snapshot(self) -> OutboxState:
        self._reconcile()
        if self._hold_epochs:
            self._hold_epochs -= 1
            if not self._hold_epochs:
                self.send(self._outbox.release())
        if self._stop.is_set():  # this is the last snapshot
            self._producer.flush()
        else:
            self._producer.poll()
        self._note_progress()
        stored = self._outbox.stored()
        SNAPSHOT_BYTES.inc(stored.bytes)
        return outbox_state(stored)

    def _note_progress(self) -> None:
        """Let the process know which of the partitions take nothing."""
        note = self._producer.stalled.note
        note((self._topic, self._lane), self._outbox.end_offset, waiting=self._outbox.is_sending)
        for box in self._outbox.apart.values():
            note((box.topic, self._lane), box.end_offset, waiting=box.is_sending)


class KafkaSink(FixedPartitionedSink[OutputBatch | DeadLetter, OutboxState | DeadLetterState]):
    """Writes the records of a lane to its partition, and dead letters to their topic."""

    def __init__(
        self,
        settings: Settings,
        run: RunState,
        permit: WritePermit | None = None,
        make_consumer: MakeConsumer = make_consumer,
        make_producer: MakeProducer = make_producer,
    ) -> None:
        """Write to the topics that the settings name, as long as the permit is valid.

        Once the run is stopped, snapshots wait until everything is acknowledged.
        """
        self._settings = settings
        self._run = run
        self._letters = LetterProducer(settings, make_producer)
        self.producer = SharedProducer(settings, permit, make_producer)
        self._reader = OutputReader(settings, make_consumer)
        self._reconciliation = Reconciliation(settings, self._reader)
        self._apart = TopicsApart(settings, self._reader)
        self._dead_letter_parts = 1
        self._parts: list[_LanePart] = []
        self._asking = Lock()
        self._published_ms: int | None = None

    def check(self, *, begun: bool | None) -> None:
        """Take in what topics there are; say which have more partitions than there are lanes.

        begun says whether lanes of the store have written; None leaves that to who has the store.
        Raises ConfigError if a topic is missing or has too few partitions, or too many for a store
        that is new.
        """
        settings = self._settings
        counts = partition_counts(self.producer.open(), settings)
        for fault in lane_topic_faults(settings, counts, begun=begun):
            raise ConfigError(fault)
        self._dead_letter_parts = counts[settings.dead_letter_topic]
        for topic in settings.lane_topics:
            if begun and counts[topic] > settings.lanes:
                warn_of_more(settings, topic, counts[topic])

    def list_parts(self) -> list[str]:
        """Return a part for every possible lane and one for dead letters, so names never go.

        Bytewax gives a part to one of the processes that name it: that of a lane is named where the
        lane is, and what no lane uses by all.
        """
        settings, has_lane = self._settings, self._run.has_lane
        lanes = [lane for lane in range(KEY_GROUPS) if lane >= settings.lanes or has_lane(lane)]
        return [*map(lane_key, lanes), DEAD_LETTER_KEY]

    def tick(self) -> None:
        """Handle the acknowledgements that have come, also while nothing is written.

        It never waits. Raises DeliveryError, FencedError or LeaseError if the run cannot go on.
        """
        self.producer.tick()
        self._letters.tick()

    def holds(self) -> bool:
        """Say whether a lane holds records back that a stop should wait for.

        It should unless snapshots are so far apart that this could take half of its time.
        """
        settings = self._settings
        wait_ms = HOLD_EPOCHS * settings.snapshot_ms
        return wait_ms <= settings.stop_timeout_ms // 2 and any(part.holds for part in self._parts)

    def waits_for_kafka(self) -> bool:
        """Say whether a worker stands still until Kafka answers."""
        return self.producer.blocking or self._reader.waiting

    def rejected_earlier(self, stored: dict[int, int] | None = None) -> RejectedByClock:
        """Return the input that earlier runs rejected by their clocks, since the stored offsets."""
        return self._letter_topic().rejected_by_clock(stored)

    def _letter_topic(self) -> LetterTopic:
        return LetterTopic(self._settings.dead_letter_topic, self._dead_letter_parts, self._reader)

    def silent_ends(self, lane: int) -> Mapping[SessionName, int] | None:
        """Return when sessions of a lane ended for silence, as found beyond what is stored.

        None as long as that has not been read.
        """
        return self._reconciliation.silent_ends.get(lane)

    def published_ms(self) -> int:
        """Return the timestamp of the newest output of earlier runs; 0 if there is none.

        Raises ReconcileError or ReadError if Kafka does not tell.
        """
        with self._asking:  # worker threads share the sink
            if self._published_ms is None:
                settings = self._settings
                topics = [settings.output_topic, *settings.topics_apart.values()]
                self._published_ms = max(
                    self._reader.newest_ms(topic, settings.own_lanes) for topic in topics
                )
            return self._published_ms

    def part_fn(self, item_key: str) -> int:
        """Return the index of a part."""
        return KEY_GROUPS if item_key == DEAD_LETTER_KEY else int(item_key.rpartition("-")[2])

    def build_part(  # type: ignore[override]  # each part gets only its own kind of item
        self, step_id: str, for_part: str, resume_state: OutboxState | DeadLetterState | None
    ) -> _LanePart | DeadLetterPart:
        """Build the part of a lane or of the dead letters."""
        settings = self._settings
        if for_part == DEAD_LETTER_KEY:
            return DeadLetterPart(
                topic=self._letter_topic(),
                letters=self._letters,
                producer=self.producer,
                run=self._run,
                state=resume_state,
            )
        lane = self.part_fn(for_part)
        if resume_state is None:
            begin, end = self._reader.bounds(settings.output_topic, lane)
            if begin == end or settings.new_store:
                outbox = Outbox(end, apart=self._apart.at_end(lane))
                self._reconciliation.silent_ends[lane] = {}
                return self._part(lane, outbox, HOLD_EPOCHS)
            # The store is a copy from before this lane was new: all of it is written already.
            outbox = Outbox(begin, apart=self._apart.at_begin(lane))
        else:
            outbox = Outbox.of_state(lane, resume_state)
        changed = self._apart.go_over(lane, outbox)
        part = self._part(lane, outbox, HOLD_EPOCHS if changed else 0)
        self._reconciliation.add(lane, outbox, part.send)
        return part

    def _part(self, lane: int, outbox: Outbox, hold_epochs: int) -> _LanePart:
        part = _LanePart(
            topic=self._settings.output_topic,
            lane=lane,
            outbox=outbox,
            producer=self.producer,
            reconcile=self._reconciliation.reconcile,
            stop=self._run.stop,
            clock=self._run.clock,
            published_ms=self.published_ms,
            hold_epochs=hold_epochs,
        )
        self._parts.append(part)
        return part
