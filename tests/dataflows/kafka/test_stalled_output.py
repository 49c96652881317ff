"""Partitions that do not take what waits for them: told once, and named as long as it lasts."""

import logging

import pytest

from dataflows.kafka.stalled_output import TOLD_S, StalledOutput

ONE, OTHER = ("out", 0), ("out", 1)


class Stalls:
    """What lanes have told, at a time that a test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.output = StalledOutput(lambda: self.now_s)

    def note(self, *ends: int, after_s: float = 0.0) -> None:
        """Let both partitions have come to an end, with something waiting for them."""
        self.now_s += after_s
        for place, end in zip((ONE, OTHER), ends, strict=True):
            self.output.note(place, end, waiting=True)


@pytest.fixture
def stalls(caplog: pytest.LogCaptureFixture) -> Stalls:
    """Return two partitions that have something to take."""
    caplog.set_level(logging.INFO)
    made = Stalls()
    made.note(0, 0)
    return made


def test_partition_that_takes_nothing_is_named_with_its_time(stalls: Stalls) -> None:
    """The one that has stood still for longest comes first."""
    stalls.note(0, 5, after_s=4)
    stalls.note(0, 5, after_s=3)
    assert stalls.output.words(7) == ""
    assert stalls.output.words(5) == "out/0 for 7.0 s"
    assert stalls.output.words(2) == "out/0 and 1 more for 7.0 s"


def test_partition_for_which_nothing_waits_does_not_stand_still(stalls: Stalls) -> None:
    """It has no output then, and begins anew with the next."""
    stalls.now_s += 60
    stalls.output.note(ONE, 0, waiting=False)
    stalls.output.note(ONE, 0, waiting=True)
    assert stalls.output.words(0).startswith("out/1 for")


def test_stall_is_told_once_and_so_is_its_end(
    stalls: Stalls, caplog: pytest.LogCaptureFixture
) -> None:
    """However many lanes tell of it at each of their snapshots."""
    for _ in range(5):
        stalls.note(0, 0, after_s=TOLD_S)
    for _ in range(3):
        stalls.note(7, 7, after_s=1)
        stalls.note(8, 8)
    told = [record.msg["event"].partition(":")[0] for record in caplog.records]  # type: ignore[attr-defined]
    assert told == ["Kafka does not take the output", "Kafka takes the output again"]
    assert "out/0 and 1 more" in caplog.records[0].msg["partitions"]  # type: ignore[attr-defined]
