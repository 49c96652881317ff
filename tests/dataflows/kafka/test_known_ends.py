"""The known ends of a consumer with a Kafka in memory: what proves them, what ends them."""

import pytest

from dataflows.kafka.end_of_input import PAUSE_MS, EndOfInput
from dataflows.kafka.partition import REPORT_MS, TAKE_OVER_MS
from tests.support.clocks import T
from tests.support.fake_input import FakeInput, Reading, offsets


def check_that_the_next_answer_counts(reading: Reading) -> None:
    """Check that no end is known until one more answer comes, and that the record came once."""
    assert reading.ends() == {EndOfInput.UNKNOWN}
    reading.fetch(0)
    reading.poll()
    assert reading.ends() == {EndOfInput.REACHED}
    assert offsets(reading.parts[0]) == [0]


def test_end_and_a_record_after_it_come_in_one_poll() -> None:
    """What counts is where the log ended in the newest answer."""
    reading = Reading()
    reading.append(0, T)
    reading.fetch(0, 0)
    reading.append(0, T, T)
    reading.kafka.fetch(("in", 0), 1)
    reading.poll()
    assert offsets(reading.parts[0]) == [0, 1]
    assert reading.ends() == {EndOfInput.UNKNOWN}
    reading.fetch(0)
    reading.poll()
    assert reading.ends() == {EndOfInput.REACHED}


def test_partition_with_records_in_every_answer_is_read_to_its_end() -> None:
    """No answer without records ever announces it, so the high watermark must tell."""
    reading = Reading()
    part = reading.parts[0]
    for number in range(3):
        reading.append(0, reading.clock.now - 60_000)
        reading.fetch(0)
        reading.poll()
        part.take(reading.clock.now)
        report = part.progress(1, reading.consumer.name, reading.clock.now)
        assert (report is not None and report.watermark_ms is None) == (number == 0)
        assert reading.ends() == {EndOfInput.REACHED}
        assert part.caught_up


def test_partition_of_which_more_is_on_its_way_is_at_its_end_as_of_the_last_answer() -> None:
    """A watermark is the end as of its answer, once everything up to it is taken."""
    reading = Reading()
    part = reading.parts[0]
    reading.append(0, T, T)
    moments = []
    for _ in range(3):
        reading.append(0, T)
        reading.kafka.fetch(("in", 0), 1)
        reading.poll()
        moments.append(reading.clock.now)
        part.take(reading.clock.now)
    reading.poll()
    assert reading.ends() == {EndOfInput.PASSED}
    assert part.end_as_of(reading.clock.now) == moments[0]


def test_old_watermark_is_no_end() -> None:
    """While a partition is fetched again, its position is at a watermark that may be outdated."""
    reading = Reading()
    reading.reach_ends()
    reading.append(0, T)
    reading.poll(PAUSE_MS + 1)
    reading.poll()
    reading.poll()
    check_that_the_next_answer_counts(reading)


def test_busy_partition_that_may_have_old_answers_is_fetched_again() -> None:
    """Its first end after an invalidation may be as old; the next one counts."""
    reading = Reading()
    reading.kafka.lose_broker()
    reading.poll()
    for expected in (EndOfInput.UNKNOWN, EndOfInput.REACHED):
        reading.append(0, T)
        reading.fetch(0)
        reading.poll()
        assert reading.ends() == {expected}
    assert offsets(reading.parts[0]) == [0, 1]


def test_announced_end_moves_the_position_behind_markers() -> None:
    """Else a partition that ends with a transaction would lag for ever."""
    reading = Reading()
    reading.end(0, reading.begin(0, T))
    reading.fetch(0)
    reading.poll()
    assert reading.ends() == {EndOfInput.UNKNOWN}
    reading.reach_ends()
    assert (reading.parts[0].fetched_offset, reading.parts[0].next_offset) == (2, 2)


def test_position_goes_over_what_was_aborted_or_compacted_away() -> None:
    """Neither is seen, and neither keeps the end from being reached."""
    reading = Reading()
    reading.append(0, T, T, T)
    reading.log.at(("in", 0))[1].hidden = True
    reading.end(0, reading.begin(0, T), commit=False)
    reading.fetch(0, 0)
    reading.poll()
    assert offsets(reading.parts[0]) == [0, 2]
    assert reading.ends() == {EndOfInput.REACHED}
    assert reading.parts[0].fetched_offset == 5


def test_open_transaction_is_not_the_end() -> None:
    """What is behind it cannot be read yet, though Kafka announces an end before it."""
    reading = Reading()
    reading.append(0, T)
    transaction = reading.begin(0, T)
    reading.append(0, T)
    reading.fetch(0, 0)
    reading.poll()
    assert offsets(reading.parts[0]) == [0]
    assert reading.ends() == {EndOfInput.UNKNOWN}
    reading.end(0, transaction)
    reading.fetch(0, 0)
    reading.poll()
    assert offsets(reading.parts[0]) == [0, 1, 2]
    assert reading.ends() == {EndOfInput.REACHED}


def test_transaction_that_opens_at_a_known_end_ends_it() -> None:
    """Nothing comes of what is behind it; the answers of Kafka tell only that there is more."""
    reading = Reading()
    reading.append(0, T)
    reading.fetch(0)
    reading.poll()
    reading.reach_ends()
    transaction = reading.begin(0, T)
    reached_ms = reading.clock.now
    reading.fetch(0)
    reading.poll(REPORT_MS)
    reading.poll(REPORT_MS)
    assert reading.ends() == {EndOfInput.PASSED}
    assert reading.parts[0].end_as_of(reading.clock.now) == reached_ms
    reading.end(0, transaction, commit=False)
    reading.fetch(0)
    reading.fetch(0)
    reading.poll()
    assert reading.ends() == {EndOfInput.REACHED}


def taken_over() -> Reading:
    """Return a partition at its end, whose new leader lacks a record in what it knows."""
    reading = Reading()
    reading.append(0, T, T)
    reading.fetch(0)
    reading.poll()
    reading.reach_ends()
    reading.log.elect(("in", 0), 1)
    reading.append(0, T)
    return reading


def test_leader_that_has_just_taken_over_knows_no_end() -> None:
    """Its high watermark is from before: what was committed since then is still to come."""
    reading = taken_over()
    reached_ms = reading.clock.now
    for _ in range(3):
        reading.fetch(0)
        reading.poll(REPORT_MS)
    assert reading.ends() == {EndOfInput.PASSED}
    assert reading.parts[0].end_as_of(reading.clock.now) == reached_ms
    reading.log.settle(("in", 0))
    for _ in range(3):
        reading.fetch(0)
        reading.poll(REPORT_MS)
    assert offsets(reading.parts[0]) == [2]
    assert reading.ends() == {EndOfInput.REACHED}


def test_end_that_a_leader_announces_too_early_is_none() -> None:
    """The one before it has told of more, which has not come."""
    reading = Reading()
    reading.append(0, T, T, T)
    reading.kafka.fetch(("in", 0), 1)
    reading.poll()
    reading.log.elect(("in", 0), 2)
    reading.fetch(0)
    reading.poll()
    assert reading.ends() == {EndOfInput.UNKNOWN}
    reading.log.settle(("in", 0))
    reading.fetch(0)
    reading.poll()
    assert reading.ends() == {EndOfInput.REACHED}


def test_log_that_was_cut_has_an_end_again() -> None:
    """A leader that goes on telling less than was known does not know more."""
    reading = Reading()
    reading.append(0, T, T, T)
    reading.kafka.fetch(("in", 0), 1)
    reading.poll()
    del reading.log.at(("in", 0))[1:]
    for _ in range(TAKE_OVER_MS // REPORT_MS):
        reading.fetch(0)
        reading.poll(REPORT_MS)
    assert reading.ends() == {EndOfInput.UNKNOWN}
    for _ in range(4):
        reading.poll(REPORT_MS)
        reading.fetch(0)
    assert reading.ends() == {EndOfInput.REACHED}


def test_start_reads_to_the_end_that_there_is_before_time_passes() -> None:
    """An earlier run may have acted on what a leader that has just taken over does not know."""
    fake = FakeInput()
    fake.append(0, T, T, T)
    consumer = fake.shared()
    part = consumer.assign("in", 0, 1)
    fake.log.elect(("in", 0), 2)
    fake.fetch(0)
    consumer.poll()
    assert part.end is EndOfInput.UNKNOWN


def test_retention_behind_markers_stops_nothing() -> None:
    """The position is behind them, also when the partition is fetched again."""
    reading = Reading()
    reading.end(0, reading.begin(0, T))
    reading.fetch(0)
    reading.fetch(0)
    reading.poll()
    reading.reach_ends()
    reading.log.expire(("in", 0), 2)
    reading.poll(PAUSE_MS + 1)
    reading.fetch(0)
    reading.poll()
    assert reading.ends() == {EndOfInput.REACHED}


def test_end_from_before_an_invalidation_does_not_count() -> None:
    """The partition is fetched again behind what came with it, and no record comes twice."""
    reading = Reading()
    reading.kafka.lose_broker()
    reading.poll()
    assert reading.ends() == {EndOfInput.STALE}
    reading.append(0, T)
    reading.fetch(0)
    reading.poll()
    check_that_the_next_answer_counts(reading)


def test_pause_of_the_process_invalidates_ends() -> None:
    """Up to the last poll they held; Kafka is asked again before anything is read."""
    reading = Reading(2)
    reading.reach_ends()
    polled_ms = reading.clock.now
    reading.append(0, T)
    reading.poll(PAUSE_MS + 1)
    assert reading.ends() == {EndOfInput.UNKNOWN}
    assert [part.end_as_of(reading.clock.now) for part in reading.parts] == [polled_ms] * 2
    reading.fetch(0, 1)
    reading.poll()
    assert reading.ends() == {EndOfInput.REACHED}
    assert offsets(reading.parts[0]) == [0]


def test_short_pause_of_the_process_is_none() -> None:
    """The lanes believe in an end for longer than that."""
    reading = Reading()
    reading.reach_ends()
    reading.poll(PAUSE_MS)
    assert reading.ends() == {EndOfInput.REACHED}


def test_lost_connection_invalidates_ends_after_the_messages_of_the_poll() -> None:
    """What came before the error is in its queue, and does not come again."""
    reading = Reading()
    reading.reach_ends()
    reading.append(0, T)
    reading.fetch(0)
    reading.kafka.lose_broker()
    reading.poll()
    assert reading.ends() == {EndOfInput.UNKNOWN}
    reading.fetch(0)
    reading.poll()
    assert offsets(reading.parts[0]) == [0]
    assert reading.ends() == {EndOfInput.REACHED}


def test_connection_that_stays_lost_invalidates_ends_once() -> None:
    """Until a broker has answered, further errors say nothing new."""
    reading = Reading()
    reading.reach_ends()
    for _ in range(3):
        reading.kafka.lose_broker()
        reading.poll()
        assert reading.ends() == {EndOfInput.UNKNOWN}
    for _ in range(2):
        reading.reach_ends()
        reading.kafka.lose_broker()
        reading.poll()
        assert reading.ends() == {EndOfInput.UNKNOWN}


@pytest.mark.parametrize(
    ("idle_ms", "expected"), [(1_500, EndOfInput.REACHED), (1_501, EndOfInput.UNKNOWN)]
)
def test_silent_broker_invalidates_ends(idle_ms: int, expected: EndOfInput) -> None:
    """Three answers that did not come are a silence; one comes every 500 ms."""
    reading = Reading()
    reading.reach_ends()
    reading.kafka.tell_silence(idle_ms)
    reading.poll()
    assert reading.ends() == {expected}


def test_ends_are_renewed_from_time_to_time() -> None:
    """One renewal for all partitions, every REPORT_MS."""
    reading = Reading(2)
    reading.reach_ends()
    renewals = [
        reading.consumer.ends.renewal(now_ms) for now_ms in (T, T + REPORT_MS - 1, T + REPORT_MS)
    ]
    assert [renewal is not None for renewal in renewals] == [True, False, True]
    assert renewals[0] is not None
    assert renewals[0].source == reading.consumer.name
    assert renewals[0].as_of_ms == T


def test_ends_are_renewed_as_of_the_oldest_of_them() -> None:
    """A record that waits may put its partition behind; what is taken does not."""
    reading = Reading(2)
    reading.reach_ends()
    reached_ms = reading.clock.now
    reading.append(1, T)
    reading.fetch(1)
    reading.poll()
    waiting = reading.consumer.ends.renewal(reading.clock.now)
    assert waiting is not None
    assert waiting.as_of_ms == reached_ms
    reading.parts[1].take(reading.clock.now)
    taken = reading.consumer.ends.renewal(reading.clock.now + REPORT_MS)
    assert taken is not None
    assert taken.as_of_ms == reading.clock.now + REPORT_MS


def test_ends_that_are_invalid_are_renewed_as_of_the_last_moment_they_held() -> None:
    """Else the lanes would believe in an end that nobody knows any more."""
    reading = Reading()
    reading.reach_ends()
    reached_ms = reading.clock.now
    reading.poll(2 * PAUSE_MS)
    renewal = reading.consumer.ends.renewal(reading.clock.now)
    assert renewal is not None
    assert renewal.as_of_ms == reached_ms


def test_nothing_is_renewed_while_no_partition_is_caught_up() -> None:
    """There is no end to believe in."""
    reading = Reading()
    assert reading.consumer.ends.renewal(T) is None
