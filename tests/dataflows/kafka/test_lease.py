"""The lease: who gets it, who keeps it, who must stop, and what becomes of a call that fails."""

import json
import time
from collections.abc import Callable, Iterator
from itertools import product
from threading import Event
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError, TopicPartition
from msgspec.structs import replace

from dataflows.kafka import inherited_leases, lease_record, patience, permit
from dataflows.kafka import lease as lease_module
from dataflows.kafka.lease import Lease
from dataflows.kafka.lease_record import Held
from dataflows.kafka.permit import FOLLOWED_S, LEASE_S, FencedError, LeaseError
from dataflows.settings import Settings
from session_logic.errors import HeartwheelError
from tests.support.fake_lease import (
    ABORTABLE,
    CONFLICT,
    FATAL,
    FENCED,
    NOTHING,
    RETRIABLE,
    SILENT,
    FakeTime,
    LeaseBroker,
    LeaseProducer,
)

LIMIT_S = 20.0
TIMEOUT_S = 60
OUTCOMES = {
    "timeout": SILENT,
    "retriable": RETRIABLE,
    "abortable": ABORTABLE,
    "fatal": FATAL,
    "fenced": FENCED,
    "conflict": CONFLICT,
}
RENEWAL = ["begin_transaction", "send_offsets_to_transaction", "commit_transaction"]
TAKING_AGAIN = ["committed", "init_transactions"]


class Leases:
    """A broker, a clock, and the leases that a test takes."""

    def __init__(self) -> None:
        self.broker = LeaseBroker()
        self.clock = FakeTime()
        self.taken: list[Lease] = []

    def lease(
        self, store: str = "ours", place: str = "here", shard: str = "", ancestor: str = ""
    ) -> Lease:
        """Return a lease that is not taken yet; a store with an ancestor was resharded."""
        settings = Settings(
            delivery_timeout_ms=TIMEOUT_S * 1000,
            route="partition" if shard else "hash",
            shard=shard,
            lanes=8,
        )
        shards = settings.own_shard.shards
        own = Held(store, uuid4().hex, lock=place, owner=f"id of {store}", shards=shards)
        own = replace(own, generation=1 if ancestor else 0)
        ancestors = frozenset([f"id of {ancestor}"] if ancestor else [])
        makers = self.broker.consumer, self.broker.producer
        made = Lease(settings, own, *makers, ancestors=ancestors)
        self.taken.append(made)
        return made

    def acquire(self, store: str = "ours", place: str = "here") -> Lease:
        """Return a lease that is taken."""
        made = self.lease(store, place)
        made.acquire()
        return made

    def wait_for_renewal(self) -> None:
        """Return once the lease has been renewed again."""
        commits = self.broker.commits
        wait(lambda: self.broker.commits > commits)


@pytest.fixture
def leases(monkeypatch: pytest.MonkeyPatch) -> Iterator[Leases]:
    """Return a broker with leases on it that are renewed every 2 ms, and watched as often."""
    made = Leases()
    for module in (inherited_leases, patience, permit):
        monkeypatch.setattr(module, "time", made.clock)
    for module in (lease_module, inherited_leases, permit):
        monkeypatch.setattr(module, "boot_time_s", made.clock.boot_time_s)
    monkeypatch.setattr(lease_module, "RENEW_S", 0.002)
    monkeypatch.setattr(permit, "WATCH_S", 0.002)
    yield made
    made.broker.down = None
    for lease in made.taken:
        lease.permit.close()


def wait(condition: Callable[[], bool]) -> None:
    """Return once something is so."""
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


def ended(lease: Lease) -> HeartwheelError:
    """Return the error that ends a run which wants to write, however long it must wait."""
    with pytest.raises(HeartwheelError) as raised:
        lease.permit.check()
    return raised.value


def test_free_lease_is_taken_at_once_and_renewed(leases: Leases) -> None:
    """Nobody has had it, so nobody is waited for."""
    lease = leases.acquire()
    assert leases.broker.held()["store"] == "ours"
    assert leases.clock.slept_s == 0
    wait(lambda: leases.broker.held()["renewal"] > 2)
    lease.permit.check()
    assert leases.broker.producers == 1


@pytest.mark.parametrize(
    ("store", "place", "released"), [("ours", "here", False), ("theirs", "there", True)]
)
def test_lease_of_a_run_that_is_over_is_taken_at_once(
    leases: Leases, store: str, place: str, *, released: bool
) -> None:
    """The lock at the same place says so, or the run itself."""
    leases.broker.hold(store, released=released, place=place)
    leases.acquire()
    assert leases.clock.slept_s == 0
    assert leases.broker.held()["store"] == "ours"


@pytest.mark.parametrize(
    ("store", "place", "own"),
    [
        ("theirs", "here", "here"),
        ("ours", "there", "here"),  # a copy of the directory, or another machine
        ("ours", "", "here"),  # an earlier version
        ("ours", "", ""),
    ],
)
def test_lease_of_a_silent_run_is_taken_when_it_is_over(
    leases: Leases, caplog: pytest.LogCaptureFixture, store: str, place: str, own: str
) -> None:
    """The wait is announced when it begins, with the store that has held it."""
    leases.broker.hold(store, place=place)
    leases.acquire(place=own)
    assert leases.clock.slept_s >= LEASE_S
    assert f"waiting 30 s for the lease on session-events: a run (store {store})" in caplog.text


def test_lease_of_a_cluster_is_waited_for_although_its_first_process_is_dead(
    leases: Leases,
) -> None:
    """Another process of it may still be paused, and write when it wakes up."""
    leases.broker.hold("ours", place="here", processes=2)
    leases.acquire()
    assert FOLLOWED_S <= leases.clock.slept_s < LEASE_S


def test_lease_of_a_living_run_is_left_to_it(leases: Leases) -> None:
    """A second run stops, with the store that writes, and has not disturbed the first."""
    leases.broker.hold("theirs")
    leases.clock.meanwhile = lambda: leases.broker.hold("theirs", renewal=2)
    with pytest.raises(FencedError, match=r"written to by another run \(store theirs\)"):
        leases.acquire()
    assert leases.broker.held()["store"] == "theirs"
    assert leases.broker.producers == 0


def test_run_of_a_copied_directory_leaves_the_lease_to_the_original(leases: Leases) -> None:
    """The name of the store is the same, and the line says why."""
    leases.broker.hold("ours")
    leases.clock.meanwhile = lambda: leases.broker.hold("ours", renewal=2)
    with pytest.raises(FencedError, match="another directory has a copy of this store"):
        leases.acquire()
    assert leases.broker.producers == 0


def test_lease_that_another_run_takes_at_the_same_moment_is_left_to_it(leases: Leases) -> None:
    """It is looked at again when nobody else can take it any more."""
    leases.broker.before_grant = lambda: leases.broker.hold("theirs")
    with pytest.raises(FencedError, match=r"written to by another run \(store theirs\)"):
        leases.acquire()


def test_lease_that_a_tool_has_written_over_is_taken_once_nobody_renews_it(leases: Leases) -> None:
    """A run that is alive would write its own again."""
    leases.broker.committed = TopicPartition("session-events", 0, 7, "reset by hand")
    leases.acquire()
    assert leases.clock.slept_s >= LEASE_S
    assert leases.broker.held()["store"] == "ours"


@pytest.mark.parametrize("metadata", ["", "reset by hand", "{}[]", '{"shards": "many"}'])
def test_leases_of_all_shards_that_a_tool_has_written_over_are_taken_as_that_of_one_run(
    leases: Leases, metadata: str
) -> None:
    """Nothing tells of how many shards they were: each one that begins waits, and goes on."""
    for number in range(8):
        leases.broker.others[number] = TopicPartition("session-events", number, 0, metadata)
    for shard in ("1/2", "0/2"):
        slept_s = leases.clock.slept_s
        leases.lease(shard, shard, shard).acquire()
        assert leases.clock.slept_s >= slept_s + LEASE_S
        said = json.loads(leases.broker.offset_of(int(shard[0])).metadata)
        assert said["store"] == shard


def test_coordinator_is_looked_for_once_there_is_a_broker_to_ask(leases: Leases) -> None:
    """Before that librdkafka would ask again after half a second, with each new producer."""
    leases.acquire()
    leases.broker.script("commit_transaction", ABORTABLE)
    wait(lambda: leases.broker.producers > 1)
    leases.wait_for_renewal()
    assert leases.broker.asked_early == 0


def test_refusal_by_kafka_says_how_to_do_without(leases: Leases) -> None:
    """Some brokers allow no transactions."""
    leases.broker.script("init_transactions", FATAL)
    with pytest.raises(LeaseError, match="HEARTWHEEL_FENCING=false"):
        leases.acquire()


def test_coordinator_that_does_not_answer_is_one_line_that_says_so(leases: Leases) -> None:
    """Transactions are allowed, for all that is known."""
    leases.broker.down = SILENT
    with pytest.raises(LeaseError, match="start again once Kafka's coordinator answers"):
        leases.acquire()


@pytest.mark.parametrize("call", ["init_transactions", *RENEWAL])
def test_run_that_another_one_overtakes_while_it_begins_is_told_so(
    leases: Leases, call: str
) -> None:
    """Of two that begin at once one is fenced, and must not be told to do without the lease."""
    leases.broker.script(call, *[FENCED] * 9)
    with pytest.raises(FencedError, match="another run has just taken the lease") as caught:
        leases.acquire()
    assert "FENCING" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "outcome"),
    [
        *product(RENEWAL + TAKING_AGAIN, ["timeout", "retriable"]),
        *product([*RENEWAL, "init_transactions"], ["fenced"]),  # who reads is not
    ],
)
def test_start_while_brokers_change_places_takes_the_lease(
    leases: Leases, monkeypatch: pytest.MonkeyPatch, call: str, outcome: str
) -> None:
    """Each call may fail, and what was not answered may have been done."""
    if call == "commit_transaction":
        monkeypatch.setattr(leases.broker, "leave_open", leases.broker.take)
    leases.broker.hold("theirs", released=True)
    leases.broker.script(call, OUTCOMES[outcome], OUTCOMES[outcome])
    lease = leases.acquire(place="")
    assert leases.broker.held()["store"] == "ours"
    lease.permit.check()


def test_coordinator_that_is_to_come_is_waited_for(leases: Leases) -> None:
    """A broker that was just started has none yet."""
    leases.broker.read_errors.extend(
        [KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.NOT_COORDINATOR]
    )
    leases.acquire()
    assert leases.clock.slept_s == pytest.approx(0.2)


def test_other_error_of_the_coordinator_is_not_waited_for(leases: Leases) -> None:
    """It would not pass."""
    leases.broker.read_errors.append(KafkaError.GROUP_AUTHORIZATION_FAILED)
    with pytest.raises(LeaseError, match="cannot be taken"):
        leases.acquire()
    assert leases.clock.slept_s == 0


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("call", RENEWAL)
def test_renewal_that_fails_is_made_up_for(leases: Leases, call: str, outcome: str) -> None:
    """Whatever has failed, and however, a new producer takes the lease again."""
    lease = leases.acquire()
    leases.broker.script(call, OUTCOMES[outcome])
    wait(lambda: leases.broker.producers == 2)
    leases.wait_for_renewal()
    lease.permit.check()


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("call", TAKING_AGAIN)
def test_taking_again_that_fails_is_tried_again(leases: Leases, call: str, outcome: str) -> None:
    """Nothing of an attempt is kept for the next one."""
    lease = leases.acquire()
    leases.broker.script(call, OUTCOMES[outcome], OUTCOMES[outcome])
    leases.broker.script("commit_transaction", SILENT)
    wait(lambda: not leases.broker.outcomes[call])
    leases.wait_for_renewal()
    lease.permit.check()


@pytest.mark.parametrize("call", [*RENEWAL[1:], "init_transactions"])
def test_call_that_never_returns_is_left_and_the_lease_taken_again(
    leases: Leases, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """At a start, and while it runs; librdkafka has calls with no limit of their own."""
    for module, name in product((lease_module, lease_record), ("CALL_S", "SPARE_S")):
        monkeypatch.setattr(module, name, 0.05)
    monkeypatch.setattr(lease_module, "TIMEOUT_S", 1.0)
    over = Event()
    leases.broker.script(call, over.wait)
    lease = leases.acquire()
    taken = leases.broker.producers
    assert taken > 1
    leases.broker.script("commit_transaction", SILENT)
    leases.broker.script(call, over.wait)
    wait(lambda: leases.broker.producers > taken)
    leases.wait_for_renewal()
    lease.permit.check()
    over.set()


@pytest.mark.parametrize("call", RENEWAL + TAKING_AGAIN)
def test_unexpected_exception_ends_the_run_with_one_line(leases: Leases, call: str) -> None:
    """Else its thread would be gone, and the run would wait for ever."""
    lease = leases.acquire()
    leases.broker.script(call, ValueError("no such\nthing"))
    if call in TAKING_AGAIN:
        leases.broker.script("commit_transaction", SILENT)
    wait(lambda: not lease.permit.valid)
    error = ended(lease)
    assert isinstance(error, LeaseError)
    assert "is lost by an unexpected ValueError: no such thing" in str(error)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_lease_that_is_not_renewed_ends_the_run_after_the_timeout(
    leases: Leases, outcome: str
) -> None:
    """The line has Kafka's reason; until then a run that wants to write waits."""
    lease = leases.acquire()
    leases.broker.down = OUTCOMES[outcome]
    wait(lambda: OUTCOMES[outcome].str() in lease.permit.reason)
    leases.clock.now_s += TIMEOUT_S - 1
    error = ended(lease)
    assert isinstance(error, LeaseError)
    assert OUTCOMES[outcome].str() in str(error)
    assert leases.clock.slept_s == pytest.approx(1, abs=0.1)


def test_lease_that_is_not_renewed_ends_an_idle_run_as_well(leases: Leases) -> None:
    """It is asked at every tick, and that does not wait."""
    lease = leases.acquire()
    leases.broker.down = SILENT
    wait(lambda: SILENT.str() in lease.permit.reason)
    lease.permit.raise_if_over()
    leases.clock.now_s += TIMEOUT_S + 1
    with pytest.raises(LeaseError):
        lease.permit.raise_if_over()
    assert leases.clock.slept_s == 0


def test_lease_that_is_not_renewed_is_a_warning_with_the_reason(
    leases: Leases, caplog: pytest.LogCaptureFixture
) -> None:
    """It comes within 10 s; and again once all is well."""
    caplog.set_level("INFO")
    lease = leases.acquire()
    leases.broker.down = ABORTABLE
    wait(lambda: ABORTABLE.str() in lease.permit.reason)
    leases.clock.now_s += 9
    wait(lambda: "is not renewed" in caplog.text)
    assert "Not authorized" in caplog.text
    assert caplog.text.count("is not renewed") == 1
    leases.broker.down = None
    wait(lambda: "is renewed again" in caplog.text)


def test_run_that_could_not_renew_waits_until_it_has(leases: Leases) -> None:
    """After a pause the lease may be somebody else's."""
    lease = leases.acquire()
    leases.broker.down = RETRIABLE
    wait(lambda: RETRIABLE.str() in lease.permit.reason)
    leases.clock.now_s += LEASE_S + 1
    leases.clock.meanwhile = lambda: setattr(leases.broker, "down", None)
    lease.permit.check()
    assert leases.clock.slept_s > 0


def test_lapsed_lease_has_given_up_what_is_enqueued(leases: Leases) -> None:
    """Nobody need ask for that: all others may be waiting."""
    lease = leases.acquire()
    given_up: list[float] = []
    lease.permit.on_lapse = lambda: given_up.append(leases.clock.now_s)
    leases.wait_for_renewal()
    assert not given_up
    leases.broker.down = SILENT
    wait(lambda: SILENT.str() in lease.permit.reason)
    leases.clock.now_s += LEASE_S + 0.1
    wait(lambda: bool(given_up))


def test_run_whose_lease_another_has_taken_is_fenced_off(leases: Leases) -> None:
    """It writes nothing more, even if it was only paused."""
    lease = leases.acquire()
    leases.broker.newest = LeaseProducer(leases.broker)
    leases.broker.hold("theirs")
    error = ended_once_fenced(leases, lease)
    assert "another run has taken over output topic session-events" in str(error)
    lease.release()
    assert leases.broker.held()["store"] == "theirs"


def test_run_that_is_overtaken_while_it_takes_its_lease_again_is_fenced_off(
    leases: Leases,
) -> None:
    """The lease is looked at again when no other run can take it any more."""
    lease = leases.acquire()
    leases.broker.before_grant = lambda: leases.broker.hold("theirs")
    leases.broker.script("commit_transaction", SILENT)
    assert isinstance(ended_once_fenced(leases, lease), FencedError)
    assert leases.broker.held()["store"] == "theirs"


def ended_once_fenced(leases: Leases, lease: Lease) -> HeartwheelError:
    """Return the error of a run that another one has fenced off."""
    wait(lambda: not lease.permit.valid)
    error = ended(lease)
    assert leases.clock.slept_s == 0
    return error


def test_run_that_kafka_has_refused_takes_its_own_lease_again(leases: Leases) -> None:
    """A broker that was away may refuse a producer that nobody has fenced off."""
    lease = leases.acquire()
    leases.broker.newest = LeaseProducer(leases.broker)
    leases.wait_for_renewal()
    lease.permit.check()


def test_released_lease_says_so(leases: Leases) -> None:
    """The next run need not wait."""
    leases.acquire().release()
    assert leases.broker.held()["released"]


def test_check_of_a_start_comes_before_the_lease_changes(leases: Leases) -> None:
    """What it refuses leaves the lease as it was; else the lease has the sign from then on."""
    leases.broker.hold("theirs", released=True)
    lease = leases.lease()

    def refuse() -> None:
        raise FencedError("not ours")

    with pytest.raises(FencedError, match="not ours"):
        lease.acquire(refuse)
    assert leases.broker.held()["store"] == "theirs"
    lease.acquire()
    assert leases.broker.held()["store"] == "ours"
    assert leases.broker.held()["owner"] == "id of ours"


def test_sign_of_a_run_without_a_lease_is_no_lease(leases: Leases) -> None:
    """It says whose the topic is, and was written at a start."""
    sign = '{"owner": "ours", "place": "here", "released": true}'
    leases.broker.committed = TopicPartition("session-events", 0, 0, sign)
    leases.acquire()
    assert leases.clock.slept_s == 0


def test_lease_that_cannot_be_given_back_is_a_warning(
    leases: Leases, caplog: pytest.LogCaptureFixture
) -> None:
    """All is written, so the run has not failed."""
    lease = leases.acquire()
    assert lease.permit.close()
    leases.broker.script("commit_transaction", SILENT)
    lease.release()
    assert "the lease is not given back" in caplog.text
    assert not leases.broker.held()["released"]


@pytest.mark.parametrize(
    ("own", "other", "released", "fits"),
    [
        ("1/2", "0/2", False, True),
        ("1/4", "2/4", False, True),
        ("1/4", "0/2", False, True),
        ("1/4", "3/4", True, True),
        ("", "1/2", False, False),
        ("0/4", "2/3", False, False),
        ("3/4", "1/2", False, False),
        ("1/4", "1/2", False, False),
        ("1/4", "1/2", True, True),
    ],
)
def test_shards_of_another_number_are_kept_out_until_they_fit(
    leases: Leases, own: str, other: str, *, released: bool, fits: bool
) -> None:
    """Two with a lane in common would both write there; each sees what the other says."""
    number, shards = map(int, other.split("/"))
    held = Held("theirs", "run", released=released, shards=shards)
    leases.broker.say(number, held)
    lease = leases.lease(shard=own)
    if fits:
        lease.acquire()
        return
    with pytest.raises(FencedError, match=f"shard {other} of output topic .* and this run is "):
        lease.acquire()
    assert leases.broker.committed is NOTHING or leases.broker.held()["released"]


def old_shard(*, released: bool = False, renewal: int = 1) -> Held:
    """Return what a shard of four says of itself, before it was resharded."""
    return Held("old", "run of old", renewal, released, owner="id of old", shards=4)


@pytest.mark.parametrize("shard", ["0/8", "4/8"])
def test_shard_takes_over_from_the_killed_one_that_its_store_was_made_of(
    leases: Leases, shard: str
) -> None:
    """Once the old lease is over; it says so from then on, for the other shard that has it too."""
    leases.broker.say(0, old_shard())
    lease = leases.lease(shard=shard, ancestor="old")
    lease.acquire()
    assert LEASE_S <= leases.clock.slept_s < LEASE_S + 1
    own = leases.broker.held()
    assert (own["owner"], own["generation"], own["released"]) == ("id of ours", 1, False)
    if shard == "4/8":
        said = leases.broker.others[0].metadata
        assert '"owner":"id of old"' in said
        assert '"generation":1' in said
        other = leases.lease("other", shard="0/8", ancestor="old")
        other.acquire()
        assert leases.clock.slept_s < LEASE_S + 1, "it is over already"


@pytest.mark.parametrize("shard", ["0/8", "4/8"])
def test_shard_does_not_wait_for_one_that_was_stopped_cleanly(leases: Leases, shard: str) -> None:
    """Its lease is given back."""
    leases.broker.say(0, old_shard(released=True))
    leases.lease(shard=shard, ancestor="old").acquire()
    assert leases.clock.slept_s == 0


@pytest.mark.parametrize("shard", ["0/8", "4/8"])
def test_shard_is_refused_while_the_one_runs_that_its_store_was_made_of(
    leases: Leases, shard: str
) -> None:
    """What that one writes, the new store does not know."""
    leases.broker.say(0, old_shard())
    leases.clock.meanwhile = lambda: leases.broker.say(0, old_shard(renewal=2))
    with pytest.raises(FencedError, match=r"another run|this store was made of its store"):
        leases.lease(shard=shard, ancestor="old").acquire()
    assert leases.broker.producers == 0


def test_shard_of_another_origin_is_refused_by_one_that_was_killed(leases: Leases) -> None:
    """Only the stores that were made of its store know what it has sent."""
    leases.broker.say(0, old_shard())
    with pytest.raises(FencedError, match="or was not stopped cleanly"):
        leases.lease(shard="4/8", ancestor="another").acquire()


def test_store_that_was_resharded_is_refused_once_a_new_shard_has_begun(leases: Leases) -> None:
    """Though that one was stopped cleanly since, and has a lease of another number."""
    lease = leases.lease(shard="4/8", ancestor="old")
    lease.acquire()
    lease.release()
    with pytest.raises(FencedError, match="this store is of before"):
        leases.lease("old", shard="0/4").acquire()
    leases.lease("other", shard="1/4").acquire()  # it has none of the lanes


def test_new_shards_that_fence_one_another_off_try_again(leases: Leases) -> None:
    """They take over the leases of the same old ones at once."""
    leases.broker.say(0, old_shard())
    leases.broker.script("commit_transaction", FENCED, FENCED)
    first = leases.lease(shard="4/8", ancestor="old")
    first.acquire()
    first.permit.close()  # its renewals would meet with some of what the other one is to
    leases.broker.script("commit_transaction", *[FENCED] * 9)
    with pytest.raises(FencedError, match="another run has just taken"):
        leases.lease("other", shard="2/8", ancestor="old").acquire()
