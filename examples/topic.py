"""Reads a topic from its beginning to its present end, for the examples beside it."""

import json
import os
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

BOOTSTRAP = os.environ.get("HEARTWHEEL_BOOTSTRAP_SERVERS", "127.0.0.1:9092")


class Record(NamedTuple):
    """A record: its key, its JSON value (None for a deleted row) and when Kafka got it."""

    key: str
    value: dict[str, Any] | None
    written_ms: int


def records(topic: str) -> Iterator[Record]:
    """Yield the records of all partitions; those of a device are in order."""
    options = {"bootstrap.servers": BOOTSTRAP, "group.id": "example", "enable.partition.eof": True}
    consumer = Consumer(options | {"log_level": 0})  # what it logs is an error below as well
    try:
        parts = partitions(consumer, topic)
        consumer.assign([TopicPartition(topic, part, OFFSET_BEGINNING) for part in parts])
        unread = set(parts)
        while unread:
            for message in consumer.consume(10_000, 1):
                error = message.error()
                if error is None:
                    value = json.loads(message.value()) if message.value() else None
                    yield Record(message.key().decode(), value, message.timestamp()[1])
                elif error.code() == KafkaError._PARTITION_EOF:
                    unread.discard(message.partition())  # told anew whenever more has come
                else:
                    raise KafkaException(error)
    finally:
        consumer.close()


def partitions(consumer: Consumer, topic: str) -> list[int]:
    """Return the partitions of a topic; ends the program if there is none, or no broker."""
    try:
        found = consumer.list_topics(topic, 10).topics[topic]
    except KafkaException as error:
        sys.exit(f"no Kafka at {BOOTSTRAP} ({error.args[0].str()}): HEARTWHEEL_BOOTSTRAP_SERVERS")
    if found.error is not None:
        sys.exit(f"{topic}: {found.error.str()}; is its setting on, and the run's broker this one?")
    return list(found.partitions)
