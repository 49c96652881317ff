"""Topics of output that are compacted: one line for each, and none where Kafka does not tell."""

from threading import Event
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from tests.support.fake_input import FakeInput

DENIED = KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))


def warned(fake: FakeInput, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Let the watch of the topics begin and be stopped; return of what topics it has warned."""
    stop = Event()
    stop.set()
    source = fake.source()
    source.list_parts()
    source.topics.watch(stop)
    lines: list[Any] = [record.msg for record in caplog.records]
    return [line["topic"] for line in lines if "is compacted" in line["event"]]


def test_each_compacted_topic_of_output_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Also where old records are deleted as well; the table is to be compacted."""
    fake = FakeInput(heartbeat_topic="beats", summary_topic="summaries", table_topic="table")
    fake.log.configs = {
        "out": {"cleanup.policy": "compact"},
        "beats": {"cleanup.policy": "delete"},
        "summaries": {"cleanup.policy": "compact,delete"},
        "table": {"cleanup.policy": "compact"},
        "letters": {"cleanup.policy": "compact"},
        "in": {"cleanup.policy": "compact"},
    }
    assert warned(fake, caplog) == ["out", "summaries"]


@pytest.mark.parametrize("error", [DENIED, TimeoutError()])
def test_topic_that_kafka_does_not_describe_is_passed_over(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """The run needs no right to it, and the other topics are looked at."""
    fake = FakeInput(summary_topic="summaries")
    fake.log.configs = {"out": error, "summaries": {"cleanup.policy": "compact"}}
    assert warned(fake, caplog) == ["summaries"]


def test_topic_whose_policy_is_not_told_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    """What describes topics need not be a Kafka."""
    assert warned(FakeInput(), caplog) == []
