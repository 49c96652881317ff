"""Reads a topic from its beginning to its present end, for the examples beside it."""

import json
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

BOOTSTRAP = os.environ.get("BOOTSTRAP", "127.0.0.1:9092")


class Record(NamedTuple):
    """A record: its key, its JSON value (None for a deleted row) and when Kafka got it."""

    key: str
    value: dict[str, Any] | None
    written_ms: int


def records(topic: str) -> Iterator[Record]:
    """Yield the records of all partitions; those of a device are in order."""
    options = {"bootstrap.servers": BOOTSTRAP, "group.id": "example", "enable.partition.eof": True}
    consumer = Consumer(options)
    try:
        parts = consumer.list_topics(topic, 10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, part, OFFSET_BEGINNING) for part in parts])
        unread = len(parts)
        while unread:
            for message in consumer.consume(10_000, 1):
                if message.error() is not None:
                    unread -= 1  # the end of a partition
                    continue
                value = message.value()
                yield Record(
                    message.key().decode(),
                    json.loads(value) if value else None,
                    message.timestamp()[1],
                )
    finally:
        consumer.close()
