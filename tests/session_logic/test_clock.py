"""The lane's clock: the wall clock when all is read, else the least that one behind has come to."""

import pytest

from session_logic.clock import END_VALID_MS, LaneClock, PartitionProgress, Renewal

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
        clock.update(PartitionProgress(part, 2, through_ms))
    assert clock.time_ms(NOW_MS) == time_ms
    assert clock.live is live


def clock_of(*reports: PartitionProgress) -> LaneClock:
    """Return a clock that has heard these."""
    clock = LaneClock()
    for report in reports:
        clock.update(report)
    return clock


@pytest.mark.parametrize(
    ("renewals", "through_ms"),
    [
        ([], NOW_MS + END_VALID_MS),
        ([("x", 500)], NOW_MS + END_VALID_MS),
        ([("x", 500), ("y", 400)], NOW_MS + 400 + END_VALID_MS),
        ([("z", 500)], NOW_MS + END_VALID_MS),
    ],
)
def test_word_of_a_source_holds_for_its_lease(
    renewals: list[tuple[str, int]], through_ms: int
) -> None:
    """A source that falls silent holds the time back; the one that spoke longest ago counts."""
    clock = clock_of(
        PartitionProgress("a", 2, None, "x", NOW_MS),
        PartitionProgress("b", 2, None, "y", NOW_MS),
        *(Renewal(source, NOW_MS + ms) for source, ms in renewals),
    )
    assert clock.time_ms(through_ms - 1) == through_ms - 1
    assert clock.time_ms(through_ms) == through_ms
    assert clock.time_ms(through_ms + 1) == through_ms
    assert clock.live


def test_word_of_a_source_that_is_all_behind_plays_no_part() -> None:
    """Its partitions say themselves how far they have come."""
    behind = PartitionProgress("b", 2, NOW_MS + 5 * END_VALID_MS, "y", NOW_MS - 9 * END_VALID_MS)
    clock = clock_of(PartitionProgress("a", 2, None, "x", NOW_MS + 5 * END_VALID_MS), behind)
    assert clock.time_ms(NOW_MS + 9 * END_VALID_MS) == NOW_MS + 5 * END_VALID_MS


def test_partition_that_was_added_holds_time_up_and_stands_for_no_other() -> None:
    """While one of the others has not said anything, no time is known."""
    clock = LaneClock()
    clock.update(PartitionProgress("a", 2, None))
    clock.update(PartitionProgress("c", 2, None, added=True))
    assert clock.time_ms(NOW_MS) is None
    clock.update(PartitionProgress("b", 2, None))
    assert (clock.time_ms(NOW_MS), clock.live) == (NOW_MS, True)
    clock.update(PartitionProgress("c", 2, NOW_MS - 5, added=True))
    assert (clock.time_ms(NOW_MS), clock.live) == (NOW_MS - 5, False)


def test_partition_that_is_left_holds_no_time_up_and_is_not_read() -> None:
    """So nothing counts as complete meanwhile."""
    clock = LaneClock()
    clock.update(PartitionProgress("a", 2, None))
    clock.update(PartitionProgress("b", 2, NOW_MS - 5))
    clock.update(PartitionProgress("b", 2, None, left=True))
    assert (clock.time_ms(NOW_MS), clock.live) == (NOW_MS, False)
    clock.update(PartitionProgress("b", 2, NOW_MS - 5))
    assert (clock.time_ms(NOW_MS), clock.live) == (NOW_MS - 5, False)
    clock.update(PartitionProgress("b", 2, None))
    assert (clock.time_ms(NOW_MS), clock.live) == (NOW_MS, True)
