"""The lease: who gets it, who keeps it, and who must stop."""

import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import KafkaError

from dataflows.kafka import lease as lease_module
from dataflows.kafka.lease import LEASE_S, FencedError, Lease
from dataflows.settings import Settings
from tests.support.fake_lease import FakeTime, LeaseBroker, LeaseProducer

LIMIT_S = 5.0


class Leases:
    """A broker, a clock, and the leases that a test takes."""

    def __init__(self) -> None:
        self.broker = LeaseBroker()
        self.clock = FakeTime()
        self.taken: list[Lease] = []

    def lease(self, store: str = "ours") -> Lease:
        """Return a lease that is not taken yet."""
        made = Lease(Settings(), store, self.broker.consumer, self.broker.producer)
        self.taken.append(made)
        return made

    def acquire(self, store: str = "ours") -> Lease:
        """Return a lease that is taken."""
        made = self.lease(store)
        made.acquire()
        return made


@pytest.fixture
def leases(monkeypatch: pytest.MonkeyPatch) -> Iterator[Leases]:
    """Return a broker with leases on it that are renewed every 2 ms."""
    made = Leases()
    monkeypatch.setattr(lease_module, "time", made.clock)
    monkeypatch.setattr(lease_module, "RENEW_S", 0.002)
    yield made
    for lease in made.taken:
        if lease._thread.is_alive():
            lease.release()


def wait(condition: Callable[[], bool]) -> None:
    """Return once something is so."""
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


def test_free_lease_is_taken_at_once_and_renewed(leases: Leases) -> None:
    """Nobody has had it, so nobody is waited for."""
    lease = leases.acquire()
    assert leases.broker.held()["store"] == "ours"
    assert leases.clock.slept_s == 0
    wait(lambda: leases.broker.held()["renewal"] > 2)
    lease.check()


@pytest.mark.parametrize(("store", "released"), [("ours", False), ("theirs", True)])
def test_lease_of_a_run_that_is_over_is_taken_at_once(
    leases: Leases, store: str, *, released: bool
) -> None:
    """The lock of the store says so, or the run itself."""
    leases.broker.hold(store, released=released)
    leases.acquire()
    assert leases.clock.slept_s == 0
    assert leases.broker.held()["store"] == "ours"


def test_lease_of_a_silent_run_is_taken_when_it_is_over(
    leases: Leases, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The wait is announced when it begins, with the store that has held it."""
    leases.broker.hold("theirs")
    leases.acquire()
    assert leases.clock.slept_s >= LEASE_S
    said = capsys.readouterr().err + caplog.text
    assert "waiting 5 s for the lease on session-events: another run (store theirs)" in said


def test_lease_of_a_living_run_is_left_to_it(leases: Leases) -> None:
    """A second run stops, with the store that writes."""
    leases.broker.hold("theirs")
    leases.clock.meanwhile = lambda: leases.broker.hold("theirs", renewal=2)
    with pytest.raises(FencedError, match=r"written to by another run \(store theirs\)"):
        leases.acquire()
    assert leases.broker.held()["store"] == "theirs"


def test_lease_that_another_run_takes_at_the_same_moment_is_left_to_it(leases: Leases) -> None:
    """It is looked at again when nobody else can take it any more."""
    leases.broker.before_grant = lambda: leases.broker.hold("theirs")
    with pytest.raises(FencedError, match=r"written to by another run \(store theirs\)"):
        leases.acquire()


def test_refusal_by_kafka_says_how_to_do_without(leases: Leases) -> None:
    """Some brokers allow no transactions."""
    leases.broker.refusal = KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    with pytest.raises(FencedError, match="HEARTWHEEL_FENCING=false"):
        leases.acquire()


def test_coordinator_that_is_to_come_is_waited_for(leases: Leases) -> None:
    """A broker that was just started has none yet."""
    leases.broker.errors = [KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.NOT_COORDINATOR]
    leases.acquire()
    assert leases.clock.slept_s == pytest.approx(0.2)


def test_other_error_of_the_coordinator_is_not_waited_for(leases: Leases) -> None:
    """It would not pass."""
    leases.broker.errors = [KafkaError.GROUP_AUTHORIZATION_FAILED]
    with pytest.raises(FencedError, match="cannot be taken"):
        leases.acquire()
    assert leases.clock.slept_s == 0


def test_run_that_could_not_renew_waits_until_it_has(leases: Leases) -> None:
    """After a pause the lease may be somebody else's."""
    lease = leases.acquire()
    leases.broker.away = True
    leases.clock.now_s += LEASE_S + 1
    leases.clock.meanwhile = lambda: setattr(leases.broker, "away", False)
    lease.check()
    assert leases.clock.slept_s > 0


def test_run_whose_lease_another_has_taken_is_fenced_off(leases: Leases) -> None:
    """It writes nothing more, even if it was only paused."""
    lease = leases.acquire()
    leases.broker.newest = LeaseProducer(leases.broker)
    leases.broker.hold("theirs")
    leases.clock.now_s += LEASE_S + 1
    with pytest.raises(FencedError, match="another run has taken over output topic session-events"):
        lease.check()
    lease.release()
    assert leases.broker.held()["store"] == "theirs"


def test_run_that_kafka_has_refused_takes_its_own_lease_again(leases: Leases) -> None:
    """A broker that was away may refuse a producer that nobody has fenced off."""
    lease = leases.acquire()
    leases.broker.newest = LeaseProducer(leases.broker)
    renewals = leases.broker.commits
    wait(lambda: leases.broker.commits > renewals)
    lease.check()


def test_released_lease_says_so(leases: Leases) -> None:
    """The next run need not wait."""
    leases.acquire().release()
    assert leases.broker.held()["released"]


def test_check_of_a_start_comes_before_the_lease_changes(leases: Leases) -> None:
    """What it refuses leaves the lease as it was; else the lease has the sign from then on."""
    leases.broker.hold("theirs", released=True)
    sign = {"owner": "ours", "place": "here"}
    lease = Lease(Settings(), "s", leases.broker.consumer, leases.broker.producer, sign)
    leases.taken.append(lease)

    def refuse() -> None:
        raise FencedError("not ours")

    with pytest.raises(FencedError, match="not ours"):
        lease.acquire(refuse)
    assert leases.broker.held()["store"] == "theirs"
    lease.acquire()
    assert leases.broker.held()["owner"] == "ours"
