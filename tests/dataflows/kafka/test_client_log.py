"""What librdkafka logs of lost connections and retries, as an operator sees it."""

import logging
from collections.abc import Iterator

import pytest

from dataflows.kafka.client import CALM_S, Calm


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """Return a log as that of the clients; that one knows what clients of other tests have said."""
    own, calm = logging.getLogger("kafka of a test"), Calm()
    own.addFilter(calm)
    yield own
    own.removeFilter(calm)


def logged(
    caplog: pytest.LogCaptureFixture, log: logging.Logger, *lines: tuple[float, int, str, str]
) -> list[str]:
    """Return what is shown of lines that librdkafka logs: (time in s, level, facility, text)."""
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    for created, level, facility, text in lines:
        record = log.makeRecord(
            log.name, level, "", 0, "%s [%s] %s", (facility, "rdkafka#consumer-1", text), None
        )
        record.created = created
        log.handle(record)
    return [f"{record.levelname} {record.args[0]}" for record in caplog.records]  # type: ignore[index]


def test_lost_connection_is_shown_once_and_again_after_a_calm(
    caplog: pytest.LogCaptureFixture, log: logging.Logger
) -> None:
    """Each thread of each client logs each attempt; an operator needs to know once."""
    lost = "127.0.0.1:1/bootstrap: Connect failed: Connection refused"
    begin = 1e9
    attempts = [(begin + s, logging.ERROR, "FAIL", lost) for s in range(0, 300, 10)]
    down = begin + 1, logging.ERROR, "ERROR", "1/1 brokers are down"
    assert logged(caplog, log, *attempts, down)
    assert len(caplog.records) == 1
    assert caplog.records[0].levelname == "WARNING"
    later = begin + 300 + CALM_S
    assert logged(caplog, log, (later, logging.INFO, "FAIL", lost)) == ["WARNING FAIL"]


def test_retry_is_not_shown_and_anything_else_is(
    caplog: pytest.LogCaptureFixture, log: logging.Logger
) -> None:
    """What librdkafka does again by itself is no news; what it cannot do is."""
    lines = [
        (1.0, logging.WARNING, "GETPID", "Failed to acquire idempotence PID: retrying"),
        (1.0, logging.ERROR, "GETPID", "Failed to acquire idempotence PID: fatal"),
        (1.0, logging.WARNING, "CONFWARN", "option is deprecated"),
    ]
    assert logged(caplog, log, *lines) == ["ERROR GETPID", "WARNING CONFWARN"]
