"""The lane's clock: the wall clock when all is read, else the least that one behind has come to."""

import pytest

from session_logic.clock import LaneClock, Report

NOW_MS = 1_700_000_000_000


@pytest.mark.parametrize(
    ("heard", "time_ms", "live"),
    [
        ([], None, False),
        ([("a", None)], None, False),
        ([("a", 5)], None, False),
        ([("a", None), ("b", None)], NOW_MS, True),
        ([("a", None), ("b", 5)], 5, False),
        ([("a", 7), ("b", 5)], 5, False),
        ([("a", 7), ("b", 5), ("b", 9)], 7, False),
        ([("a", 7), ("b", 5), ("b", None), ("a", None)], NOW_MS, True),
        ([("a", None), ("b", None), ("b", 5)], 5, False),
        ([("a", None), ("b", NOW_MS + 1)], NOW_MS, False),
    ],
)
def test_reports_of_two_partitions_make_one_time(
    heard: list[tuple[str, int | None]], time_ms: int | None, *, live: bool
) -> None:
    """No time before all have reported; then the slowest counts, and never more than now."""
    clock = LaneClock()
    for part, through_ms in heard:
        clock.hear(Report(part, 2, through_ms))
    assert clock.time_ms(NOW_MS) == time_ms
    assert clock.live is live
