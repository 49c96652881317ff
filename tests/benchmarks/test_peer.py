"""When a record that was written in a transaction may be read."""

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Message

from benchmarks.peer import committed


def record(partition: int, offset: int, time_ms: int) -> Message:
    when = (TIMESTAMP_LOG_APPEND_TIME, time_ms)
    return Message(partition=partition, offset=offset, timestamp=when)


def readable(*records: Message) -> list[tuple[int | None, int]]:
    return [(message.offset(), time_ms) for time_ms, message in committed(records)]


def test_record_may_be_read_when_the_transaction_is_over() -> None:
    """The record behind the marker, which takes an offset, tells when that was."""
    found = readable(record(0, 0, 10), record(0, 1, 15), record(0, 3, 110), record(0, 5, 200))
    assert found == [(0, 110), (1, 110), (3, 200), (5, 200)]


def test_last_transaction_of_a_partition_is_over_with_its_last_record() -> None:
    """The next partition says nothing of it."""
    found = readable(record(0, 7, 10), record(0, 8, 20), record(1, 9, 500))
    assert found == [(7, 20), (8, 20), (9, 500)]
