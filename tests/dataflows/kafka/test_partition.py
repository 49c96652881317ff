"""An input partition: its queue, its offsets, and what it reports to the lanes."""

from dataflows.kafka.partition import BEHIND_MS, MAX_BATCH, REPORT_MS, InputPartition
from session_logic.clock import PartitionProgress
from tests.support.clocks import T


def partition() -> InputPartition:
    """Return a partition that is read from offset 10 on."""
    return InputPartition("in", 0, 10)


def add(part: InputPartition, *times_ms: int) -> None:
    """Let records with these timestamps come."""
    offset = part.fetched_offset
    part.add([(offset + n, time_ms, None, None, True) for n, time_ms in enumerate(times_ms)])


def progress(part: InputPartition, now_ms: int) -> tuple[int | None] | None:
    """Return the watermark that the partition reports, or None where it reports nothing."""
    report = part.progress(1, "source", now_ms)
    return None if report is None else (report.watermark_ms,)


CAUGHT_UP = (None,)


def caught_up_partition() -> InputPartition:
    """Return a partition that has reported at T that it is read to its end."""
    part = partition()
    part.announce_end()
    assert progress(part, T) == CAUGHT_UP
    return part


def test_offsets_follow_what_is_fetched_taken_and_stored() -> None:
    """Each is the next offset: to fetch, to take, and as of the last snapshot."""
    part = partition()
    add(part, T, T, T)
    assert (part.fetched_offset, part.next_offset, part.stored_offset) == (13, 10, 10)
    assert [offset for offset, *_ in part.take(T)] == [10, 11, 12]
    assert (part.fetched_offset, part.next_offset, part.stored_offset) == (13, 13, 10)
    assert part.store() == 13
    assert part.stored_offset == 13


def test_batch_has_a_limit() -> None:
    """What is more stays in the queue, in order."""
    part = partition()
    add(part, *[T] * (MAX_BATCH + 1))
    assert len(part.take(T)) == MAX_BATCH
    assert [offset for offset, *_ in part.take(T)] == [10 + MAX_BATCH]
    assert part.take(T) == []


def test_watermark_is_neither_ahead_of_now_nor_goes_back() -> None:
    """Timestamps of devices whose clock is ahead, and late ones, do not move it."""
    part = partition()
    for time_ms, expected_ms in ((T - 5, T - 5), (T - 9, T - 5), (T + 60_000, T)):
        add(part, time_ms)
        part.take(T)
        assert part.watermark_ms == expected_ms


def test_partition_of_which_nothing_is_known_reports_nothing() -> None:
    """Neither a record nor the end has come."""
    assert progress(partition(), T) is None


def test_partition_is_caught_up_when_its_queue_is_empty() -> None:
    """The end alone is not enough: what has been fetched must have been taken, too."""
    part = partition()
    add(part, T - 7_000)
    part.announce_end()
    assert progress(part, T) is None
    part.take(T)
    report = part.progress(3, "source", T)
    assert report == PartitionProgress("in/0", 3, None, "source", T)
    assert progress(part, T + 10 * REPORT_MS) is None  # the consumer renews it


def test_partition_that_is_behind_reports_from_time_to_time() -> None:
    """The timestamp that it has come to, every REPORT_MS."""
    part = partition()
    add(part, T - 7_000, T - 6_000)
    part.take(T)
    assert progress(part, T) == (T - 6_000,)
    assert progress(part, T + REPORT_MS - 1) is None
    assert progress(part, T + REPORT_MS) == (T - 6_000,)


def test_partition_stays_caught_up_while_its_records_are_young() -> None:
    """Records that have just come do not put it behind; old ones do, at once."""
    part = caught_up_partition()
    add(part, T)
    part.take(T)
    assert progress(part, T + BEHIND_MS) is None
    assert progress(part, T + BEHIND_MS + 1) == (T,)


def test_partition_with_an_invalid_end_is_behind() -> None:
    """It has come to the time up to which its end held."""
    part = caught_up_partition()
    part.invalidate_end(T + 40)
    assert progress(part, T + 50) == (T + 40,)
    part.refetch()
    part.announce_end()
    assert progress(part, T + 51) == CAUGHT_UP


def test_unknown_end_does_not_move_the_watermark_when_invalidated() -> None:
    """A partition that is behind has come no further."""
    part = partition()
    add(part, T - 7_000)
    part.take(T)
    part.invalidate_end(T)
    assert part.watermark_ms == T - 7_000


def test_caught_up_partition_owes_progress_when_that_is_in_question() -> None:
    """Records that wait, or an end that is invalid; not one that is behind or at its end."""
    part = caught_up_partition()
    assert not part.owes_progress
    add(part, T)
    assert part.owes_progress
    part.take(T)
    assert not part.owes_progress
    part.invalidate_end(T)
    assert part.owes_progress
    assert progress(part, T + 2 * BEHIND_MS) == (T,)
    assert not part.owes_progress
