"""From where on processes without the store read the dead letters."""

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from dataflows.kafka.letter_offsets import LetterOffsets
from dataflows.settings import Settings
from tests.support.clocks import T
from tests.support.fake_kafka import Consumer, Log

TOPIC = "dead-letters"


class Group(Consumer):
    """A consumer whose commits stay, in a cluster whose dead-letter topic has two partitions."""

    def __init__(self) -> None:
        super().__init__(Log({TOPIC: 2}), lambda: T)
        self.offsets: dict[int, int] = {}
        self.error: KafkaError | None = None
        self.committed = self.found  # type: ignore[assignment]

    def _fail(self) -> None:
        if self.error is not None:
            raise KafkaException(self.error)

    def found(self, parts: list[TopicPartition], _timeout: float) -> list[TopicPartition]:
        self._fail()
        return [
            TopicPartition(part.topic, part.partition, self.offsets.get(part.partition, -1001))
            for part in parts
        ]

    def commit(self, offsets: list[TopicPartition], *, asynchronous: bool) -> None:
        assert not asynchronous
        self._fail()
        self.offsets = {part.partition: part.offset for part in offsets}


@pytest.fixture
def group() -> Group:
    """Return a group without offsets."""
    return Group()


def letters(group: Group, stored: dict[int, int] | None = None) -> LetterOffsets:
    """Return the offsets as one process sees them."""

    def make(options: dict[str, Any]) -> Any:
        assert options["group.id"] == "heartwheel-session-events"
        return group

    return LetterOffsets(Settings(), stored, make)


def test_process_that_asks_kafka_says_that_it_waits(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker stands still meanwhile, which is no reason to kill it."""
    one, found, waits = letters(group), group.found, []

    def committed(parts: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        waits.append(one.waiting)
        return found(parts, timeout)

    monkeypatch.setattr(group, "committed", committed)
    one.find()
    assert (waits, one.waiting) == ([True], False)


def test_offsets_of_the_store_are_those_of_the_other_processes(group: Group) -> None:
    """A partition that the store does not know is read from its beginning."""
    assert letters(group).find() is None
    first = letters(group, {0: 17})
    first.share()
    assert first.find() == {0: 17}
    assert letters(group).find() == {0: 17, 1: 0}


def test_new_store_has_all_read(group: Group) -> None:
    """Whatever the store before has committed."""
    letters(group, {0: 17, 1: 4}).share()
    letters(group).share()
    assert letters(group).find() == {0: 0, 1: 0}


def test_group_that_refuses_costs_time_only(group: Group) -> None:
    """All is read then."""
    group.error = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)
    letters(group, {0: 17}).share()
    assert letters(group).find() is None
