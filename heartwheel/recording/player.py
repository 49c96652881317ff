"""The player: sends recorded input to a broker's topics again, for a real run to read."""

import time
from collections.abc import Callable
from functools import partial
from typing import cast

from confluent_kafka import KafkaError, Message, TopicPartition

from dataflows.kafka.client import (
    consumer_options,
    make_admin,
    make_consumer,
    make_producer,
    producer_options,
)
from dataflows.kafka.metadata import METADATA_TIMEOUT_S, partition_counts
from dataflows.kafka.producer import DeliveryError
from dataflows.settings import Settings
from heartwheel.kafka.topics import topic_config
from heartwheel.recording.reader import Recording
from heartwheel.recording.replay import recorded_input
from session_logic.errors import ConfigError

FLUSH_S = 60
# How long acknowledgements may wait at most while there is nothing to send.
PAUSE_S = 0.1
REPORT_RECORDS = 1_000


class Player:
    """Sends every record with its key, timestamp, headers and partition."""

    def __init__(self, recording: Recording, settings: Settings) -> None:
        """Play to the broker and the input topics of these settings."""
        self._recording = recording
        self._settings = settings
        options = producer_options(
            settings,
            {"enable.idempotence": "true"},
            {"linger.ms": "20", "compression.type": "lz4"},
        )
        self._producer = make_producer(options)
        self._failure: KafkaError | None = None

    def check(self, *, append: bool) -> None:
        """Raise ConfigError unless the topics suit; without append they must be empty, too."""
        address = self._settings.bootstrap_servers
        counts = partition_counts(self._producer, self._settings)
        names = self._recording.partitions(self._settings.all_input_topics)
        for topic in self._settings.all_input_topics:
            recorded = sum(name.rpartition("/")[0] == topic for name in names)
            if counts.get(topic) != recorded:
                msg = (
                    f"topic {topic} has {counts.get(topic, 0)} partitions on {address}, but "
                    f"{recorded} in the recording; create it with as many"
                )
                raise ConfigError(msg)
            self._check_config(topic)
        options = consumer_options(self._settings, {"group.id": "heartwheel"}, tuned=False)
        consumer = make_consumer(options)
        for name in () if append else names:
            topic, _, partition = name.rpartition("/")
            where = TopicPartition(topic, int(partition))
            low, high = consumer.get_watermark_offsets(where, METADATA_TIMEOUT_S) or (0, 0)
            if high > low:
                msg = (
                    f"{name} on {address} is not empty ({high - low} records); play to new topics, "
                    "or add to what is there with --append"
                )
                raise ConfigError(msg)
        consumer.close()

    def _check_config(self, topic: str) -> None:
        """Raise ConfigError if a topic would change the timestamps, or delete old records."""
        config = topic_config(make_admin(self._settings), self._settings, topic)
        if config["message.timestamp.type"].value != "CreateTime":
            msg = (
                f"topic {topic} does not keep timestamps; set its message.timestamp.type=CreateTime"
            )
            raise ConfigError(msg)
        chunks = self._recording.manifest.chunks
        oldest_ms = min(
            (c.least_ms for c in chunks if c.partition.rpartition("/")[0] == topic), default=None
        )
        kept_ms = int(cast("str", config["retention.ms"].value))
        if oldest_ms is not None and 0 <= kept_ms < time.time() * 1000 - oldest_ms:
            msg = (
                f"topic {topic} keeps records for {kept_ms} ms (retention.ms), but the recorded "
                "ones are older and would be deleted; set its retention.ms=-1"
            )
            raise ConfigError(msg)

    def play(self, speed: float, shown: Callable[[int], None]) -> int:
        """Send all input, spaced by its timestamps, speed times as fast; return how many records.

        A speed of 0 does not wait. Raises DeliveryError if Kafka does not accept a record.
        """
        sent, begin_s, first_ms = 0, time.monotonic(), None
        for time_ms, line in recorded_input(self._recording):
            first_ms = time_ms if first_ms is None else first_ms
            due_s = begin_s + ((time_ms - first_ms) / 1000 / speed if speed else 0)
            while (wait_s := due_s - time.monotonic()) > 0 and speed:
                self._producer.poll(min(wait_s, PAUSE_S))
            self._send(
                partial(
                    self._producer.produce,
                    line.topic,
                    line.value_bytes(),
                    line.key_bytes(),
                    line.partition,
                    timestamp=line.timestamp_ms,
                    headers=cast("list[tuple[str, str | bytes | None]]", line.header_bytes()),
                    on_delivery=self._on_delivery,
                )
            )
            sent += 1
            if sent % REPORT_RECORDS == 0:
                shown(sent)
        left = self._producer.flush(FLUSH_S)
        self._check_delivery(left)
        return sent

    def _send(self, produce: Callable[[], None]) -> None:
        while True:
            try:
                produce()
            except BufferError:
                self._producer.poll(PAUSE_S)
                self._check_delivery(0)
            else:
                self._producer.poll(0)
                return

    def _on_delivery(self, error: KafkaError | None, _message: Message) -> None:
        self._failure = self._failure or error

    def _check_delivery(self, left: int) -> None:
        if left or self._failure is not None:
            reason = f"{left} records not acknowledged" if self._failure is None else self._failure
            msg = (
                f"playing {self._recording.path} to {self._settings.bootstrap_servers} failed: "
                f"{reason}; re-create the topics and play again"
            )
            raise DeliveryError(msg)
