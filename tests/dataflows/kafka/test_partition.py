"""An input partition: its queue, its offsets, and what it reports to the lanes."""

from confluent_kafka import OFFSET_BEGINNING

from dataflows.kafka.end_of_input import EndOfInput
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


def reach_end(part: InputPartition, now_ms: int = T) -> None:
    """Let Kafka answer that there is no more than what has come."""
    part.note_answer(part.fetched_offset, now_ms)


CAUGHT_UP = (None,)


def caught_up_partition() -> InputPartition:
    """Return a partition that has reported at T that it is read to its end."""
    part = partition()
    reach_end(part)
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


def test_added_partition_holds_time_up_once_kafka_answers_that_all_of_it_is_held_up() -> None:
    """An open transaction keeps back its first records: time must not pass them."""
    part = InputPartition("in", 3, OFFSET_BEGINNING)
    part.added = True
    assert progress(part, T) is None
    part.skip_to(0)
    part.note_answer(8, T + 10)
    assert progress(part, T + 20) == (T + 20,)
    assert progress(part, T + 20 + REPORT_MS) == (T + 20,)


def test_partition_is_caught_up_when_its_queue_is_empty() -> None:
    """The end alone is not enough: what has been fetched must have been taken, too."""
    part = partition()
    add(part, T - 7_000)
    reach_end(part)
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


def test_partition_stays_caught_up_while_its_end_is_young() -> None:
    """Records that have just come do not put it behind; an end that is long past does."""
    part = caught_up_partition()
    add(part, T + 7_000)
    part.take(T)
    assert progress(part, T + BEHIND_MS) is None
    assert progress(part, T + BEHIND_MS + 1) == (T,)


def test_timestamps_do_not_tell_whether_a_partition_is_behind() -> None:
    """Records that were timestamped a minute before they came are read to the end as others are."""
    part = caught_up_partition()
    for now_ms in range(T, T + 2_000, 50):
        add(part, now_ms - 60_000)
        reach_end(part, now_ms)
        part.take(now_ms)
        assert progress(part, now_ms) is None
        assert part.end_as_of(now_ms) == now_ms


def test_partition_that_always_has_more_is_caught_up_as_of_its_last_goal() -> None:
    """Each answer says where the log ended then; once all up to there is taken, that moment counts.

    So a partition of which no poll ever brings the last record is never behind.
    """
    part = partition()
    for now_ms in range(T, T + 3_000, 100):
        add(part, now_ms - 3_000)
        part.note_answer(part.fetched_offset + 1, now_ms)
        part.take(now_ms)
        part.check_goals()
        assert part.end_as_of(now_ms) == (0 if now_ms == T else now_ms - 100)
        assert progress(part, now_ms) == {T: (T - 3_000,), T + 100: CAUGHT_UP}.get(now_ms)


def test_goal_is_reached_when_it_has_been_taken() -> None:
    """What waits in the queue is not known to the lanes."""
    part = partition()
    add(part, T, T)
    part.note_answer(12, T + 5)
    part.check_goals()
    assert part.end_as_of(T + 6) == 0
    part.take(T + 6)
    part.check_goals()
    assert not part.goals
    assert part.end_as_of(T + 7) == T + 7


def test_goal_from_before_an_invalidation_does_not_count() -> None:
    """One of a partition that is fetched again is gone, one of what may be old says nothing."""
    part = caught_up_partition()
    add(part, T)
    part.note_answer(13, T + 1)
    part.invalidate_end(T)
    part.refetch()
    assert not part.goals
    part.invalidate_end(T + 2)
    add(part, T)
    part.note_answer(13, T + 3)
    add(part, T)
    part.take(T)
    part.check_goals()
    assert part.end is EndOfInput.REFETCH
    assert part.end_as_of(T + 5) == T


def test_position_moves_behind_what_is_never_delivered() -> None:
    """Behind transaction markers, once all before them has been taken, and never back."""
    part = partition()
    add(part, T, T)
    part.skip_to(14)
    assert (part.position().offset, part.next_offset) == (14, 10)
    part.take(T)
    assert part.next_offset == 14
    part.skip_to(12)
    part.take(T)
    assert (part.position().offset, part.next_offset) == (14, 14)


def test_partition_with_an_invalid_end_is_behind() -> None:
    """It has come to the time up to which its end held."""
    part = caught_up_partition()
    assert part.end_as_of(T + 45) == T + 45
    part.invalidate_end(T + 40)
    assert progress(part, T + 50) == (T + 40,)
    part.refetch()
    reach_end(part)
    assert progress(part, T + 51) == CAUGHT_UP


def test_watermark_below_what_has_come_is_that_of_a_leader_which_has_just_taken_over() -> None:
    """What has come was committed, so there may be more, of which no watermark has told yet."""
    part = caught_up_partition()
    add(part, T)
    part.take(T)
    part.note_answer(10, T + 1)
    assert part.end_as_of(T + 1) == T
    part.note_answer(11, T + 2)
    assert part.end_as_of(T + 2) == T + 2


def test_unknown_end_does_not_move_the_watermark_when_invalidated() -> None:
    """A partition that is behind has come no further."""
    part = partition()
    add(part, T - 7_000)
    part.take(T)
    part.invalidate_end(T)
    assert part.watermark_ms == T - 7_000


def test_message_that_is_not_ready_waits_with_all_behind_it() -> None:
    """The partition is behind meanwhile, and goes on from there, in order and without a gap."""
    part = caught_up_partition()
    ready = {10, 12}
    part.gate = lambda message: message[0] in ready
    add(part, T, T + 1, T + 2)
    reach_end(part, T + 5)
    assert [offset for offset, *_ in part.take(T + 5)] == [10]
    assert part.take(T + 5) == []
    part.check_goals()
    assert (part.held, part.next_offset, part.store()) == (True, 11, 11)
    later_ms = T + BEHIND_MS + 100
    assert progress(part, later_ms) == (T,)  # it has come no further
    ready.add(11)
    assert [offset for offset, *_ in part.take(later_ms)] == [11, 12]
    part.check_goals()
    assert not part.held
    assert progress(part, later_ms) == CAUGHT_UP


def test_gate_lets_a_batch_through_at_a_time() -> None:
    """What is ready has the limit that all have."""
    part = partition()
    part.gate = lambda _: True
    add(part, *[T] * (MAX_BATCH + 1))
    assert len(part.take(T)) == MAX_BATCH
    assert len(part.take(T)) == 1
    assert not part.held
