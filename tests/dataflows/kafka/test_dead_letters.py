"""Dead letters with a Kafka in memory: each is written once, with what it was and why."""

import random
from typing import Any

import pytest
from confluent_kafka import KafkaError

from dataflows.formats import DEAD_LETTER_VERSION, DeadLetterState
from dataflows.kafka import letter_queue
from dataflows.kafka.dead_letters import DeadLetterPart
from dataflows.kafka.letter_queue import MAX_HEADER_BYTES, MAX_LETTERS, LetterProducer
from dataflows.kafka.letter_topic import LetterTopic
from dataflows.kafka.producer import DeliveryError, SharedProducer
from dataflows.kafka.reconcile import OutputReader, ReconcileError
from dataflows.messages import DeadLetter, DeadLettersBegin, Headers, RejectedByClock
from dataflows.metrics import DEAD_LETTERS_DROPPED
from dataflows.run_state import RunState
from dataflows.settings import Settings
from session_logic.clock import PartitionProgress
from session_logic.events import RejectReason
from session_logic.lane import Lane
from session_logic.rules import Rules
from tests.support.clocks import FixedClock, T
from tests.support.errors import one_line
from tests.support.fake_kafka import Consumer, Log, Producer, Record

PARTITIONS = 2


def dead_letter(offset: int, partition: int = 0, headers: Headers | None = None) -> DeadLetter:
    """Return a dead letter of a record of the topic `in`."""
    message = (offset, T, b"key", b"value", True, headers)
    return DeadLetter("in", partition, message, "not_json", "no JSON")


def of_a_moment(offset: int, partition: int = 0) -> DeadLetter:
    """Return a dead letter that a clock has made, or for an odd offset a registry."""
    message = (offset, T + offset, b"key", b"value", True, None)
    reason: RejectReason = "unknown_schema" if offset % 2 else "in_the_future"
    return DeadLetter("in", partition, message, reason, "limit")


class Reader(OutputReader):
    """Reads the topic, but for the partitions without a leader."""

    away: set[int]

    def bounds(self, topic: str, partition: int, timeout_s: float = 0) -> tuple[int, int]:
        if partition in self.away:
            raise ReconcileError(f"no leader of {partition}")
        return super().bounds(topic, partition, timeout_s)


class Letters:
    """The dead-letter topic."""

    def __init__(self) -> None:
        self.log = Log({"letters": PARTITIONS, "others": 3})
        self.away: set[int] = set()
        self.run = RunState(FixedClock())
        self._new_producer()

    def _new_producer(self) -> None:
        self.kafka = Producer(self.log, random.Random(1), lambda: T)
        self.kafka._limit = 1_000_000

    def part(self, state: DeadLetterState | None = None, topic: str = "letters") -> DeadLetterPart:
        """Return the part of a new run, or of one that resumes."""
        settings = Settings()
        self._new_producer()
        self.producer = LetterProducer(settings, lambda _options: self.kafka)
        return DeadLetterPart(
            topic=self._topic(topic)[0],
            letters=self.producer,
            producer=SharedProducer(settings, make_producer=lambda _options: Nothing()),
            run=self.run,
            state=state,
        )

    def _topic(self, name: str = "letters") -> tuple[LetterTopic, Consumer]:
        consumer = Consumer(self.log, lambda: T)
        reader = Reader(Settings(), lambda _options: consumer)
        reader.away = self.away
        return LetterTopic(name, len(self.log.topics[name]), reader), consumer

    def rejected_by_clock(self, stored: dict[int, int] | None) -> tuple[RejectedByClock, int]:
        """Return what a new process reads, and how many records it was given for that."""
        topic, consumer = self._topic()
        found = topic.rejected_by_clock(stored)
        return found, len(consumer.reading.given_ms)

    def arrive(self) -> None:
        """Let Kafka take and acknowledge everything."""
        self.kafka.flush(1)

    def stored(self, part: DeadLetterPart) -> DeadLetterState:
        """Return a snapshot with everything acknowledged."""
        self.arrive()
        return part.snapshot()

    def offsets(self, partition: int = 0) -> list[str]:
        """Return the offsets of the input records that are in the topic."""
        records: list[Record] = self.log.at(("letters", partition))
        return [dict(record.headers or {})["heartwheel.offset"] for record in records]


class Nothing:
    """The producer of the output, which has nothing to do."""

    def __len__(self) -> int:
        return 0

    def poll(self, _wait_s: float) -> int:
        return 0


@pytest.fixture
def letters() -> Letters:
    """Return an empty dead-letter topic."""
    return Letters()


def state(ends: dict[int, int], *waiting: DeadLetter) -> DeadLetterState:
    """Return what a snapshot has."""
    plain = [(x.topic, x.partition, x.message, x.reason, x.detail) for x in waiting]
    return DEAD_LETTER_VERSION, ends, plain


def test_dead_letter_has_the_bytes_and_headers_of_its_record(letters: Letters) -> None:
    """Its partition follows from that of the input; the record's own headers come first."""
    part = letters.part()
    own: Headers = [("traceparent", b"00-1"), ("x", b"\xff"), ("x", None)]
    part.write_batch([dead_letter(5, partition=3, headers=own)])
    assert letters.stored(part) == state({0: 0, 1: 1})
    (record,) = letters.log.at(("letters", 1))
    assert (record.key, record.value) == (b"key", b"value")
    assert record.headers == [
        *own,
        ("heartwheel.topic", "in"),
        ("heartwheel.partition", "3"),
        ("heartwheel.offset", "5"),
        ("heartwheel.timestamp", str(T)),
        ("heartwheel.reason", "not_json"),
        ("heartwheel.detail", "no JSON"),
    ]


def test_senders_headers_cannot_pass_for_heartwheels(letters: Letters) -> None:
    """A record could be hidden from `dead-letters list` by them, or sent to another topic."""
    part = letters.part()
    forged: Headers = [("heartwheel.requeued", b"in/0/1/1"), ("heartwheel.topic", b"other")]
    part.write_batch([dead_letter(1, headers=forged)])
    letters.arrive()
    headers = letters.log.at(("letters", 0))[0].headers
    assert [name for name, _ in headers].count("heartwheel.topic") == 1
    assert dict(headers)["heartwheel.topic"] == "in"
    assert "heartwheel.requeued" not in dict(headers)


def test_headers_that_do_not_fit_are_left_out_and_named(letters: Letters) -> None:
    """No record stops the run, however large its headers are."""
    part = letters.part()
    fits: Headers = [("h", b"x" * (MAX_HEADER_BYTES - 1))]
    part.write_batch([dead_letter(1, headers=fits), dead_letter(2, headers=[*fits, ("y", b"")])])
    letters.arrive()
    first, second = (record.headers for record in letters.log.at(("letters", 0)))
    assert first[0] == fits[0]
    assert second[0][0] == "heartwheel.topic"
    assert second[-1][1] == f"no JSON (its {MAX_HEADER_BYTES + 1} bytes of headers are left out)"


def test_dead_letter_of_a_crashed_run_is_not_written_again(letters: Letters) -> None:
    """It was written after the last snapshot, and its input is read again."""
    part = letters.part()
    part.write_batch([dead_letter(1)])
    stored = letters.stored(part)
    part.write_batch([dead_letter(2), dead_letter(3)])
    letters.arrive()
    letters.part(stored).write_batch([dead_letter(2), dead_letter(3), dead_letter(4)])
    letters.arrive()
    assert letters.offsets() == ["1", "2", "3", "4"]


def test_snapshot_waits_for_nothing_and_holds_what_is_not_acknowledged(letters: Letters) -> None:
    """A crashed run's letters come once, whether they had arrived or not."""
    part = letters.part()
    part.write_batch([dead_letter(1), dead_letter(2)])
    stored = part.snapshot()
    assert stored == state({0: 0, 1: 0}, dead_letter(1), dead_letter(2))
    letters.kafka.take(("letters", 0), 1)
    letters.part(stored)
    letters.arrive()
    assert letters.offsets() == ["1", "2"]


def test_stored_ends_stay_until_what_was_found_has_come_again(letters: Letters) -> None:
    """After a second crash it must be found again."""
    part = letters.part()
    stored = letters.stored(part)
    part.write_batch([dead_letter(1), dead_letter(2)])
    letters.arrive()
    resumed = letters.part(stored)
    resumed.write_batch([dead_letter(1)])
    assert letters.stored(resumed) == stored
    resumed.write_batch([dead_letter(2)])
    assert letters.stored(resumed) == state({0: 2, 1: 0})


def test_word_that_dead_letters_begin_stores_where_and_sends_nothing(letters: Letters) -> None:
    """A run that is killed after it finds what it wrote, though it was the first of its store."""
    part = letters.part()
    part.write_batch([DeadLettersBegin()])
    stored = part.snapshot()
    assert stored == state({0: 0, 1: 0})
    part.write_batch([dead_letter(1), DeadLettersBegin()])
    letters.arrive()
    letters.part(stored).write_batch([dead_letter(1)])
    letters.arrive()
    assert letters.offsets() == ["1"]


def test_what_was_found_and_never_comes_again_is_forgotten_at_the_end_of_input(
    letters: Letters,
) -> None:
    """Another program's letters in the same topic do not keep the start of a resume back."""
    stored = letters.stored(letters.part())
    other = letters.part(stored)
    other.write_batch([dead_letter(7)])
    letters.arrive()
    resumed = letters.part(stored)
    resumed.write_batch([dead_letter(3, partition=1)])
    assert letters.stored(resumed)[1] == {0: 0, 1: 0}
    lane = letters.run.lanes[0] = Lane(0, 1, Rules(30_000, 300_000, 0, "latest"))
    lane.update(PartitionProgress("in/0", 1, None))
    assert resumed.snapshot()[1] == {0: 0, 1: 0}  # one of this moment may still be on its way
    assert resumed.snapshot()[1] == {0: 1, 1: 1}


def test_many_letters_of_a_crashed_run_are_found_in_their_number(letters: Letters) -> None:
    """The work for each does not grow with how many there are."""
    part = letters.part()
    stored = letters.stored(part)
    number = 30_000
    written = [dead_letter(offset) for offset in range(number)]
    for offset in range(0, number, 1_000):
        part.write_batch(written[offset : offset + 1_000])
        letters.arrive()
    resumed = letters.part(stored)
    for letter in written:
        resumed.write_batch([letter])
    assert letters.stored(resumed) == state({0: number, 1: 0})
    assert len(letters.offsets()) == number


def test_record_without_our_headers_is_no_dead_letter(letters: Letters) -> None:
    """Operators may write to the topic, and requeue does."""
    stored = letters.part().snapshot()
    letters.log.at(("letters", 0)).append(Record(T, None, None, {"heartwheel.requeued": "x"}, T))
    letters.part(stored).write_batch([dead_letter(0)])
    letters.arrive()
    assert letters.log.at(("letters", 0))[1].value == b"value"


@pytest.mark.parametrize("name", ["partition", "offset", "timestamp"])
def test_foreign_header_that_is_no_number_of_kafka_stops_no_start(
    letters: Letters, name: str
) -> None:
    """Whoever may write to the topic could keep a run from starting otherwise."""
    part = letters.part()
    stored = part.snapshot()
    part.write_batch([of_a_moment(2)])
    letters.arrive()
    found: RejectedByClock = {("in", 0): {2: T + 2}}
    forged = dict(letters.log.at(("letters", 0))[0].headers or {})
    for number in ("9" * 5000, "9" * 20, "\u00b2", "", "-1"):
        headers = forged | {f"heartwheel.{name}": number}
        letters.log.at(("letters", 0)).append(Record(T, None, None, headers, T))
    assert letters.rejected_by_clock(None)[0] == found
    count = len(letters.offsets())
    letters.part(stored).write_batch([of_a_moment(2)])
    letters.arrive()
    assert len(letters.offsets()) == count


def test_dead_letter_that_kafka_refuses_ends_the_run(letters: Letters) -> None:
    """Nothing is lost silently."""
    part = letters.part()
    part.write_batch([dead_letter(1)])
    letters.kafka.fail()
    letters.kafka.flush(1)
    with pytest.raises(DeliveryError, match="letters: a record was refused"):
        part.snapshot()


def test_dead_letter_that_is_too_large_for_its_topic_names_the_setting(letters: Letters) -> None:
    """A start alone would fail each time."""
    part = letters.part()
    part.write_batch([dead_letter(1)])
    letters.kafka.fail(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
    letters.kafka.flush(1)
    with pytest.raises(DeliveryError) as error:
        part.snapshot()
    one_line(error, "letters", "(MSG_SIZE_TOO_LARGE)", "max.message.bytes", "message.max.bytes")


def test_refusal_of_the_last_dead_letter_ends_the_run_at_a_tick(letters: Letters) -> None:
    """A part that gets nothing more is asked for no snapshot, and would not learn of it."""
    letters.part().write_batch([dead_letter(1)])
    letters.producer.tick()
    letters.kafka.fail()
    letters.kafka.flush(1)
    with pytest.raises(DeliveryError, match="letters: a record was refused"):
        letters.producer.tick()


class Away(Producer):
    """A producer to a partition without a leader: it acknowledges nothing of it."""

    away = 0

    def _take_all(self) -> None:
        for where, queue in self.flying.items():
            if where[1] != self.away:
                self.take(where, len(queue))


@pytest.fixture
def away(letters: Letters, monkeypatch: pytest.MonkeyPatch) -> Letters:
    """Return a topic whose partition 0 takes nothing; the clock goes on by a second each look."""
    now_s = 0.0

    def monotonic() -> float:
        nonlocal now_s
        now_s += 1
        return now_s

    monkeypatch.setattr(letter_queue.time, "monotonic", monotonic)

    def new_producer() -> None:
        letters.kafka = Away(letters.log, random.Random(1), lambda: T)
        letters.kafka._limit = 1_000_000

    monkeypatch.setattr(letters, "_new_producer", new_producer)
    return letters


def test_topic_that_takes_nothing_holds_up_nothing_and_is_bounded(away: Letters) -> None:
    """It is waited for once; then further letters are counted, and those that wait come later."""
    before = DEAD_LETTERS_DROPPED._value.get()
    part = away.part()
    part.write_batch([dead_letter(offset) for offset in range(MAX_LETTERS + 10)])
    part.write_batch([dead_letter(offset, partition=1) for offset in range(3)])
    assert DEAD_LETTERS_DROPPED._value.get() == before + 10
    stored = part.snapshot()
    assert len(stored[2]) >= MAX_LETTERS
    away.kafka.away = None
    away.kafka.flush(1)
    assert part.snapshot() == state({0: MAX_LETTERS, 1: 3})
    part.write_batch([dead_letter(MAX_LETTERS + 10)])
    assert DEAD_LETTERS_DROPPED._value.get() == before + 10


def test_stop_says_how_many_letters_wait_for_the_next_start(
    away: Letters, caplog: pytest.LogCaptureFixture
) -> None:
    """The store has them, and whoever looks into the topic does not find them there."""
    part = away.part()
    part.write_batch([dead_letter(offset) for offset in range(2)])
    away.run.stop.set()
    assert len(part.snapshot()[2]) == 2
    (said,) = caplog.records
    assert isinstance(said.msg, dict)
    assert (said.levelname, said.msg["letters"]) == ("WARNING", 2)


def test_letters_that_wait_are_bounded_by_bytes_as_well(away: Letters) -> None:
    """A few large ones are enough."""
    before = DEAD_LETTERS_DROPPED._value.get()
    large = (0, T, None, b"x" * 900_000, True, None)
    part = away.part()
    part.write_batch([DeadLetter("in", 0, large, "not_json", "") for _ in range(5)])
    assert DEAD_LETTERS_DROPPED._value.get() == before + 2


def test_full_client_is_waited_for(letters: Letters) -> None:
    """It has a limit of its own, over all partitions."""
    part = letters.part()
    letters.kafka._limit = 2
    part.write_batch([dead_letter(offset) for offset in range(9)])
    letters.arrive()
    assert len(letters.offsets()) == 9


def test_start_goes_on_without_a_partition_that_cannot_be_read(letters: Letters) -> None:
    """What is stored of it stays; its letters may come twice."""
    part = letters.part()
    part.write_batch([dead_letter(1), dead_letter(1, partition=1)])
    stored = letters.stored(part)
    assert stored == state({0: 1, 1: 1})
    letters.away.add(0)
    resumed = letters.part(stored)
    resumed.write_batch([dead_letter(2, partition=1)])
    assert letters.stored(resumed) == state({0: 1, 1: 2})
    assert letters.rejected_by_clock(None)[0] == {}


@pytest.mark.parametrize("stored", [0, 1, 5], ids=["expired", "there", "made anew"])
def test_topic_that_expired_or_was_made_anew_is_read_from_what_there_is(
    letters: Letters, monkeypatch: pytest.MonkeyPatch, stored: int
) -> None:
    """A gap is harmless, and so is a topic that ends before what is stored."""
    letters.log.at(("letters", 0)).extend(Record(T, None, None, None, T) for _ in range(3))
    whole = OutputReader.bounds

    def bounds(self: OutputReader, *where: Any) -> tuple[int, int]:
        return 1, whole(self, *where)[1]

    monkeypatch.setattr(OutputReader, "bounds", bounds)
    part = letters.part(state({0: stored, 1: 0}))
    part.write_batch([dead_letter(1)])
    assert letters.stored(part)[1][0] == 4


def test_what_was_rejected_of_a_moment_since_the_snapshot_is_found(letters: Letters) -> None:
    """By place and timestamp; other reasons and other programs' records are skipped."""
    part = letters.part()
    part.write_batch([of_a_moment(1), of_a_moment(1, 1)])
    stored = letters.stored(part)[1]
    part.write_batch([of_a_moment(2), dead_letter(3), of_a_moment(4, 2), of_a_moment(5, 1)])
    letters.arrive()
    letters.log.at(("letters", 0)).append(Record(T, None, None, {"heartwheel.requeued": "x"}, T))
    later: RejectedByClock = {("in", 0): {2: T + 2}, ("in", 2): {4: T + 4}, ("in", 1): {5: T + 5}}
    assert letters.rejected_by_clock(stored) == (later, 5)


def test_process_without_the_store_reads_all_that_clocks_rejected(letters: Letters) -> None:
    """It does not know how far the last snapshot was."""
    part = letters.part()
    part.write_batch([of_a_moment(1), dead_letter(2), of_a_moment(3, 1)])
    letters.arrive()
    found: RejectedByClock = {("in", 0): {1: T + 1}, ("in", 1): {3: T + 3}}
    assert letters.rejected_by_clock(None) == (found, 3)


def test_nothing_is_read_where_nothing_is_new(letters: Letters) -> None:
    """A start after a clean stop, or with an empty topic, costs two requests."""
    assert letters.rejected_by_clock(None) == ({}, 0)
    part = letters.part()
    part.write_batch([of_a_moment(1)])
    assert letters.rejected_by_clock(letters.stored(part)[1]) == ({}, 0)


def test_another_topic_with_other_partitions_is_gone_on_with(letters: Letters) -> None:
    """The stored offsets are those of the topic before."""
    part = letters.part()
    part.write_batch([dead_letter(1), dead_letter(1, partition=1)])
    stored = letters.stored(part)
    resumed = letters.part(stored, "others")
    resumed.write_batch([dead_letter(2, partition=2)])
    assert letters.stored(resumed) == state({0: 0, 1: 0, 2: 1})
