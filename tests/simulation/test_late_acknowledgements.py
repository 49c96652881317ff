"""Histories in which a snapshot knows of few acknowledgements: they are late, or tell no offset."""

import random

import pytest

from dataflows.kafka.producer import SharedProducer
from tests.simulation.flow import simulate
from tests.support.fake_kafka import Producer

LATE, SILENT = 0.5, 0.3


@pytest.mark.parametrize(
    ("first", "count"), [(135, 15), pytest.param(0, 50, marks=pytest.mark.slow)]
)
def test_histories_with_late_acknowledgements_match_the_model(
    monkeypatch: pytest.MonkeyPatch, first: int, count: int
) -> None:
    """In one of them, a crash leaves a summary that says more of its session than the next run."""
    poll = SharedProducer.poll
    choice = random.Random()

    def late(self: SharedProducer, wait_s: float = 0) -> None:
        if not wait_s and choice.random() < LATE:
            self.check()
        else:
            poll(self, wait_s)

    monkeypatch.setattr(SharedProducer, "poll", late)
    for seed in range(first, first + count):
        choice.seed(seed)
        simulate(seed)


def test_histories_with_acknowledgements_without_an_offset_match_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kafka has the record, and what comes behind it may not come for long."""
    choice = random.Random(1)
    monkeypatch.setattr(Producer, "tells_offset", staticmethod(lambda: choice.random() > SILENT))
    for seed in range(15):
        simulate(seed)
