"""Kafka as a Bytewax sink: one partition per lane, one producer per process."""

import time
from functools import partial

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from confluent_kafka import KafkaError, Message, Producer

from dataflows.items import DEAD_LETTER_KEY, DeadLetter, lane_key
from dataflows.kafka import make_client, partition_counts
from dataflows.settings import Settings
from session_logic.errors import ConfigError, HeartwheelError, SnapshotError
from session_logic.events import Records
from session_logic.keys import GROUPS

SINK_VERSION = 1
SinkState = tuple[int, int]  # version, offset after the last acknowledged record (-1: none yet)


class DeliveryError(HeartwheelError):
    """A record was not accepted by Kafka: the run stops and resumes from the last snapshot."""


class _Channel:
    """The producer of this process, shared by its partitions."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: Producer | None = None
        self.failure: str | None = None

    def open(self) -> Producer:
        """Return the producer, made on first use."""
        if self._producer is None:
            options = {
                "linger.ms": "1",
                "compression.type": "lz4",
                "queue.buffering.max.messages": "500000",
                "queue.buffering.max.kbytes": "262144",
                **self._settings.kafka,
                **self._settings.producer,
                "bootstrap.servers": self._settings.bootstrap_servers,
                # Each record once and in order, whatever the connection does.
                "enable.idempotence": "true",
                "acks": "all",
                # A record is given up with the whole run, never alone.
                "message.timeout.ms": str(self._settings.delivery_timeout_ms),
                "error_cb": self._on_error,
            }
            self._producer = make_client(Producer, options)
        return self._producer

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self.failure = f"{error.str()} ({error.name()})"

    def send(self, produce: partial[None]) -> None:
        """Enqueue a record; on a full queue wait for room, up to the delivery timeout."""
        deadline = time.monotonic() + self._settings.delivery_timeout_ms / 1000
        while True:
            try:
                return produce()
            except BufferError:
                self.open().poll(0.01)
                self.check()
                if time.monotonic() > deadline:
                    self.failure = (
                        f"the queue stayed full for {self._settings.delivery_timeout_ms} ms"
                    )

    def flush(self) -> None:
        """Wait until everything enqueued is acknowledged; raises DeliveryError if it is not."""
        left = self.open().flush(self._settings.delivery_timeout_ms / 1000)
        if left and self.failure is None:
            self.failure = f"{left} records not acknowledged in time"
        self.check()

    def check(self) -> None:
        """Raise DeliveryError if a record has been lost."""
        if self.failure is not None:
            msg = (
                f"output to {self._settings.bootstrap_servers} failed: {self.failure}; the run "
                "stops and resumes from its last snapshot when it is started again"
            )
            raise DeliveryError(msg)


class _LanePart(StatefulSinkPartition[Records, SinkState]):
    """The output partition of one lane.

    Only the last record of a batch has a delivery callback. That is enough: this run alone
    writes to the partition, so the offset of a record tells whether all before it arrived.
    """

    def __init__(self, channel: _Channel, topic: str, lane: int, end_offset: int) -> None:
        self._channel = channel
        self._topic = topic
        self._lane = lane
        self._end_offset = end_offset
        self._sent = 0
        self._first_offset: int | None = None

    def write_batch(self, items: list[Records]) -> None:
        channel, topic, lane = self._channel, self._topic, self._lane
        produce = channel.open().produce
        for records in items:
            last = len(records) - 1
            for key, value in zip(records.keys[:last], records.values[:last], strict=True):
                try:
                    produce(topic, value, key, lane)
                except BufferError:
                    channel.send(partial(produce, topic, value, key, lane))
            self._sent += last + 1
            acknowledged = partial(self._on_delivery, self._sent)
            channel.send(
                partial(
                    produce, topic, records.values[last], records.keys[last], lane, acknowledged
                )
            )
        channel.open().poll(0)
        channel.check()

    def _on_delivery(self, sent: int, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._channel.failure = f"{self._topic}/{self._lane}: {error.str()} ({error.name()})"
            return
        offset = message.offset()
        assert offset is not None  # a delivered record has one
        self._end_offset = offset + 1
        first_offset = self._end_offset - sent
        if self._first_offset is None:
            self._first_offset = first_offset
        elif first_offset != self._first_offset:
            self._channel.failure = (
                f"{self._topic}/{self._lane}: offset {offset} instead of "
                f"{self._first_offset + sent - 1}: a record was lost, or another program writes "
                "to this partition"
            )

    def snapshot(self) -> SinkState:
        self._channel.flush()
        return (SINK_VERSION, self._end_offset)


class _DeadLetterPart(StatefulSinkPartition[DeadLetter, SinkState]):
    """The dead-letter topic: bytes untouched, and in headers where they came from and why."""

    def __init__(self, channel: _Channel, topic: str) -> None:
        self._channel = channel
        self._topic = topic

    def write_batch(self, items: list[DeadLetter]) -> None:
        produce = self._channel.open().produce
        for letter in items:
            offset, time_ms, key, value = letter.message
            headers: dict[str, str | bytes | None] = {
                "heartwheel.topic": letter.topic,
                "heartwheel.partition": str(letter.partition),
                "heartwheel.offset": str(offset),
                "heartwheel.timestamp": str(time_ms),
                "heartwheel.reason": letter.reason,
                "heartwheel.detail": letter.detail,
            }
            self._channel.send(
                partial(
                    produce, self._topic, value, key, headers=headers, on_delivery=self._on_delivery
                )
            )
        self._channel.check()

    def _on_delivery(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._channel.failure = f"{self._topic}: {error.str()} ({error.name()})"

    def snapshot(self) -> SinkState:
        self._channel.flush()
        return (SINK_VERSION, -1)


class KafkaSink(FixedPartitionedSink[Records | DeadLetter, SinkState]):
    """Writes the records of a lane to its partition, and dead letters to their topic."""

    def __init__(self, settings: Settings) -> None:
        """Write to the topics that the settings name."""
        self._settings = settings
        self._channel = _Channel(settings)

    def list_parts(self) -> list[str]:
        """Return a part for every possible lane and one for dead letters, so names never go.

        Raises ConfigError if a topic is missing or has not as many partitions as lanes.
        """
        settings = self._settings
        counts = partition_counts(self._channel.open(), settings)
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
        return [*map(lane_key, range(GROUPS)), DEAD_LETTER_KEY]

    def part_fn(self, item_key: str) -> int:
        """Return the index of a part."""
        return GROUPS if item_key == DEAD_LETTER_KEY else int(item_key.rpartition("-")[2])

    def build_part(  # type: ignore[override]  # each part gets only its own kind of item
        self, step_id: str, for_part: str, resume_state: SinkState | None
    ) -> _LanePart | _DeadLetterPart:
        """Build the part of a lane or of the dead letters."""
        check_sink_state(for_part, resume_state)
        if for_part == DEAD_LETTER_KEY:
            return _DeadLetterPart(self._channel, self._settings.dead_letter_topic)
        lane = self.part_fn(for_part)
        end_offset = -1 if resume_state is None else resume_state[1]
        return _LanePart(self._channel, self._settings.output_topic, lane, end_offset)


def check_sink_state(part: str, stored: SinkState | None) -> None:
    """Raise SnapshotError if a part's stored state was written by a newer program."""
    if stored is not None and stored[0] > SINK_VERSION:
        msg = (
            f"recovery store, sink {part}: version {stored[0]} is newer than this program knows "
            f"({SINK_VERSION}); run the version of Heartwheel that wrote it, or a later one"
        )
        raise SnapshotError(msg)
