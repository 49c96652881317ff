"""Histories in which the sink sees acknowledgements late, so that a snapshot knows of few."""

import random

import pytest

from dataflows.kafka.producer import SharedProducer
from tests.simulation.flow import simulate

LATE = 0.5


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
