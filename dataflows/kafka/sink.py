"""Kafka as a Bytewax sink: one partition per lane, one producer per process."""

from functools import partial
from threading import Lock

import msgspec
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from confluent_kafka import KafkaError, KafkaException, Message

from dataflows.kafka.client import (
    MakeConsumer,
    MakeProducer,
    make_consumer,
    make_producer,
    partition_counts,
)
from dataflows.kafka.dead_letters import DeadLetterPart, DeadLetterState
from dataflows.kafka.lease import Lease
from dataflows.kafka.outbox import AlreadyWritten, Outbox, OutboxState
from dataflows.kafka.producer import SharedProducer
from dataflows.kafka.reconcile import OutputReader, ReconcileError
from dataflows.messages import DEAD_LETTER_KEY, HOLD_EPOCHS, DeadLetter, lane_key
from dataflows.metrics import SNAPSHOT_BYTES
from dataflows.run_state import RunState
from dataflows.settings import Settings
from session_logic.codec import decode_output
from session_logic.errors import ConfigError
from session_logic.keys import KEY_GROUPS, key_group_of, lane_of
from session_logic.output import OutputBatch


class _LanePart(StatefulSinkPartition[OutputBatch, OutboxState]):
    """The output partition of one lane.

    Only the last record of a batch has a delivery callback. That is enough: this run alone
    writes to the partition, so the offset of a record tells whether all before it arrived.
    """

    def __init__(self, sink: "KafkaSink", lane: int, outbox: Outbox, closed_epochs: int) -> None:
        self._sink = sink
        self._channel = sink.channel
        self._topic = sink.settings.output_topic
        self._lane = lane
        self._closed_epochs = closed_epochs
        self.outbox = outbox

    def write_batch(self, items: list[OutputBatch]) -> None:
        self._channel.poll()
        self._sink.reconcile()
        for records in items:
            if self._closed_epochs:
                self.outbox.hold(records)
            else:
                self.send(self.outbox.admit(records))
        self._channel.poll()

    def send(self, records: OutputBatch) -> None:
        """Enqueue records."""
        last = len(records) - 1
        if last < 0:
            return
        channel, topic, lane = self._channel, self._topic, self._lane
        produce = channel.open().produce
        for key, value in zip(records.keys[:last], records.values[:last], strict=True):
            try:
                produce(topic, value, key, lane)
            except (BufferError, KafkaException):
                channel.send(partial(produce, topic, value, key, lane))
        acknowledged = partial(self._on_delivery, self.outbox.send(records))
        key, value = records.keys[last], records.values[last]
        channel.send(partial(produce, topic, value, key, lane, acknowledged))

    def _on_delivery(self, expected: int, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._channel.failure = f"{self._topic}/{self._lane}: {error.str()} ({error.name()})"
        elif not self.outbox.acknowledge(expected, message.offset() or 0):
            self._channel.failure = (
                f"{self._topic}/{self._lane}: offset {message.offset()} instead of {expected}: a "
                "record was lost, or another program writes to this partition"
            )

    def snapshot(self) -> OutboxState:
        self._sink.reconcile()
        if self._closed_epochs:
            self._closed_epochs -= 1
            if not self._closed_epochs:
                self.send(self.outbox.release())
        if self._sink.stop.is_set():  # this is the last snapshot
            self._channel.flush()
        else:
            self._channel.poll()
        state = self.outbox.state()
        SNAPSHOT_BYTES.inc(sum(map(len, state[3])))
        return state


class KafkaSink(FixedPartitionedSink[OutputBatch | DeadLetter, OutboxState | DeadLetterState]):
    """Writes the records of a lane to its partition, and dead letters to their topic."""

    def __init__(
        self,
        settings: Settings,
        run: RunState,
        lease: Lease | None = None,
        make_consumer: MakeConsumer = make_consumer,
        make_producer: MakeProducer = make_producer,
    ) -> None:
        """Write to the topics that the settings name, as long as the lease is held.

        Once the run is stopped, snapshots wait until everything is acknowledged.
        """
        self.settings = settings
        self.stop = run.stop
        self.channel = SharedProducer(settings, lease, make_producer)
        self._tails = OutputReader(settings, make_consumer)
        self._resumed: dict[int, _LanePart] = {}
        self._reconciling = Lock()
        self._dead_letter_parts = 1

    def list_parts(self) -> list[str]:
        """Return a part for every possible lane and one for dead letters, so names never go.

        Raises ConfigError if a topic is missing or has not as many partitions as lanes.
        """
        settings = self.settings
        counts = partition_counts(self.channel.open(), settings)
        for topic, variable in (
            (settings.output_topic, "HEARTWHEEL_OUTPUT_TOPIC"),
            (settings.dead_letter_topic, "HEARTWHEEL_DEAD_LETTER_TOPIC"),
        ):
            if topic not in counts:
                msg = (
                    f"topic {topic} does not exist on {settings.bootstrap_servers}; create it or "
                    f"correct {variable}"
                )
                raise ConfigError(msg)
        if counts[settings.output_topic] != settings.lanes:
            msg = (
                f"topic {settings.output_topic} has {counts[settings.output_topic]} partitions, "
                f"but HEARTWHEEL_LANES is {settings.lanes}; they must be equal"
            )
            raise ConfigError(msg)
        self._dead_letter_parts = counts[settings.dead_letter_topic]
        return [*map(lane_key, range(KEY_GROUPS)), DEAD_LETTER_KEY]

    def waits_for_kafka(self) -> bool:
        """Say whether a worker stands still until Kafka answers."""
        return self.channel.blocking or self._tails.waiting

    def part_fn(self, item_key: str) -> int:
        """Return the index of a part."""
        return KEY_GROUPS if item_key == DEAD_LETTER_KEY else int(item_key.rpartition("-")[2])

    def build_part(  # type: ignore[override]  # each part gets only its own kind of item
        self, step_id: str, for_part: str, resume_state: OutboxState | DeadLetterState | None
    ) -> _LanePart | DeadLetterPart:
        """Build the part of a lane or of the dead letters."""
        topic = self.settings.output_topic
        if for_part == DEAD_LETTER_KEY:
            return DeadLetterPart(
                self.settings.dead_letter_topic,
                self._dead_letter_parts,
                self.channel,
                self._tails,
                resume_state,
            )
        lane = self.part_fn(for_part)
        if resume_state is None:
            outbox = Outbox(self._tails.bounds(topic, lane)[1])
            return _LanePart(self, lane, outbox, HOLD_EPOCHS)
        part = _LanePart(self, lane, Outbox.of_state(lane, resume_state), 0)
        self._resumed[lane] = part
        return part

    def reconcile(self) -> None:
        """Let the resumed parts learn, all at once, what is in their partitions already."""
        if self._resumed:
            with self._reconciling:  # other worker threads wait until their parts have learned, too
                resumed = dict(self._resumed)
                self._reconcile(resumed)
                for lane in resumed:
                    del self._resumed[lane]

    def _reconcile(self, resumed: dict[int, _LanePart]) -> None:
        topic = self.settings.output_topic
        written = {lane: AlreadyWritten() for lane in resumed}

        def take(message: Message) -> None:
            lane = message.partition()
            assert lane is not None
            try:
                event = decode_output(message.value() or b"")
                foreign = lane_of(key_group_of(event.device_id), self.settings.lanes) != lane
            except msgspec.DecodeError:
                foreign = True
            if foreign:
                msg = (
                    f"{topic}/{lane}: the record at offset {message.offset()} is not Heartwheel's: "
                    "nothing else may write to the output topic; stop what does, and start with "
                    "a new topic and recovery directory"
                )
                raise ReconcileError(msg)
            written[lane].add(event)

        starts = {
            lane: part.outbox.end_offset
            if part.outbox.end_offset >= 0
            else self._tails.bounds(topic, lane)[1]
            for lane, part in resumed.items()
        }
        ends = self._tails.read(topic, starts, take)
        for lane, part in resumed.items():
            part.send(part.outbox.reconcile(ends[lane], written[lane]))
