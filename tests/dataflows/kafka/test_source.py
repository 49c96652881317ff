"""Kafka as a Bytewax source, with a Kafka in memory."""

import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError

from dataflows.kafka.source_errors import source_error
from dataflows.messages import PartitionBatch
from session_logic.errors import ConfigError
from tests.support.clocks import T
from tests.support.fake_input import FakeInput


def test_parts_are_all_partitions_of_the_input_topics() -> None:
    """Each has a name that Bytewax stores."""
    assert FakeInput(3).source().list_parts() == ["in/0", "in/1", "in/2"]


def test_missing_topic_is_named() -> None:
    """Before anything is read."""
    fake = FakeInput()
    del fake.log.topics["in"]
    with pytest.raises(ConfigError, match="input topic in does not exist"):
        fake.source().check()


def test_batch_has_the_messages_and_the_progress() -> None:
    """The last one says that the end is reached; then there is nothing but renewals."""
    fake = FakeInput(2)
    source = fake.source()
    source.list_parts()
    part = source.build_part("source", "in/1", 0)
    fake.append(1, T)
    fake.fetch(1)
    (batch,) = part.next_batch()
    assert (batch.topic, batch.partition, batch.platform) == ("in", 1, "pc")
    assert batch.messages == [(0, T, b"k", b"v", True)]
    assert batch.progress is not None
    assert (batch.progress.part, batch.progress.parts) == ("in/1", 2)
    assert batch.progress.watermark_ms is None
    (renewal,) = part.next_batch()
    assert renewal.messages == []
    assert part.next_batch() == []


def test_first_epoch_of_a_new_partition_has_no_messages() -> None:
    """Only the word that it begins, also before a stop; where it ends is known all the same."""
    fake = FakeInput()
    source = fake.source()
    source.list_parts()
    part = source.build_part("source", "in/0", None)
    fake.append(0, T)
    fake.fetch(0)
    fake.run.stop.set()
    assert part.next_batch() == [PartitionBatch("in", 0, "pc", [], None, begins=True)]
    fake.run.stop.clear()
    assert [batch.messages for batch in part.next_batch()] == []
    assert part.snapshot() == OFFSET_BEGINNING
    (batch,) = part.next_batch()
    assert (len(batch.messages), batch.begins) == (1, False)
    assert part.snapshot() == 1


def test_stop_is_told_once_then_the_partition_ends() -> None:
    """What has not been taken comes at the next start."""
    fake = FakeInput()
    source = fake.source()
    part = source.build_part("source", "in/0", 0)
    fake.append(0, T)
    fake.fetch(0)
    fake.run.stop.set()
    assert part.next_batch() == [PartitionBatch("in", 0, "pc", [], None, stop=True)]
    with pytest.raises(StopIteration):
        part.next_batch()


def test_offsets_are_committed_when_their_snapshot_is_complete() -> None:
    """Bytewax asks for the next batch only then; the first partition says so for all."""
    fake = FakeInput(2)
    source = fake.source()
    first, second = (source.build_part("source", f"in/{number}", 0) for number in (0, 1))
    fake.append(0, T, T)
    fake.append(1, T)
    fake.fetch(0, 1)
    first.next_batch()
    second.next_batch()
    assert (first.snapshot(), second.snapshot()) == (2, 1)
    assert fake.committer.committed == {}
    second.next_batch()
    assert fake.committer.committed == {}
    first.next_batch()
    assert fake.committer.committed == {("in", 0): 2, ("in", 1): 1}
    fake.committer.committed.clear()
    first.next_batch()
    assert fake.committer.committed == {}


def test_last_offsets_are_committed_at_the_end() -> None:
    """Those of the last snapshot of each partition, once, when the last partition closes."""
    fake = FakeInput(2)
    source = fake.source()
    parts = [source.build_part("source", f"in/{number}", 0) for number in (0, 1)]
    fake.append(0, T)
    fake.append(1, T, T)
    fake.fetch(0, 1)
    for part in parts:
        part.next_batch()
    for part in parts:
        part.snapshot()
        part.close()
    assert fake.committer.committed == {("in", 0): 1, ("in", 1): 2}
    assert fake.committer.closed


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (KafkaError._AUTO_OFFSET_RESET, "`heartwheel store skip` goes on without"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "docs/security.md lists the rights"),
        (KafkaError._BAD_COMPRESSION, "HEARTWHEEL_CONSUMER_RECEIVE_MESSAGE_MAX_BYTES"),
        (KafkaError._FATAL, "input in/3: "),
    ],
)
def test_error_of_kafka_says_what_to_do(code: int, hint: str) -> None:
    """One line with the partition, Kafka's words and the next step."""
    text = str(source_error("in", 3, KafkaError(code)))
    assert text.startswith("input in/3: ")
    assert hint in text
    assert "\n" not in text
