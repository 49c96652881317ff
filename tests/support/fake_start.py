"""What a start asks Kafka before the dataflow begins: bounds of partitions, whose a topic is."""

import json
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from tests.support.fake_lease import NOTHING


class StartKafka:
    """Bounds by topic and partition, and the committed offset that is the sign of an owner."""

    def __init__(self) -> None:
        self.bounds: dict[tuple[str, int], tuple[int, int]] = {}
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

    def close(self) -> None:
        """Nothing is left of it."""
