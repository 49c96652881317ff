"""Partitions whose messages wait for a schema leave room for the others."""

import pytest

from dataflows.kafka import parking
from dataflows.kafka.end_of_input import EndOfInput
from tests.support.clocks import T
from tests.support.fake_input import Reading

FEW = 3


class Held(Reading):
    """Two partitions; what comes to the first one waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(2)
        monkeypatch.setattr(parking, "MAX_HELD", FEW)
        self.ready = False
        self.part, self.other = self.parts
        self.part.gate = lambda _: self.ready
        self.taken: list[list[int]] = [[], []]

    def turn(self) -> None:
        """Fetch, poll and take what may be taken."""
        self.fetch(0, 1)
        self.poll()
        for part, taken in zip(self.parts, self.taken, strict=True):
            taken += [offset for offset, *_ in part.take(self.clock.now)]


def test_partition_that_holds_too_much_is_fetched_no_more_until_it_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other one goes on, nothing is lost or comes twice, and no end is believed meanwhile."""
    held = Held(monkeypatch)
    held.reach_ends()
    for _ in range(4 * FEW):
        held.append(0, T)
        held.append(1, T)
        held.turn()
    assert FEW < len(held.part.pending) <= FEW + 2
    assert ("in", 0) not in held.kafka.next
    assert held.taken == [[], list(range(4 * FEW))]
    assert (held.part.end, held.other.end) == (EndOfInput.REFETCH, EndOfInput.REACHED)
    assert not held.part.caught_up or held.part.progress(2, "x", held.clock.now + 2_000)
    held.ready = True
    for _ in range(3):
        held.turn()
    assert held.taken[0] == list(range(4 * FEW))
    assert held.ends() == {EndOfInput.REACHED}
    assert ("in", 0) in held.kafka.next


def test_partition_whose_end_was_never_known_is_fetched_again_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A backlog is not read twice."""
    held = Held(monkeypatch)
    held.append(0, *[T] * 10)
    for _ in range(3):
        held.kafka.fetch(("in", 0), 4)
        held.poll()
        held.part.take(held.clock.now)
    assert held.part.parked
    held.ready = True
    for _ in range(4):
        held.turn()
    assert held.taken[0] == list(range(10))
    assert held.part.end is EndOfInput.REACHED


def test_few_held_messages_are_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are fetched on, and none is lost."""
    held = Held(monkeypatch)
    held.append(0, T, T)
    for _ in range(3):
        held.turn()
    assert not held.part.parked
    assert held.part.held
    monkeypatch.setattr(parking, "MAX_HELD_BYTES", 1)
    held.turn()
    assert held.part.parked
