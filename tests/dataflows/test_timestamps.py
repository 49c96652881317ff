"""Whether timestamps fit this machine's clock: at the limits, one by one."""

import pytest

from dataflows.timestamps import LONG_PAST_MS, MIN_RECORDS, WINDOW_MS, Timestamps
from tests.support.clocks import T

LATEST = T + 60_000
FUTURE, PAST = LATEST + 1, T - LONG_PAST_MS - 1


def noted(*times_ms: int, at_end: bool = True) -> Timestamps:
    """Return what is known after these records came at T."""
    timestamps = Timestamps()
    timestamps.note(T, times_ms, LATEST, at_end=at_end)
    return timestamps


@pytest.mark.parametrize(
    ("time_ms", "at_end", "kind"),
    [
        (T, True, "in_time"),
        (LATEST, True, "in_time"),
        (LATEST + 1, True, "in_the_future"),
        (LATEST + 1, False, "in_the_future"),
        (T - LONG_PAST_MS, True, "in_time"),
        (T - LONG_PAST_MS - 1, True, "long_past"),
        (T - LONG_PAST_MS - 1, False, "in_time"),  # it has waited in Kafka
        (-1, True, "in_time"),  # no timestamp, which is another fault
    ],
)
def test_record_is_counted_once_by_its_timestamp(time_ms: int, kind: str, *, at_end: bool) -> None:
    """A backlog is old because nobody was there to read it."""
    totals = noted(time_ms, at_end=at_end).totals
    assert {name: count for name, count in totals.items() if count} == {kind: 1}


@pytest.mark.parametrize(
    ("wrong", "words"), [(FUTURE, "in the future"), (PAST, "over 60 minutes old on arrival")]
)
def test_clock_is_wrong_when_most_records_do_not_fit_it(wrong: int, words: str) -> None:
    """Half of them is not most."""
    half = MIN_RECORDS // 2
    assert noted(*[wrong] * half, *[T] * half).suspicion(T) is None
    assert noted(*[wrong] * (half + 1), *[T] * half).suspicion(T) == (
        f"the clock of this machine or the broker's is wrong: {half + 1} of the last minute's "
        f"{2 * half + 1} records are {words}"
    )


def test_few_records_do_not_accuse_the_clock() -> None:
    """One device in a quiet night may be wrong itself."""
    assert noted(*[FUTURE] * (MIN_RECORDS - 1)).suspicion(T) is None
    assert noted(*[FUTURE] * MIN_RECORDS).suspicion(T) is not None


def test_clock_that_is_put_right_is_trusted_again() -> None:
    """At once if it is set by more than a minute; else once most of the last minute fits."""
    timestamps = noted(*[FUTURE] * MIN_RECORDS)
    assert timestamps.suspicion(T + WINDOW_MS) is not None
    assert timestamps.suspicion(T + WINDOW_MS + 1_000) is None
    timestamps.note(T + 1_000, [T] * MIN_RECORDS, LATEST, at_end=True)
    assert timestamps.suspicion(T + 1_000) is None


def test_what_is_older_than_the_window_is_forgotten() -> None:
    """What is kept does not grow with the run."""
    timestamps = Timestamps()
    for second in range(500):
        timestamps.note(T + second * 1_000, [T], LATEST, at_end=False)
    assert len(timestamps._seconds) <= WINDOW_MS / 1_000 + 1
    assert timestamps.totals.total() == 500
