"""Questions to a Kafka whose brokers change places."""

import logging
from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, KafkaException

from dataflows import logs
from dataflows.kafka.patience import patiently

PASSING = [
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.NOT_COORDINATOR,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
]


def failing(*codes: int) -> tuple[Callable[[], str], list[int]]:
    """Return a question that fails with each code before it is answered, and what is left."""
    left = list(codes)

    def ask() -> str:
        if left:
            raise KafkaException(KafkaError(left.pop(0)))
        return "answer"

    return ask, left


def test_question_is_asked_again_until_it_is_answered() -> None:
    """Whatever a broker that goes or comes may say meanwhile."""
    ask, left = failing(*PASSING)
    assert patiently(ask, "something") == "answer"
    assert not left


def test_refusal_is_not_asked_again() -> None:
    """Time does not change it."""
    ask, left = failing(KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError._TIMED_OUT)
    with pytest.raises(KafkaException, match="TOPIC_AUTHORIZATION_FAILED"):
        patiently(ask, "something")
    assert left


def test_question_that_is_never_answered_ends_with_the_last_error() -> None:
    """The caller says what to do."""
    ask, left = failing(*[KafkaError._TRANSPORT] * 100)
    with pytest.raises(KafkaException, match="_TRANSPORT"):
        patiently(ask, "something", 0.3)
    assert left


def test_long_wait_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever looks on knows what it is waiting for."""
    monkeypatch.setattr(logs, "FIRST_WAIT_S", 0.1)
    caplog.set_level(logging.INFO)
    ask, _ = failing(*[KafkaError._TIMED_OUT] * 5)
    patiently(ask, "the end of it")
    assert "waiting for Kafka to tell the end of it" in caplog.text
