"""When the end of a partition is known, and what makes it doubtful."""

import json

import pytest
from msgspec.json import decode

from dataflows.kafka.end_of_input import (
    PAUSE_MS,
    TRANSITIONS,
    BrokerContact,
    EndOfInput,
    Signal,
    Statistics,
    leaderless,
    silence_ms,
)
from tests.support.clocks import T

READ = {"console-events-0": {"topic": "console-events", "partition": 0}}
RECORDS, END, CAUGHT_UP, INVALIDATED, REFETCHED = Signal
UNKNOWN, STALE, REFETCH, REACHED, PASSED = EndOfInput

# What happens to a partition that has just been assigned, and what is then known of its end.
HISTORIES = {
    "records without an end": ([RECORDS], UNKNOWN),
    "the end": ([RECORDS, END], REACHED),
    "the end twice": ([END, END], REACHED),
    "records after the end": ([END, RECORDS, RECORDS], PASSED),
    "the end after more records": ([END, RECORDS, END], REACHED),
    "an earlier end": ([RECORDS, CAUGHT_UP], PASSED),
    "one earlier end after the other": ([RECORDS, CAUGHT_UP, RECORDS, CAUGHT_UP], PASSED),
    "the end after an earlier end": ([RECORDS, CAUGHT_UP, END], REACHED),
    "an earlier end after the end": ([RECORDS, END, CAUGHT_UP], REACHED),
    "earlier end invalidated": ([RECORDS, CAUGHT_UP, INVALIDATED], REFETCH),
    "an earlier end that may be old": ([INVALIDATED, RECORDS, CAUGHT_UP], REFETCH),
    "an earlier end before it is fetched again": ([END, INVALIDATED, CAUGHT_UP], REFETCH),
    "known end invalidated": ([END, INVALIDATED], REFETCH),
    "known end invalidated after more records": ([END, RECORDS, INVALIDATED], REFETCH),
    "unknown end invalidated": ([INVALIDATED], STALE),
    "unknown end invalidated twice": ([INVALIDATED, INVALIDATED], STALE),
    "records while an old end may come": ([INVALIDATED, RECORDS], STALE),
    "an end that may be old": ([INVALIDATED, END], REFETCH),
    "two ends that may be old": ([INVALIDATED, END, END], REFETCH),
    "records before it is fetched again": ([END, INVALIDATED, RECORDS], REFETCH),
    "invalidated before it is fetched again": ([END, INVALIDATED, INVALIDATED], REFETCH),
    "fetched again": ([END, INVALIDATED, REFETCHED], UNKNOWN),
    "the end of what is fetched again": ([END, INVALIDATED, REFETCHED, END], REACHED),
}


@pytest.mark.parametrize("history", HISTORIES)
def test_end_is_known_only_if_it_cannot_be_old(history: str) -> None:
    """An end counts, except from before an invalidation."""
    signals, expected = HISTORIES[history]
    end = UNKNOWN
    for signal in signals:
        end = end.after(signal)
    assert end is expected
    assert end.valid == (expected in (REACHED, PASSED))


def test_every_transition_is_in_a_history() -> None:
    """The histories take each transition that there is at least once."""
    taken = set()
    for signals, _ in HISTORIES.values():
        end = UNKNOWN
        for signal in signals:
            taken.add((end, signal))
            end = end.after(signal)
    assert taken == {(end, signal) for end, row in TRANSITIONS.items() for signal in row}


def test_pause_of_the_process_makes_ends_doubtful() -> None:
    """They held up to the last poll; a pause of exactly PAUSE_MS is none."""
    contact = BrokerContact()
    assert contact.held_until_pause(T) is None
    assert contact.held_until_pause(T + PAUSE_MS) is None
    assert contact.held_until_pause(T + 2 * PAUSE_MS + 1) == T + PAUSE_MS


def test_lost_connection_makes_ends_doubtful_once() -> None:
    """The first error of a row counts, until a broker has answered."""
    contact = BrokerContact()
    contact.held_until_pause(T)
    contact.note_error()
    contact.note_error()
    assert contact.held_until_loss() == T
    contact.note_error()
    assert contact.held_until_loss() is None
    contact.note_answer()
    contact.note_error()
    assert contact.held_until_loss() == T


def test_silence_of_a_broker_makes_ends_doubtful_once() -> None:
    """After three answers that did not come, the ends held up to the last one that came."""
    contact = BrokerContact()
    contact.expect_answers(every_ms=500)
    contact.held_until_pause(T)
    told = []
    for idle_ms in (1_500, 1_501, 2_000, 0, 1_501):
        contact.note_statistics(statistics((idle_ms * 1000, READ)))
        told.append(contact.held_until_loss())
    assert told == [None, T - 1_501, None, None, T - 1_501]


def test_end_before_a_pause_is_as_old_as_the_last_answer() -> None:
    """Where the broker was silent before the pause, the ends held up to its last answer."""
    contact = BrokerContact()
    contact.held_until_pause(T)
    contact.note_statistics(statistics((400_000, READ)))
    assert contact.held_until_pause(T + 10_000) == T - 400


def statistics(*brokers: tuple[int, dict[str, object]]) -> str:
    """Return what librdkafka reports, of which most is left out."""
    named = {
        f"broker-{n}": {"rxidle": rxidle, "toppars": toppars, "rtt": {"p99": 1}}
        for n, (rxidle, toppars) in enumerate(brokers)
    }
    return json.dumps({"name": "rdkafka#consumer-1", "age": 1, "brokers": named})


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [
        (statistics(), 0),
        (statistics((1_500_999, READ)), 1_500),
        (statistics((2_000, READ), (3_000_000, READ)), 3_000),
        (statistics((2_000, READ), (3_000_000, {})), 2),  # nothing is read from the other
        (statistics((-1, READ)), 0),  # a new connection
    ],
)
def test_longest_silence_counts_of_brokers_that_are_read_from(text: str, expected_ms: int) -> None:
    """In ms, from the microseconds of librdkafka."""
    assert silence_ms(decode(text, type=Statistics)) == expected_ms


def test_partitions_without_a_leader_are_those_of_which_kafka_has_said_so() -> None:
    """What librdkafka tells of the partition -1 is of none."""
    topic = {"partitions": {"0": {"leader": 1}, "1": {"leader": -1}, "-1": {"leader": -1}}}
    told = decode(json.dumps({"brokers": {}, "topics": {"in": topic}}), type=Statistics)
    assert leaderless(told) == {("in", 1)}
