"""Where a partition begins to be read, with a Kafka in memory."""

import pytest
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaError, TopicPartition

from dataflows.kafka.source_errors import SourceError
from tests.support.clocks import T
from tests.support.fake_input import FakeInput


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
