"""What topics must take, and what is said of them while Kafka does not answer.

The rest is tested with a real one.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from msgspec.structs import replace

from dataflows.kafka.letter_queue import MAX_HEADER_BYTES
from dataflows.settings import Settings
from heartwheel.kafka import topics
from heartwheel.kafka.topics import (
    TopicError,
    TopicOptions,
    Topics,
    faults,
)
from tests.support.errors import one_line
from tests.support.topic_states import INTACT, SPEC


@pytest.fixture
def mock_broker() -> Iterator[str]:
    """Return the address of librdkafka's own mock broker; it has a topic `pc`."""
    producer = Producer({"bootstrap.servers": "unused", "test.mock.num.brokers": 1})
    producer.list_topics("pc", timeout=10)
    (broker,) = producer.list_topics(timeout=10).brokers.values()
    yield f"{broker.host}:{broker.port}"
    producer.flush()


def test_broker_that_does_not_describe_a_topic_is_one_line(
    mock_broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers other requests, as the mock broker does, or a broker that is overloaded."""
    monkeypatch.setattr(topics, "METADATA_TIMEOUT_S", 0.3)
    with pytest.raises(TopicError) as error:
        Topics(Settings(bootstrap_servers=mock_broker)).state("pc")
    one_line(error, "topic pc", mock_broker, "does not describe", "DescribeConfigs", "try again")


OPTIONS = TopicOptions(retention_ms=86_400_000, timestamps=None)
USUAL_BYTES = 1_048_588  # that a broker takes by default


def needs(broker: str, **options: Any) -> dict[str, tuple[int, int]]:
    """Return how large a record and a batch of each topic may be, by settings."""
    topics = Topics(Settings(bootstrap_servers=broker, **options))
    return {spec.name: (spec.record_bytes, spec.batch_bytes) for spec in topics.specs(OPTIONS)}


def test_topics_that_a_run_writes_need_what_it_may_send(mock_broker: str) -> None:
    """A dead letter with all of its headers, and batches as large as the options let them be."""
    usual = needs(mock_broker)
    letter = 65_536 + MAX_HEADER_BYTES + 4_096
    assert usual["session-events"] == (0, 1_000_000)
    assert usual["dead-letters"] == (letter, 1_000_000)
    assert usual["pc-events"] == (0, 0)
    lower = needs(mock_broker, producer={"batch.size": "50000"}, kafka={"message.max.bytes": 60000})
    assert lower["session-events"] == (0, 50_000)
    higher = needs(mock_broker, producer={"batch.size": 3_000_000, "message.max.bytes": 2_000_000})
    assert higher["session-events"] == (0, 2_000_000)
    most = needs(mock_broker, max_record_bytes=900_000)
    assert max(most["dead-letters"]) < USUAL_BYTES


@pytest.mark.parametrize(
    ("takes", "words"),
    [
        (USUAL_BYTES, []),
        (1_000_000, []),
        (999_999, ["may send 1000000 in one batch", "HEARTWHEEL_PRODUCER_BATCH_SIZE"]),
        (79_999, ["a dead letter may have 80000", "HEARTWHEEL_MAX_RECORD_BYTES"]),
    ],
)
def test_topic_that_takes_less_than_a_run_sends_is_one_fault(takes: int, words: list[str]) -> None:
    """Kafka would refuse it again after each start."""
    spec = replace(SPEC, record_bytes=80_000, batch_bytes=1_000_000)
    said = list(faults(spec, replace(INTACT, record_bytes=takes)))
    assert len(said) == bool(words)
    assert all(word in said[0] for word in [f"max.message.bytes={takes}", *words] if words)
