"""The lease as the other processes of a cluster follow it."""

from collections.abc import Iterator

import pytest
from confluent_kafka import TopicPartition

from dataflows.kafka import followed_lease, permit
from dataflows.kafka.followed_lease import FollowedLease
from dataflows.kafka.permit import FOLLOWED_S, FencedError, LeaseError
from dataflows.settings import Settings
from tests.support.fake_lease import RETRIABLE, FakeTime, LeaseBroker
from tests.support.waiting import wait_for

TIMEOUT_S = 60


class Follower:
    """A process that follows the lease on a broker, by a clock of the test's."""

    def __init__(self) -> None:
        self.broker = LeaseBroker()
        self.clock = FakeTime()
        settings = Settings(delivery_timeout_ms=TIMEOUT_S * 1000)
        self.lease = FollowedLease(settings, self.broker.consumer)
        self.permit = self.lease.permit
        self.renewals = 0

    def renew(self, store: str = "ours") -> None:
        """Let the first process renew its lease."""
        self.renewals += 1
        self.broker.hold(store, self.renewals)

    def look(self) -> None:
        """Let the follower look once more, at least."""
        looked = self.broker.reads
        wait_for(lambda: self.broker.reads > looked + 1)

    def begin(self) -> None:
        """Let the process begin to write."""
        self.renew()
        self.clock.meanwhile = self.renew
        self.permit.check()
        self.clock.meanwhile = lambda: None


@pytest.fixture
def follower(monkeypatch: pytest.MonkeyPatch) -> Iterator[Follower]:
    """Return a follower that looks every 2 ms."""
    clock = FakeTime()
    for module in (followed_lease, permit):
        monkeypatch.setattr(module, "boot_time_s", clock.boot_time_s)
    monkeypatch.setattr(permit, "time", clock)
    monkeypatch.setattr(followed_lease, "LOOK_S", 0.002)
    monkeypatch.setattr(permit, "WATCH_S", 0.002)
    made = Follower()
    made.clock = clock
    made.lease.acquire()
    yield made
    made.lease.release()


def test_process_may_write_while_the_first_one_renews(follower: Follower) -> None:
    """It has seen a renewal come, and not only a lease that may be a dead run's."""
    follower.renew()
    follower.look()
    assert not follower.permit.valid
    follower.begin()
    assert follower.permit.valid


def test_process_that_has_seen_renewals_before_waits_for_none(follower: Follower) -> None:
    """Its epochs would begin later than those of the others, and lanes would lose their time."""
    follower.renew()
    follower.look()
    follower.renew()
    follower.look()
    follower.permit.check()
    assert follower.clock.slept_s < FOLLOWED_S


def test_process_whose_first_one_is_gone_writes_nothing_more(follower: Follower) -> None:
    """Its right does not outlast the renewal on which it rests, however often it looks."""
    follower.begin()
    follower.look()
    follower.clock.now_s += FOLLOWED_S
    follower.look()
    assert not follower.permit.valid
    follower.renew()
    wait_for(lambda: follower.permit.valid)


def test_right_counts_from_the_last_look_that_did_not_show_the_renewal(follower: Follower) -> None:
    """The first process may have renewed just after it, and another run counts from there."""
    follower.begin()
    follower.look()
    follower.broker.down = RETRIABLE  # no look
    wait_for(lambda: RETRIABLE.str() in follower.permit.reason)
    follower.clock.now_s += FOLLOWED_S - 1
    follower.renew()
    follower.broker.down = None
    follower.look()
    follower.clock.now_s += 2
    assert not follower.permit.valid


def test_process_that_another_run_has_overtaken_ends(follower: Follower) -> None:
    """As it would if it was paused while the first process died."""
    follower.begin()
    follower.renew("theirs")
    wait_for(lambda: not follower.permit.valid)
    with pytest.raises(FencedError, match="another run has taken over output topic"):
        follower.permit.check()


def test_lease_that_a_tool_has_written_over_is_no_other_runs(follower: Follower) -> None:
    """The first process writes its own again, and until then there is no new right."""
    follower.begin()
    follower.broker.committed = TopicPartition("session-events", 0, 7, "")
    follower.look()
    follower.permit.raise_if_over()
    follower.clock.now_s += FOLLOWED_S
    follower.look()
    assert not follower.permit.valid
    follower.renew()
    wait_for(lambda: follower.permit.valid)


def test_lease_from_before_the_first_record_is_nobodys(follower: Follower) -> None:
    """A process waits for the others, and the run of before is in the lease until they begin."""
    follower.renew("before")
    follower.look()
    follower.clock.now_s += 10 * TIMEOUT_S
    follower.look()
    follower.permit.raise_if_over()
    follower.begin()
    follower.permit.check()


@pytest.mark.parametrize("act", ["nothing", "release"])
def test_lease_that_nobody_renews_ends_the_process(follower: Follower, act: str) -> None:
    """Neither a dead run's lease nor one that was given back is a right to write."""
    follower.broker.hold("ours", released=act == "release")
    jump = iter([TIMEOUT_S - 1])

    def pass_time() -> None:
        follower.clock.now_s += next(jump, 0)

    follower.clock.meanwhile = pass_time
    with pytest.raises(LeaseError, match="could not be renewed"):
        follower.permit.check()
