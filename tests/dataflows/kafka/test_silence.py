"""What the statistics of librdkafka say of brokers that have gone silent."""

import json

import pytest

from dataflows.kafka.silence import silence_ms

READ = {"console-events-0": {"topic": "console-events", "partition": 0}}


def statistics(*brokers: tuple[int, dict[str, object]]) -> str:
    """Return what librdkafka reports, of which most is left out."""
    named = {
        f"broker-{n}": {"rxidle": rxidle, "toppars": toppars, "rtt": {"p99": 1}}
        for n, (rxidle, toppars) in enumerate(brokers)
    }
    return json.dumps({"name": "rdkafka#consumer-1", "age": 1, "brokers": named})


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [
        (statistics(), 0),
        (statistics((1_500_999, READ)), 1_500),
        (statistics((2_000, READ), (3_000_000, READ)), 3_000),
        (statistics((2_000, READ), (3_000_000, {})), 2),  # nothing is read from the other
        (statistics((-1, READ)), 0),  # a new connection
    ],
)
def test_longest_silence_counts_of_brokers_that_are_read_from(text: str, expected_ms: int) -> None:
    """In ms, from the microseconds of librdkafka."""
    assert silence_ms(text) == expected_ms
