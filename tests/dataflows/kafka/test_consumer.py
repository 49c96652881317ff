"""The consumer of a process with a Kafka in memory: polls, dispatch, and ends that are doubtful."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaError, TopicPartition

from dataflows.epoch_phase import EpochPhase
from dataflows.kafka.consumer import (
    IDLE_MS,
    MAX_PENDING,
    MAX_PENDING_BYTES,
    MAX_POLL,
)
from dataflows.kafka.end_of_input import PAUSE_MS, EndOfInput
from dataflows.kafka.partition import REPORT_MS, TAKE_OVER_MS, InputPartition
from dataflows.kafka.source_errors import SourceError
from dataflows.timer_slack import DEFAULT_US, LATE_US
from session_logic.journal import JournalRow
from tests.support.clocks import T
from tests.support.fake_input import LONGEST_TICK_MS, TICK_MS, FakeInput, Reading
from tests.support.fake_kafka import Record
from tests.support.serving import restoring
from tests.support.threads import slack_ns


def offsets(part: InputPartition) -> list[int]:
    """Return what waits in the queue of a partition."""
    return [offset for offset, *_ in part.pending]


def test_messages_go_to_their_partitions_in_order() -> None:
    """Each as (offset, timestamp, key, value, created, headers), although they come mixed."""
    reading = Reading(2)
    reading.append(0, T, T + 1)
    reading.append(1, T + 2)
    for number in (0, 1, 0):
        reading.kafka.fetch(("in", number), 1)
    reading.poll()
    assert list(reading.parts[0].pending) == [
        (0, T, b"k", b"v", True, None),
        (1, T + 1, b"k", b"v", True, None),
    ]
    assert list(reading.parts[1].pending) == [(0, T + 2, b"k", b"v", True, None)]
    assert [part.fetched_offset for part in reading.parts] == [2, 1]


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
    assert reading.ends() == {EndOfInput.UNKNOWN}
    reading.fetch(0)
    reading.poll()
    assert reading.ends() == {EndOfInput.REACHED}
    assert offsets(reading.parts[0]) == [0]


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


def test_retention_of_what_is_unread_ends_the_run() -> None:
    """Records are lost, so whoever runs this must decide."""
    reading = Reading()
    reading.append(0, T, T)
    reading.log.expire(("in", 0), 1)
    reading.fetch(0)
    with pytest.raises(SourceError, match="the stored offset is not in the topic"):
        reading.poll()


def test_end_from_before_an_invalidation_does_not_count() -> None:
    """The partition is fetched again behind what came with it, and no record comes twice."""
    reading = Reading()
    reading.kafka.lose_broker()
    reading.poll()
    assert reading.ends() == {EndOfInput.STALE}
    reading.append(0, T)
    reading.fetch(0)
    reading.poll()
    assert reading.ends() == {EndOfInput.UNKNOWN}
    reading.fetch(0)
    reading.poll()
    assert reading.ends() == {EndOfInput.REACHED}
    assert offsets(reading.parts[0]) == [0]


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
        reading.consumer.renewal(now_ms) for now_ms in (T, T + REPORT_MS - 1, T + REPORT_MS)
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
    waiting = reading.consumer.renewal(reading.clock.now)
    assert waiting is not None
    assert waiting.as_of_ms == reached_ms
    reading.parts[1].take(reading.clock.now)
    taken = reading.consumer.renewal(reading.clock.now + REPORT_MS)
    assert taken is not None
    assert taken.as_of_ms == reading.clock.now + REPORT_MS


def test_ends_that_are_invalid_are_renewed_as_of_the_last_moment_they_held() -> None:
    """Else the lanes would believe in an end that nobody knows any more."""
    reading = Reading()
    reading.reach_ends()
    reached_ms = reading.clock.now
    reading.poll(2 * PAUSE_MS)
    renewal = reading.consumer.renewal(reading.clock.now)
    assert renewal is not None
    assert renewal.as_of_ms == reached_ms


def test_nothing_is_renewed_while_no_partition_is_caught_up() -> None:
    """There is no end to believe in."""
    reading = Reading()
    assert reading.consumer.renewal(T) is None


def test_nothing_is_fetched_while_the_lanes_are_slow() -> None:
    """Beyond MAX_PENDING messages Kafka waits, and the ticks of the sink go on."""
    reading = Reading()
    reading.append(0, T)
    reading.fetch(0)
    reading.parts[0].pending.extend([(0, T, None, None, True, None)] * (MAX_PENDING + 1))
    reading.poll()
    assert len(reading.parts[0].pending) == MAX_PENDING + 1
    reading.parts[0].pending.popleft()
    reading.poll()
    assert len(reading.parts[0].pending) == MAX_PENDING + 1
    assert reading.ticks == 2


def test_nothing_is_fetched_while_many_bytes_wait() -> None:
    """A few large messages are enough."""
    reading = Reading(2)
    reading.log.at(("in", 0)).append(Record(T, b"k", b"x" * MAX_PENDING_BYTES, None, T))
    reading.append(1, T)
    reading.fetch(0)
    reading.poll()
    reading.fetch(1)
    reading.poll()
    assert [len(part.pending) for part in reading.parts] == [1, 0]
    reading.parts[0].take(T)
    reading.poll()
    assert [len(part.pending) for part in reading.parts] == [0, 1]


def test_a_limit_holds_for_what_is_fetched_while_a_lane_is_restored() -> None:
    """What comes meanwhile is stored whole at each snapshot; after it all of the rest is read."""
    reading = Reading()
    reading.append(0, *[T] * (MAX_PENDING + 2 * MAX_POLL))
    reading.fetch(0)
    lane = reading.run.lanes[0] = restoring(0)
    for _ in range(10):
        reading.poll()
        while reading.parts[0].take(T):
            pass
    assert reading.parts[0].next_offset == MAX_PENDING + MAX_POLL
    assert reading.ticks == 10
    lane.restore(JournalRow(0, 0, 0, ()), T)
    assert not lane.restoring
    reading.poll()
    assert reading.parts[0].fetched_offset == MAX_PENDING + 2 * MAX_POLL


def test_partition_that_is_added_while_others_are_polled_disturbs_nothing() -> None:
    """Worker threads assign theirs at a start while one of them polls already."""
    reading = Reading(3)
    reading.append(0, T)
    reading.fetch(0, 1, 2)
    watermarks = reading.kafka.get_watermark_offsets

    def assigning(*arguments: Any, **options: Any) -> tuple[int, int]:
        if options.get("cached") and len(reading.parts) < 40:
            reading.parts.append(reading.consumer.assign("in", len(reading.parts) % 3, 0))
        return watermarks(*arguments, **options)

    reading.kafka.get_watermark_offsets = assigning
    for _ in range(10):
        reading.poll()
    assert len(reading.parts) == 40
    assert reading.ticks == 10


def test_kafka_is_polled_once_a_tick() -> None:
    """Also when several partitions ask in between."""
    reading = Reading()
    reading.append(0, T)
    reading.fetch(0)
    reading.poll()
    reading.poll(0)
    reading.poll(TICK_MS - 1)
    assert reading.ticks == 1
    reading.poll(1)
    assert reading.ticks == 2
    reading.clock.now += IDLE_MS
    reading.consumer.poll()
    reading.poll(TICK_MS)
    assert reading.ticks == 3  # nothing has come for long: the longest ticks
    reading.poll(LONGEST_TICK_MS - TICK_MS)
    assert reading.ticks == 4


@pytest.mark.parametrize(("alone", "busy_us"), [(True, DEFAULT_US), (False, LATE_US)])
def test_thread_that_polls_may_wake_up_late_while_nothing_comes_and_always_in_a_cluster(
    alone: bool,  # noqa: FBT001
    busy_us: int,
) -> None:
    """Its slack is that of the load, again and again."""
    reading = Reading()
    reading.run.epochs = EpochPhase(250, alone=alone)

    def slacks_us() -> list[int]:
        found = []
        for waits_ms in (0, 0, IDLE_MS, 0):
            if not waits_ms:
                reading.append(0, T)
                reading.fetch(0)
            reading.poll(waits_ms + LONGEST_TICK_MS)
            reading.poll(TICK_MS)
            found.append(slack_ns() // 1_000)
        return found

    with ThreadPoolExecutor(1) as thread:
        slacks = thread.submit(slacks_us).result()
    assert slacks == [busy_us, busy_us, LATE_US, busy_us]


def test_each_thread_that_polls_gets_the_slack_of_the_load() -> None:
    """Also if another one has seen the load change before it."""
    reading = Reading()

    def slack_us(*, idle: bool) -> int:
        if not idle:
            reading.append(0, T)
            reading.fetch(0)
        reading.poll(IDLE_MS if idle else LONGEST_TICK_MS)
        reading.poll()
        return slack_ns() // 1_000

    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as other:
        slacks = [
            thread.submit(slack_us, idle=idle).result()
            for thread, idle in ((first, True), (other, False), (first, False), (other, True))
        ]
    assert slacks == [LATE_US, DEFAULT_US, DEFAULT_US, LATE_US]


def test_kafka_is_polled_at_once_after_a_full_poll() -> None:
    """There is more."""
    reading = Reading()
    reading.append(0, *[T] * (MAX_POLL + 1))
    reading.fetch(0)
    reading.poll()
    reading.poll(0)
    assert len(reading.parts[0].pending) == MAX_POLL + 1


def test_error_that_does_not_pass_ends_the_run() -> None:
    """An offset that is gone is data lost: the error names the partition."""
    reading = Reading()
    reading.kafka.fail(("in", 0), KafkaError._AUTO_OFFSET_RESET)
    with pytest.raises(SourceError, match="input in/0: the stored offset is not in the topic"):
        reading.poll()


@pytest.mark.parametrize(
    ("start", "stored", "expected"),
    [("earliest", None, OFFSET_BEGINNING), ("latest", None, 2), ("latest", 1, 1)],
)
def test_reading_begins_where_it_is_told(start: str, stored: int | None, expected: int) -> None:
    """At the stored offset, else where the settings say."""
    fake = FakeInput(start=start)
    fake.append(0, T, T)
    assert fake.shared().assign("in", 0, stored).fetched_offset == expected


MOMENT = "2023-11-14T22:13:20Z"  # is T


@pytest.mark.parametrize(
    ("times_ms", "stored", "expected"),
    [
        ([T - 2, T - 1, T, T + 1], None, 2),
        ([T - 2, T + 1, T - 1, T], None, 1),
        ([T - 2, T - 1], None, 2),
        ([], None, 0),
        ([T - 2, T - 1, T], OFFSET_BEGINNING, 2),
        ([T - 2, T - 1, T, T + 1], 1, 1),
    ],
    ids=["later", "out of order", "earlier only", "empty", "nothing read yet", "read before"],
)
def test_reading_begins_at_the_first_record_that_is_not_before_the_moment(
    times_ms: list[int], stored: int | None, expected: int
) -> None:
    """At the end if there is none; a partition of which something was read goes on."""
    fake = FakeInput(start=MOMENT)
    fake.append(0, *times_ms)
    part = fake.shared().assign("in", 0, stored)
    assert part.fetched_offset == expected
    assert part.new is (stored is None)


def test_record_that_comes_while_kafka_is_asked_for_a_moment_is_read() -> None:
    """The end of a partition that has nothing later is as of before the question."""
    fake = FakeInput(start=MOMENT)
    fake.append(0, T - 2)
    fake.log.after_ask = lambda _: fake.append(0, T - 1)
    assert fake.shared().assign("in", 0, None).fetched_offset == 1


@pytest.mark.parametrize("low", [1, 3])
def test_moment_from_before_what_has_expired_begins_at_what_is_there(low: int) -> None:
    """Kafka has only what its retention has left."""
    fake = FakeInput(start=MOMENT)
    fake.append(0, T, T, T)
    fake.log.expire(("in", 0), low)
    assert fake.shared().assign("in", 0, None).fetched_offset == low


def test_moment_that_kafka_does_not_tell_is_an_error_with_the_partition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is asked again only where a broker that comes or goes may be the reason."""
    answers = [KafkaError.LEADER_NOT_AVAILABLE, KafkaError.TOPIC_AUTHORIZATION_FAILED]

    def refuse(parts: list[TopicPartition], _timeout: float) -> list[TopicPartition]:
        (part,) = parts
        return [Refused(part, KafkaError(answers.pop(0)))]  # type: ignore[list-item]

    fake = FakeInput(start=MOMENT)
    monkeypatch.setattr(fake.kafka, "offsets_for_times", refuse)
    with pytest.raises(SourceError, match=r"input in/0: .*TOPIC_AUTHORIZATION_FAILED"):
        fake.shared().assign("in", 0, None)
    assert not answers


class Refused:
    """A partition as Kafka returns it with an error, which no program can make."""

    def __init__(self, part: TopicPartition, error: KafkaError) -> None:
        self.topic, self.partition, self.offset = part.topic, part.partition, OFFSET_END
        self.error = error


def test_partitions_are_fetched_from_the_first_poll_after_they_were_assigned() -> None:
    """A question for the end of one would wait for the answer to the fetch of another."""
    fake = FakeInput(2)
    consumer = fake.shared()
    for number in (0, 1):
        consumer.assign("in", number, 0)
    assert not fake.kafka.next
    consumer.poll()
    assert fake.kafka.next == {("in", 0): 0, ("in", 1): 0}


def test_newest_record_of_any_partition_ends_the_silence_of_its_topic() -> None:
    """By when it came here, whatever its timestamp; at first it counts from the start."""
    reading = Reading(2)
    reading.run.elapsed_ms = lambda: reading.clock.now
    heard = ("in", "pc")
    begun_ms = reading.run.heard_ms[heard]
    reading.reach_ends()
    assert reading.run.heard_ms == {heard: begun_ms}
    reading.append(1, T - 3_600_000)
    reading.fetch(0, 1)
    reading.poll()
    assert reading.run.heard_ms == {heard: reading.clock.now}
    reading.consumer.assign("in", 0, 0)
    reading.clock.now += 1
    assert reading.run.heard_ms == {heard: reading.clock.now - 1}


def test_options_of_the_user_do_not_replace_those_that_must_be() -> None:
    """The consumer's options win over those of all clients, and our own over both."""
    fake = FakeInput(
        kafka={"client.id": "a", "fetch.min.bytes": "5"},
        consumer={"fetch.min.bytes": "7", "enable.auto.commit": "true"},
    )
    fake.shared().open()
    options = fake.kafka.options
    assert options["client.id"] == "a"
    assert options["fetch.min.bytes"] == "7"
    assert options["enable.auto.commit"] == "false"


def test_consumer_is_closed_with_its_last_partition() -> None:
    """Partitions of one process share it; a poll after that does nothing."""
    reading = Reading(2)
    first, last = reading.parts
    reading.consumer.close(first)
    reading.consumer.close(first)
    assert not reading.kafka.closed
    reading.consumer.close(last)
    reading.consumer.close(last)
    reading.poll()
    assert reading.kafka.closed
    assert reading.ticks == 0
