"""Asking Kafka again while its brokers change places.

A broker that died keeps its partitions and groups until the others have noticed, which takes
Kafka's `broker.session.timeout.ms` (9 s). Whoever asks meanwhile gets an error, or no answer.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from dataflows.kafka.client import BEHIND, FENCED, PASSING
from dataflows.logs import announced

PATIENCE_S = 60.0
# How long one question may take, so that a broker that hangs is not waited for.
ASK_S = 5.0
AGAIN_S = 0.1
Answer = TypeVar("Answer")


def ask_again(ask: Callable[[], Answer], patience_s: float, fenced: int = 0) -> Answer:
    """Return what Kafka answers, which is asked again while its brokers change places.

    It may fence the caller off so many times. Raises KafkaException if it refuses, or does not
    answer for patience_s.
    """
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            return ask()
        except KafkaException as error:
            is_fenced = error.args[0].code() in FENCED
            fenced -= is_fenced
            passes = fenced >= 0 if is_fenced else _passes(error.args[0])
            if not passes or time.monotonic() >= deadline_s:
                raise
            time.sleep(AGAIN_S)


def _passes(error: KafkaError) -> bool:
    return error.retriable() or error.code() in PASSING | BEHIND


def patiently(ask: Callable[[], Answer], what: str, patience_s: float = PATIENCE_S) -> Answer:
    """Return what Kafka answers, and say what is waited for; ask waits for less at a time.

    Raises KafkaException as `ask_again` does.
    """
    with announced(f"waiting for Kafka to tell {what}"):
        return ask_again(ask, patience_s)


def bounds(
    consumer: Consumer, topic: str, partition: int, patience_s: float = PATIENCE_S
) -> tuple[int, int]:
    """Return the first offset of a partition and the one after its last record.

    Raises KafkaException as `patiently` does.
    """
    place = TopicPartition(topic, partition)
    return patiently(
        lambda: consumer.get_watermark_offsets(place, min(patience_s, ASK_S)),
        f"the end of {topic}/{partition}",
        patience_s,
    )


def offset_at(consumer: Consumer, topic: str, partition: int, time_ms: int) -> int | None:
    """Return the offset of the first record of a partition that is not timestamped before a moment.

    None if there is no such record. Raises KafkaException as `patiently` does.
    """

    def ask() -> int:
        (found,) = consumer.offsets_for_times([TopicPartition(topic, partition, time_ms)], ASK_S)
        if found.error is not None:
            raise KafkaException(found.error)
        return found.offset

    offset = patiently(ask, f"where {topic}/{partition} begins")
    return offset if offset >= 0 else None


def committed(
    consumer: Consumer, places: list[TopicPartition], patience_s: float
) -> list[TopicPartition]:
    """Return what is committed for partitions, once there is a coordinator.

    Raises KafkaException as `ask_again` does.
    """

    def ask() -> list[TopicPartition]:
        found = consumer.committed(places, ASK_S)
        for error in (one.error for one in found if one.error is not None):
            raise KafkaException(error)
        return found

    return ask_again(ask, patience_s)


def commit(consumer: Consumer, offsets: list[TopicPartition], patience_s: float) -> None:
    """Commit offsets, once there is a coordinator; raises KafkaException as `ask_again` does."""
    ask_again(lambda: consumer.commit(offsets=offsets, asynchronous=False), patience_s)
