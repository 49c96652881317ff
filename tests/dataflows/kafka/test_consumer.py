"""The consumer of a process with a Kafka in memory: when it polls, and who gets what comes."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from confluent_kafka import KafkaError

from dataflows.epoch_phase import EpochPhase
from dataflows.kafka.consumer import (
    IDLE_MS,
    MAX_PENDING,
    MAX_PENDING_BYTES,
    MAX_POLL,
)
from dataflows.kafka.source_errors import SourceError
from dataflows.timer_slack import DEFAULT_US, LATE_US
from session_logic.journal import JournalRow
from tests.support.clocks import T
from tests.support.fake_input import LONGEST_TICK_MS, TICK_MS, FakeInput, Reading
from tests.support.fake_kafka import Record
from tests.support.serving import restoring
from tests.support.threads import slack_ns


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


def test_records_of_one_moment_have_one_timestamp_between_them() -> None:
    """A session keeps it: a number of its own takes 32 bytes."""
    reading = Reading()
    reading.append(0, *(int(time_ms) for time_ms in (f"{T}", f"{T}", f"{T + 1}")))
    reading.fetch(0)
    reading.poll()
    first, second, third = (message[1] for message in reading.parts[0].pending)
    assert first is second
    assert (first, third) == (T, T + 1)


def test_retention_of_what_is_unread_ends_the_run() -> None:
    """Records are lost, so whoever runs this must decide."""
    reading = Reading()
    reading.append(0, T, T)
    reading.log.expire(("in", 0), 1)
    reading.fetch(0)
    with pytest.raises(SourceError, match="the stored offset is not in the topic"):
        reading.poll()


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
