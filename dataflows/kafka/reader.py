"""Reading partitions of a topic to their ends, once."""

import time
from collections.abc import Iterator, Mapping
from typing import Protocol, cast

from confluent_kafka import KafkaError, Message, TopicPartition

from dataflows.kafka.client import TRANSIENT
from dataflows.kafka.source_errors import damage_hint
from session_logic.errors import HeartwheelError

READ_MESSAGES = 10_000
POLL_S = 0.02
TIMEOUT_S = 30.0
# What the consumer needs for that. The end is told when a fetch comes back empty, so a fetch
# does not wait for more.
END_OPTIONS = {"enable.partition.eof": "true", "fetch.wait.max.ms": "10"}


class ReadError(HeartwheelError):
    """A topic cannot be read to its end: Kafka does not answer, or refuses.

    The hint says how a store goes on where a partition is damaged.
    """

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


class _Consumer(Protocol):
    def assign(self, partitions: list[TopicPartition]) -> None: ...

    def unassign(self) -> None: ...

    def consume(self, num_messages: int, timeout: float) -> list[Message]: ...


class ReadToEnd:
    """Iterates over the records of some partitions, from their starts to their ends."""

    def __init__(
        self,
        consumer: _Consumer,
        topic: str,
        bounds: Mapping[int, tuple[int, int]],
        stops: Mapping[int, int] | None = None,
    ) -> None:
        """Read the partitions in bounds: each from its first offset to its end at that time.

        What comes behind that end is read as far as it is there. An end before it is that of a
        broker which has just taken over, and does not know yet how far the others have come.
        The consumer has END_OPTIONS.

        A partition that has come to its offset in stops is at its end: one that is written to
        without a pause has no other.
        """
        self._consumer = consumer
        self._stops = stops or {}
        self._topic = topic
        self._bounds = bounds
        self.ends: dict[int, int] = {}  # the end offset of each partition that has been reached

    def __iter__(self) -> Iterator[Message]:
        """Yield each record; raises ReadError if a partition cannot be read."""
        parts = [TopicPartition(self._topic, n, start) for n, (start, _) in self._bounds.items()]
        self._consumer.assign(parts)
        answered_s = time.monotonic()
        while len(self.ends) < len(self._bounds):
            for message in self._consumer.consume(READ_MESSAGES, POLL_S):
                error = message.error()
                if error is None:
                    answered_s = time.monotonic()
                    self._note_stop(message)
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    answered_s = time.monotonic()
                    self._note_end(cast("int", message.partition()), cast("int", message.offset()))
                elif error.code() not in TRANSIENT:
                    hint = damage_hint(self._topic, message.partition(), error)
                    raise read_error(self._topic, error, hint)
            if time.monotonic() - answered_s > TIMEOUT_S:
                msg = f"topic {self._topic} cannot be read: no answer for {TIMEOUT_S:g} s"
                raise ReadError(msg)
        self._consumer.unassign()

    def _note_end(self, partition: int, offset: int) -> None:
        if offset >= self._bounds[partition][1]:
            self.ends[partition] = offset

    def _note_stop(self, message: Message) -> None:
        partition, end = cast("int", message.partition()), cast("int", message.offset()) + 1
        if end >= self._stops.get(partition, end + 1):
            self.ends.setdefault(partition, end)


def read_error(topic: str, error: KafkaError, hint: str = "") -> ReadError:
    """Return the error to raise for one of Kafka's."""
    rights = "; docs/security.md lists the rights" if "AUTHORIZATION" in error.name() else ""
    return ReadError(f"topic {topic} cannot be read: {error.str()}{rights}", hint)
