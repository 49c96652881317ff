"""What is said of topics while Kafka does not answer; the rest is tested with a real one."""

from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from dataflows.settings import Settings
from heartwheel.kafka import topics
from heartwheel.kafka.topics import TopicError, Topics
from tests.support.errors import one_line


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
