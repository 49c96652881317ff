"""Dead letters with a Kafka in memory: each is written once, with what it was and why."""

import random
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from dataflows.formats import DEAD_LETTER_VERSION, DeadLetterState
from dataflows.kafka.dead_letters import DeadLetterPart, read_known, read_rejected_by_clock
from dataflows.kafka.producer import DeliveryError, SharedProducer
from dataflows.kafka.reconcile import OutputReader
from dataflows.messages import DeadLetter, DeadLettersBegin, RejectedByClock
from dataflows.settings import Settings
from tests.support.clocks import T
from tests.support.fake_kafka import Consumer, Log, Producer, Record

PARTITIONS = 2


def dead_letter(offset: int, partition: int = 0) -> DeadLetter:
    """Return a dead letter of a record of the topic `in`."""
    return DeadLetter("in", partition, (offset, T, b"key", b"value", True), "not_json", "no JSON")


class Letters:
    """The dead-letter topic."""

    def __init__(self) -> None:
        self.log = Log({"letters": PARTITIONS, "others": 3})
        self.at_end = False
        self.low = 0  # what is before it has expired
        self.kafka = Producer(self.log, random.Random(1), lambda: T)
        self.producer = SharedProducer(Settings(), make_producer=lambda _options: self.kafka)
        self.producer.open()

    def part(self, state: DeadLetterState | None = None, topic: str = "letters") -> DeadLetterPart:
        """Return the part of a new run, or of one that resumes."""
        consumer = Consumer(self.log, lambda: T)
        consumer.get_watermark_offsets = self.bounds  # type: ignore[method-assign]
        reader = OutputReader(Settings(), lambda _options: consumer)
        parts = len(self.log.topics[topic])
        known = read_known(topic, parts, reader, state)
        return DeadLetterPart(topic, parts, self.producer, known, lambda: self.at_end)

    def bounds(self, part: TopicPartition, _timeout: float) -> tuple[int, int]:
        """Return the first offset of a partition and the one after its last record."""
        end = len(self.log.at((part.topic, part.partition)))
        return min(self.low, end), end

    def rejected_by_clock(self, stored: dict[int, int] | None) -> tuple[RejectedByClock, int]:
        """Return what a new process reads, and how many records it was given for that."""
        consumer = Consumer(self.log, lambda: T)
        reader = OutputReader(Settings(), lambda _options: consumer)
        found = read_rejected_by_clock("letters", PARTITIONS, reader, stored)
        return found, len(consumer.reading.given_ms)

    def offsets(self, partition: int = 0) -> list[str]:
        """Return the offsets of the input records that are in the topic."""
        records: list[Record] = self.log.at(("letters", partition))
        return [(record.headers or {})["heartwheel.offset"] for record in records]


def in_the_future(offset: int, partition: int = 0) -> DeadLetter:
    """Return a dead letter that a clock has made."""
    message = (offset, T + offset, b"key", b"value", True)
    return DeadLetter("in", partition, message, "in_the_future", "limit")


@pytest.fixture
def letters() -> Letters:
    """Return an empty dead-letter topic."""
    return Letters()


def test_dead_letter_has_the_bytes_and_headers_of_its_record(letters: Letters) -> None:
    """Its partition follows from that of the input."""
    part = letters.part()
    part.write_batch([dead_letter(5, partition=3)])
    assert part.snapshot() == (DEAD_LETTER_VERSION, {0: 0, 1: 1})
    (record,) = letters.log.at(("letters", 1))
    assert (record.key, record.value) == (b"key", b"value")
    assert record.headers == {
        "heartwheel.topic": "in",
        "heartwheel.partition": "3",
        "heartwheel.offset": "5",
        "heartwheel.timestamp": str(T),
        "heartwheel.reason": "not_json",
        "heartwheel.detail": "no JSON",
    }


def test_dead_letter_of_a_crashed_run_is_not_written_again(letters: Letters) -> None:
    """It was written after the last snapshot, and its input is read again."""
    part = letters.part()
    part.write_batch([dead_letter(1)])
    state = part.snapshot()
    part.write_batch([dead_letter(2), dead_letter(3)])
    part.snapshot()
    letters.part(state).write_batch([dead_letter(2), dead_letter(3), dead_letter(4)])
    letters.producer.flush()
    assert letters.offsets() == ["1", "2", "3", "4"]


def test_stored_ends_stay_until_what_was_found_has_come_again(letters: Letters) -> None:
    """After a second crash it must be found again."""
    part = letters.part()
    state = part.snapshot()
    part.write_batch([dead_letter(1), dead_letter(2)])
    part.snapshot()
    resumed = letters.part(state)
    resumed.write_batch([dead_letter(1)])
    assert resumed.snapshot() == state
    resumed.write_batch([dead_letter(2)])
    assert resumed.snapshot() == (DEAD_LETTER_VERSION, {0: 2, 1: 0})


def test_word_that_dead_letters_begin_stores_where_and_sends_nothing(letters: Letters) -> None:
    """A run that is killed after it finds what it wrote, though it was the first of its store."""
    part = letters.part()
    part.write_batch([DeadLettersBegin()])
    state = part.snapshot()
    assert state == (DEAD_LETTER_VERSION, {0: 0, 1: 0})
    part.write_batch([dead_letter(1), DeadLettersBegin()])
    letters.producer.flush()
    letters.part(state).write_batch([dead_letter(1)])
    letters.producer.flush()
    assert letters.offsets() == ["1"]


def test_start_goes_on_after_dead_letters_have_expired(
    letters: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there no longer need not be found again."""
    part = letters.part()
    part.write_batch([dead_letter(1)])
    state = part.snapshot()
    part.write_batch([dead_letter(2), dead_letter(3)])
    part.snapshot()
    bounds = Consumer.get_watermark_offsets

    def expired(*arguments: Any, **options: Any) -> tuple[int, int]:
        high = bounds(*arguments, **options)[1]
        return min(2, high), high

    monkeypatch.setattr(Consumer, "get_watermark_offsets", expired)
    letters.part(state).write_batch([dead_letter(3), dead_letter(4)])
    letters.producer.flush()
    assert letters.offsets() == ["1", "2", "3", "4"]


def test_record_without_our_headers_is_no_dead_letter(letters: Letters) -> None:
    """Operators may write to the topic, and requeue does."""
    state = letters.part().snapshot()
    letters.log.at(("letters", 0)).append(Record(T, None, None, {"heartwheel.requeued": "x"}, T))
    letters.part(state).write_batch([dead_letter(0)])
    letters.producer.flush()
    assert letters.log.at(("letters", 0))[1].value == b"value"


def test_dead_letter_that_kafka_refuses_ends_the_run(letters: Letters) -> None:
    """Nothing is lost silently."""
    part = letters.part()
    part.write_batch([dead_letter(1)])
    letters.kafka.fail()
    with pytest.raises(DeliveryError, match="letters: a record was refused"):
        part.snapshot()


def test_what_a_clock_rejected_since_the_snapshot_is_found(letters: Letters) -> None:
    """By place and timestamp; other reasons and other programs' records are skipped."""
    part = letters.part()
    part.write_batch([in_the_future(1), in_the_future(1, 1)])
    stored = part.snapshot()[1]
    part.write_batch([in_the_future(2), dead_letter(3), in_the_future(4, 2), in_the_future(5, 1)])
    part.snapshot()
    letters.log.at(("letters", 0)).append(Record(T, None, None, {"heartwheel.requeued": "x"}, T))
    later: RejectedByClock = {("in", 0): {2: T + 2}, ("in", 2): {4: T + 4}, ("in", 1): {5: T + 5}}
    assert letters.rejected_by_clock(stored) == (later, 5)


def test_process_without_the_store_reads_all_that_clocks_rejected(letters: Letters) -> None:
    """It does not know how far the last snapshot was."""
    part = letters.part()
    part.write_batch([in_the_future(1), dead_letter(2), in_the_future(3, 1)])
    part.snapshot()
    found: RejectedByClock = {("in", 0): {1: T + 1}, ("in", 1): {3: T + 3}}
    assert letters.rejected_by_clock(None) == (found, 3)


def test_nothing_is_read_where_nothing_is_new(letters: Letters) -> None:
    """A start after a clean stop, or with an empty topic, costs two requests."""
    assert letters.rejected_by_clock(None) == ({}, 0)
    part = letters.part()
    part.write_batch([in_the_future(1)])
    assert letters.rejected_by_clock(part.snapshot()[1]) == ({}, 0)


def test_dead_letters_that_have_expired_stop_nothing(letters: Letters) -> None:
    """What is still there is found; retention is no fault of the run."""
    part = letters.part()
    part.write_batch([dead_letter(1)])
    state = part.snapshot()
    part.write_batch([dead_letter(2), dead_letter(3)])
    part.snapshot()
    letters.low = 2
    resumed = letters.part(state)
    resumed.write_batch([dead_letter(2), dead_letter(3), dead_letter(4)])
    assert resumed.snapshot() == (DEAD_LETTER_VERSION, {0: 5, 1: 0})
    assert letters.offsets() == ["1", "2", "3", "2", "4"]


def test_topic_that_was_emptied_or_made_anew_is_gone_on_with(letters: Letters) -> None:
    """It ends before the stored offset."""
    part = letters.part()
    part.write_batch([dead_letter(1), dead_letter(2)])
    state = part.snapshot()
    letters.log.at(("letters", 0)).clear()
    resumed = letters.part(state)
    resumed.write_batch([dead_letter(3)])
    assert resumed.snapshot() == (DEAD_LETTER_VERSION, {0: 1, 1: 0})


def test_another_topic_with_other_partitions_is_gone_on_with(letters: Letters) -> None:
    """The stored offsets are those of the topic before."""
    part = letters.part()
    part.write_batch([dead_letter(1), dead_letter(1, partition=1)])
    state = part.snapshot()
    resumed = letters.part(state, "others")
    resumed.write_batch([dead_letter(2, partition=2)])
    assert resumed.snapshot() == (DEAD_LETTER_VERSION, {0: 0, 1: 0, 2: 1})


def test_letters_of_others_hold_up_the_stored_ends_only_until_the_end_of_input(
    letters: Letters,
) -> None:
    """Two programs may share a topic; names of the other one never come again here."""
    part = letters.part()
    state = part.snapshot()
    part.write_batch([dead_letter(9, partition=4)])
    part.snapshot()
    resumed = letters.part(state)
    letters.at_end = True
    for offset in (1, 2):
        resumed.write_batch([dead_letter(offset)])
        assert resumed.snapshot()[1] == ({0: 0, 1: 0} if offset == 1 else {0: 3, 1: 0})
