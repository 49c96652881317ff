"""The lag of partitions, and what a run logs while it reads a backlog."""

import json
import logging

import pytest
from prometheus_client import REGISTRY

from dataflows.kafka.backlog import LOG_MS, MEASURE_MS, Backlog
from dataflows.kafka.end_of_input import BrokerContact, EndOfInput
from dataflows.kafka.partition import InputPartition
from tests.support.clocks import T
from tests.support.fake_input import FakeInput


class Catching(FakeInput):
    """A backlog of ten records in the first of two partitions."""

    def __init__(self) -> None:
        super().__init__(2)
        self.append(0, *range(T, T + 10))
        self.kafka.high = {("in", 0): 10, ("in", 1): 0}
        self.parts = [InputPartition("in", number, 0) for number in (0, 1)]
        self.parts[1].caught_up = True
        self.contact = BrokerContact()
        self.contact.expect_answers(500)
        self.backlog = Backlog(self.parts, self.contact)

    def read(self, count: int, now_ms: int) -> None:
        """Let a poll bring so many records to the first partition, which then takes and reports."""
        part = self.parts[0]
        if count:
            first = part.fetched_offset
            part.add([(n, T + n, None, None, True) for n in range(first, first + count)])
        self.backlog.note_poll(self.kafka, count, now_ms)
        part.take(now_ms)
        part.note_answer(10, now_ms)
        part.check_goals()
        part.progress(2, "source", now_ms)


def lag(number: int) -> float | None:
    """Return the lag of a partition as Prometheus reads it."""
    labels = {"topic": "in", "partition": str(number)}
    return REGISTRY.get_sample_value("heartwheel_consumer_lag_records", labels)


def test_lag_is_what_has_not_been_taken() -> None:
    """In records up to the end that the consumer knows, measured every MEASURE_MS."""
    catching = Catching()
    catching.read(4, T + 20_000)
    assert (lag(0), lag(1)) == (10, 0)
    catching.read(3, T + 20_000 + MEASURE_MS - 1)
    assert lag(0) == 10
    catching.read(0, T + 20_000 + MEASURE_MS)
    assert lag(0) == 3


def test_backlog_is_logged_until_it_is_read(caplog: pytest.LogCaptureFixture) -> None:
    """Every LOG_MS how much is left and how fast it shrinks; at its end how long it took."""
    caplog.set_level(logging.INFO)
    catching = Catching()
    begin_ms = T + 20_000
    catching.read(1, begin_ms)
    catching.read(1, begin_ms)
    catching.read(3, begin_ms + LOG_MS - 1)
    assert caplog.messages == []
    catching.read(1, begin_ms + LOG_MS)
    catching.read(4, begin_ms + LOG_MS + 900)
    catching.read(0, begin_ms + LOG_MS + 1_000)
    events = [record.msg for record in caplog.records]
    assert [event["event"] for event in events] == ["catching up", "caught up"]
    assert events[0]["events_left"] == 5
    assert events[0]["events_a_second"] == 1
    assert events[0]["at"].startswith("2023-11-14 22:13:20")
    assert events[1]["events"] == 10
    assert events[1]["seconds"] == 6


def test_silence_of_kafka_is_logged_as_such(caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing comes and nothing is queued, nothing catches up: Kafka does not answer."""
    caplog.set_level(logging.INFO)
    catching = Catching()
    for passed_ms in (0, LOG_MS, 2 * LOG_MS):
        catching.read(0, T + 20_000 + passed_ms)
    catching.read(4, T + 20_001 + 3 * LOG_MS)
    said = [(record.levelname, record.msg["event"].split(";")[0]) for record in caplog.records]
    silence = "WARNING", "no answer from Kafka"
    assert said == [silence, silence, ("INFO", "catching up")]


def test_open_transaction_is_named_as_what_holds_the_input_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With where it is, and how much is behind it: no broker is silent."""
    caplog.set_level(logging.INFO)
    catching = Catching()
    catching.read(3, T + 20_000)
    catching.parts[0].skip_to(3)
    catching.read(0, T + 20_000 + LOG_MS)
    catching.read(0, T + 20_000 + 2 * LOG_MS)
    *_, warning = [record.msg for record in caplog.records]
    assert warning["event"].startswith("an open transaction holds up the input")
    assert (warning["topic"], warning["partition"]) == ("in", 0)
    assert (warning["offset"], warning["records"]) == (3, 7)


def test_silence_after_a_new_fetch_is_no_open_transaction(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What Kafka has said before tells nothing, and an answer that was too late is not seen."""
    catching = Catching()
    catching.read(3, T + 20_000)
    catching.parts[0].skip_to(3)
    catching.parts[0].end = EndOfInput.REFETCH
    catching.parts[0].refetch()
    catching.read(0, T + 20_000 + LOG_MS)
    catching.read(0, T + 20_000 + 2 * LOG_MS)
    *_, warning = [record.msg for record in caplog.records]
    assert warning["event"].startswith("no answer from Kafka")


def test_partition_that_gives_nothing_although_kafka_answers_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its log may be damaged; also where nothing of it has been read since the start."""
    catching = Catching()
    for state, passed_ms in (("UP", 0), ("UP", LOG_MS), ("DOWN", 2 * LOG_MS)):
        broker = {"rxidle": 400_000, "toppars": {"in-0": {}}, "state": state}
        catching.contact.note_statistics(json.dumps({"brokers": {"b": broker}}))
        catching.backlog.note_poll(catching.kafka, 0, T + passed_ms)
    damaged, silent = [record.msg for record in caplog.records]
    assert damaged["event"].startswith("Kafka answers, but gives nothing")
    assert (damaged["partition"], damaged["offset"], damaged["records"]) == (0, 0, 10)
    assert "at" not in damaged
    assert silent["event"].startswith("no answer from Kafka")


def test_short_backlog_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """What is read within LOG_MS is no news."""
    caplog.set_level(logging.INFO)
    catching = Catching()
    catching.read(5, T + 20_000)
    catching.read(5, T + 20_001)
    catching.read(0, T + 20_001 + LOG_MS)
    assert caplog.messages == []
