"""What a start asks Kafka before the dataflow begins: bounds of partitions, whose a topic is."""

import json
from collections import deque
from types import SimpleNamespace
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from session_logic.keys import key_group_of, lane_of
from tests.support.clocks import T
from tests.support.fake_kafka import EOF, Message, Record
from tests.support.fake_lease import NOTHING
from tests.support.output_records import active, batch

LANES = 4
# A record of each lane.
RECORDS = [
    batch(active(device)).values[0]
    for lane in range(LANES)
    for device in [
        next(f"d{n}" for n in range(99) if lane_of(key_group_of(f"d{n}"), LANES) == lane)
    ]
]


class StartKafka:
    """Bounds by topic and partition, and the committed offset that is the sign of an owner."""

    def __init__(self) -> None:
        self.bounds: dict[tuple[str, int], tuple[int, int]] = {}
        self.strays: set[tuple[str, int, int]] = set()  # records that are not Heartwheel's
        self.sign = NOTHING
        self.errors: list[int] = []  # of the next requests for the committed offset

    def say(self, **said: Any) -> None:
        """Let a run have left a sign."""
        self.sign = TopicPartition("session-events", 0, 0, json.dumps(said))

    def said(self) -> dict[str, Any]:
        """Return what the sign says."""
        said: dict[str, Any] = json.loads(self.sign.metadata)
        return said

    def consumer(self, _options: dict[str, Any]) -> Any:
        """Make a consumer."""
        return _Consumer(self)


class _Consumer:
    def __init__(self, kafka: StartKafka) -> None:
        self._kafka = kafka

    def _fail(self) -> None:
        if self._kafka.errors:
            raise KafkaException(KafkaError(self._kafka.errors.pop(0)))

    def committed(self, _parts: list[TopicPartition], _timeout: float) -> list[TopicPartition]:
        self._fail()
        return [self._kafka.sign]

    def commit(self, offsets: list[TopicPartition], *, asynchronous: bool) -> None:
        assert not asynchronous
        self._fail()
        (self._kafka.sign,) = offsets

    def get_watermark_offsets(self, part: TopicPartition, _timeout: float) -> tuple[int, int]:
        return self._kafka.bounds.get((part.topic, part.partition), (0, 0))

    def list_topics(self, _topic: str | None, timeout: float) -> SimpleNamespace:
        assert timeout
        topics: dict[str, Any] = {}
        for topic, partition in self._kafka.bounds:
            found = topics.setdefault(topic, SimpleNamespace(error=None, partitions=set()))
            found.partitions |= set(range(partition + 1))
        return SimpleNamespace(topics=topics)

    def assign(self, parts: list[TopicPartition]) -> None:
        self._queue: deque[Message] = deque()
        for part in parts:
            where = part.topic, part.partition
            end = self._kafka.bounds[where][1]
            for offset in range(part.offset, end):
                stray = (*where, offset) in self._kafka.strays
                value = b"\xff" if stray else RECORDS[part.partition]
                self._queue.append(Message(where, offset, Record(T, None, value, None, T)))
            self._queue.append(Message(where, end, None, EOF))

    def unassign(self) -> None:
        self._queue.clear()

    def consume(self, count: int, _timeout: float) -> list[Message]:
        return [self._queue.popleft() for _ in range(min(count, len(self._queue)))]

    def close(self) -> None:
        """Nothing is left of it."""
