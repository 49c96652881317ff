"""The headers of a dead letter, as a command reads them from a topic to which others may write."""

import pytest

from dataflows.messages import RecordId
from heartwheel.kafka.headers import Origin

HEADERS = {
    "heartwheel.topic": "pc-events",
    "heartwheel.partition": "1",
    "heartwheel.offset": "17",
    "heartwheel.timestamp": "-1",
}


def test_origin_is_the_record_and_its_time() -> None:
    """A record may have no time."""
    assert Origin.of(HEADERS) == Origin(RecordId("pc-events", 1, 17), -1)


@pytest.mark.parametrize("name", [name for name in HEADERS if name != "heartwheel.topic"])
@pytest.mark.parametrize("text", ["", "--", "9" * 20, "9" * 5000])
def test_origin_is_unknown_without_a_number_of_kafka(name: str, text: str) -> None:
    """Such a letter is foreign: it is listed, and never sent again."""
    assert Origin.of(HEADERS | {name: text}) is None


@pytest.mark.parametrize("name", ["heartwheel.partition", "heartwheel.offset"])
def test_origin_before_the_first_of_all_is_unknown(name: str) -> None:
    """Kafka's clients would take a partition below 0 for any."""
    assert Origin.of(HEADERS | {name: "-1"}) is None
