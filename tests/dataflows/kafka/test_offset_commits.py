"""Offsets committed for monitoring, with a Kafka in memory that answers late or refuses."""

import logging

import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError

from dataflows.kafka import offset_commits
from dataflows.kafka.offset_commits import OffsetCommitter
from tests.support.fake_input import FakeInput

WHERE = ("in", 0)


class Committing(FakeInput):
    """A committer, and the client that it commits with."""

    def __init__(self) -> None:
        super().__init__()
        self.offsets = OffsetCommitter(self.settings, self.committer.configure)


def test_partition_that_nothing_was_read_from_is_left_out() -> None:
    """It has no offset yet, only the place to begin."""
    fake = Committing()
    fake.offsets.commit({WHERE: 4, ("in", 1): OFFSET_BEGINNING})
    assert fake.committer.committed == {WHERE: 4}


def test_one_commit_is_under_way_at_a_time() -> None:
    """While Kafka has not answered, nothing is sent, and nobody waits."""
    fake = Committing()
    fake.committer.answers_commits = False
    fake.offsets.commit({WHERE: 4})
    fake.offsets.commit({WHERE: 5})
    assert fake.committer.committed == {WHERE: 4}
    fake.committer.answers_commits = True
    fake.offsets.commit({WHERE: 6})
    assert fake.committer.committed == {WHERE: 6}


def test_refused_commit_is_logged_once_until_one_succeeds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The run goes on without."""
    fake = Committing()
    caplog.set_level(logging.WARNING)
    refused = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)
    counts = []
    for error in (refused, refused, None, refused):
        fake.committer.commit_error = error
        fake.offsets.commit({WHERE: 4})
        fake.offsets.commit({})  # takes the answer
        counts.append(len(caplog.records))
    assert counts == [1, 1, 1, 2]


@pytest.mark.parametrize("code", [KafkaError._TRANSPORT, KafkaError.COORDINATOR_LOAD_IN_PROGRESS])
def test_error_that_passes_by_itself_is_not_logged(
    caplog: pytest.LogCaptureFixture, code: int
) -> None:
    """The next commit has the newer offsets."""
    fake = Committing()
    fake.committer.commit_error = KafkaError(code)
    fake.offsets.commit({WHERE: 4})
    fake.offsets.commit({WHERE: 5})
    assert caplog.records == []
    assert fake.committer.committed == {WHERE: 5}


def test_last_offsets_are_committed_after_the_commit_that_is_under_way() -> None:
    """Then the client is closed, and further offsets are ignored."""
    fake = Committing()
    fake.offsets.commit({WHERE: 4})
    fake.offsets.close({WHERE: 5})
    fake.offsets.commit({WHERE: 6})
    fake.offsets.close({WHERE: 6})
    assert fake.committer.committed == {WHERE: 5}
    assert fake.committer.closed


def test_stop_does_not_wait_for_a_kafka_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client is left open, because closing it would wait."""
    monkeypatch.setattr(offset_commits, "CLOSE_S", 0)
    fake = Committing()
    fake.committer.answers_commits = False
    fake.offsets.commit({WHERE: 4})
    fake.offsets.close({WHERE: 5})
    assert fake.committer.committed == {WHERE: 4}
    assert not fake.committer.closed
