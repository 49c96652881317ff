"""The ends of output partitions, read on resume to find what a crashed run left there."""

import time
from collections.abc import Callable
from threading import Lock
from typing import cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from dataflows.kafka.client import MakeConsumer, make_consumer
from dataflows.logs import log
from dataflows.settings import Settings
from session_logic.errors import HeartwheelError

READ_MESSAGES = 10_000
TIMEOUT_S = 30.0


class ReconcileError(HeartwheelError):
    """An output partition is not as this store left it: see the message for what to do."""


class OutputReader:
    """Reads output partitions from what is stored to what is there."""

    def __init__(self, settings: Settings, make_consumer: MakeConsumer = make_consumer) -> None:
        """Connect on first use."""
        self._settings = settings
        self._make_consumer = make_consumer
        self._consumer: Consumer | None = None
        self._reading = Lock()
        self.waiting = False  # for Kafka

    def _open(self) -> Consumer:
        if self._consumer is None:
            options = {
                **self._settings.kafka,
                "bootstrap.servers": self._settings.bootstrap_servers,
                "group.id": "heartwheel",
                "enable.auto.commit": "false",
                "enable.partition.eof": "true",
                "isolation.level": "read_uncommitted",
                "auto.offset.reset": "error",
                "fetch.message.max.bytes": "8000000",
                # The end is told when a fetch comes back empty: the run waits for it.
                "fetch.wait.max.ms": "10",
            }
            self._consumer = self._make_consumer(options)
        return self._consumer

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """Return the first offset of a partition and the one after its last record.

        Raises ReconcileError if the broker does not answer.
        """
        self.waiting = True
        try:
            return self._open().get_watermark_offsets(TopicPartition(topic, partition), TIMEOUT_S)
        except KafkaException as error:
            msg = f"the end of {topic}/{partition} cannot be read: {error.args[0].str()}"
            raise ReconcileError(msg) from None
        finally:
            self.waiting = False

    def read(
        self, topic: str, starts: dict[int, int], take: Callable[[Message], None]
    ) -> dict[int, int]:
        """Give each record from the starts on to take; return the ends of the partitions.

        Raises ReconcileError if a partition no longer has its start, or cannot be read.
        """
        with self._reading:  # worker threads share the consumer
            return self._read(topic, starts, take)

    def _read(
        self, topic: str, starts: dict[int, int], take: Callable[[Message], None]
    ) -> dict[int, int]:
        began_s = time.monotonic()
        for partition, start in starts.items():
            self._check(topic, partition, start)
        consumer = self._open()
        consumer.assign([TopicPartition(topic, p, start) for p, start in starts.items()])
        ends: dict[int, int] = {}
        count, heard_s = 0, began_s
        self.waiting = True
        while len(ends) < len(starts):
            for message in consumer.consume(READ_MESSAGES, 0.02):
                heard_s = time.monotonic()
                error = message.error()
                if error is None:
                    take(message)
                    count += 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    ends[cast("int", message.partition())] = cast("int", message.offset())
            if time.monotonic() - heard_s > TIMEOUT_S:
                msg = f"the end of {topic} cannot be read: no answer for {TIMEOUT_S:g} s"
                raise ReconcileError(msg)
        self.waiting = False
        consumer.unassign()
        took_s = time.monotonic() - began_s
        log.info(
            "read records after the last snapshot",
            topic=topic,
            records=count,
            seconds=round(took_s, 2),
        )
        return ends

    def _check(self, topic: str, partition: int, start: int) -> None:
        low, high = self.bounds(topic, partition)
        if start > high:
            msg = (
                f"{topic}/{partition} ends at offset {high}, but this store has written up to "
                f"{start}: the topic was cut or made anew; put it back, or start with a new "
                "recovery directory"
            )
            raise ReconcileError(msg)
        if start < low:
            msg = (
                f"{topic}/{partition} begins at offset {low}, but what was written from {start} on "
                "must be known: it has expired; start with a new recovery directory, and give "
                "the topic a longer retention"
            )
            raise ReconcileError(msg)

    def close(self) -> None:
        """Disconnect; the next use connects again."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
