"""The lease on a real Kafka: requests that get lost, rights that go, brokers that are away."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.check import check_whole
from tests.support.cluster import Cluster
from tests.support.proxy import Api, ProxiedBroker
from tests.support.secure import SecureBroker
from tests.support.traffic import ALL


def start(cluster: Cluster, **variables: str) -> subprocess.Popen[str]:
    """Start a run, and return it once it sends heartbeats."""
    flow = cluster.start(**ALL, **variables)
    cluster.send("Start", "p1", "s")
    cluster.flush()
    cluster.wait("a heartbeat", lambda: len(cluster.sessions().get("s", ())) > 1)
    return flow


def kill_with_a_record_unacknowledged(cluster: Cluster, broker: ProxiedBroker) -> None:
    """Kill the broker when at least one record of the run waits for it."""
    with broker.proxy.losing(Api.PRODUCE):
        cluster.wait("a record that waits", lambda: broker.proxy.lost[Api.PRODUCE])
        broker.stop(signal.SIGKILL)


def last_line(cluster: Cluster, flow: subprocess.Popen[str]) -> str:
    """Return the one line with which a run has failed; what came before it is its log."""
    lines = cluster.errors(flow).splitlines()
    assert [line for line in lines if line.startswith("heartwheel: ")] == lines[-1:], lines
    return lines[-1]


slow = pytest.mark.slow


@pytest.mark.parametrize(
    "requests",
    [
        pytest.param((Api.END_TXN,), id="commit"),
        pytest.param((Api.ADD_OFFSETS_TO_TXN,), id="begin", marks=slow),
        pytest.param((Api.TXN_OFFSET_COMMIT,), id="offset", marks=slow),
        pytest.param((Api.END_TXN, Api.INIT_PRODUCER_ID), id="abort", marks=slow),
        pytest.param((Api.END_TXN, Api.OFFSET_FETCH), id="read", marks=slow),
    ],
)
def test_request_of_the_lease_that_gets_lost_is_made_up_for(
    far_cluster: Cluster, proxied: ProxiedBroker, requests: tuple[Api, ...]
) -> None:
    """The lease is renewed again in time, and the run is not even warned of longer."""
    flow = start(far_cluster)
    proxied.proxy.lose(*requests)
    far_cluster.wait("lost requests", lambda: set(proxied.proxy.lost) == set(requests))
    far_cluster.wait_for_renewals(2, 15)
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(20) == 0, far_cluster.errors(flow)
    check_whole(far_cluster.sessions())


@slow
def test_request_of_the_lease_that_hangs_for_longer_than_its_time_is_made_up_for(
    far_cluster: Cluster, proxied: ProxiedBroker
) -> None:
    """A commit that arrives when the next producer has the lease changes nothing any more."""
    flow = start(far_cluster)
    proxied.proxy.delay(Api.END_TXN, 7)
    far_cluster.wait_for_renewals(4, 20)
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(20) == 0, far_cluster.errors(flow)
    check_whole(far_cluster.sessions())


@slow
@pytest.mark.parametrize("fencing", ["true", "false"])
def test_broker_that_goes_for_good_ends_the_run_after_the_timeout(
    far_cluster: Cluster, proxied: ProxiedBroker, fencing: str
) -> None:
    """With a lease and without, and it does not matter which errors come instead."""
    flow = start(far_cluster, HEARTWHEEL_DELIVERY_TIMEOUT_MS="5000", HEARTWHEEL_FENCING=fencing)
    kill_with_a_record_unacknowledged(far_cluster, proxied)
    assert flow.wait(20) == 1
    assert "nothing acknowledged for 5000 ms" in last_line(far_cluster, flow)


@slow
def test_broker_that_goes_for_good_while_nothing_waits_for_it_ends_the_run_with_the_lease(
    far_cluster: Cluster, proxied: ProxiedBroker
) -> None:
    """No record is late then, but nobody knows any more whether another run writes."""
    flow = far_cluster.start(HEARTWHEEL_DELIVERY_TIMEOUT_MS="5000")
    far_cluster.wait("the lease", lambda: "starting" in far_cluster.errors(flow))
    far_cluster.wait_for_renewals()
    proxied.stop(signal.SIGKILL)
    assert flow.wait(60) == 1
    assert "could not be renewed for 30 s" in last_line(far_cluster, flow)


@slow
def test_stop_while_the_broker_is_away_says_what_it_waits_for(
    far_cluster: Cluster, proxied: ProxiedBroker
) -> None:
    """It exits with 1 after the limit for a stop, because records are not acknowledged."""
    flow = start(far_cluster, HEARTWHEEL_STOP_TIMEOUT_MS="3000")
    kill_with_a_record_unacknowledged(far_cluster, proxied)
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(20) == 1
    line = last_line(far_cluster, flow)
    assert "not stopped within 3 s: Kafka has not acknowledged" in line


@slow
def test_coordinator_that_is_away_is_a_warning_and_then_the_end(
    far_cluster: Cluster, proxied: ProxiedBroker
) -> None:
    """All else works, so records would go on coming if nobody looked at the lease."""
    flow = start(far_cluster, HEARTWHEEL_DELIVERY_TIMEOUT_MS="32000")
    with proxied.proxy.losing(Api.ADD_OFFSETS_TO_TXN, Api.INIT_PRODUCER_ID):
        far_cluster.wait("a warning", lambda: "is not renewed" in far_cluster.errors(flow), 12)
        assert "(_TIMED_OUT)" in far_cluster.errors(flow)
        assert flow.wait(50) == 1
    assert "Timed out" in last_line(far_cluster, flow)
    again = far_cluster.start(**ALL)
    beats = len(far_cluster.sessions()["s"])
    far_cluster.wait("more heartbeats", lambda: len(far_cluster.sessions()["s"]) > beats)
    again.send_signal(signal.SIGTERM)
    assert again.wait(20) == 0, far_cluster.errors(again)
    check_whole(far_cluster.sessions())


@slow
@pytest.mark.usefixtures("kafka_libs")
def test_rights_that_are_revoked_are_a_warning_with_the_reason_and_then_the_end(
    tmp_path: Path,
) -> None:
    """Without its transactional id a run cannot renew its lease."""
    kafka = SecureBroker(tmp_path / "secure")
    kafka.start()
    cluster = Cluster(kafka.address, tmp_path, "revoked")
    try:
        kafka.allow_run(cluster)
        variables = kafka.scram_variables()
        flow = start(cluster, **variables, HEARTWHEEL_DELIVERY_TIMEOUT_MS="32000")
        kafka.revoke_transactions()
        cluster.wait("a warning", lambda: "is not renewed" in cluster.errors(flow), 12)
        reason = "TRANSACTIONAL_ID_AUTHORIZATION_FAILED"
        assert reason in cluster.errors(flow)
        assert flow.wait(50) == 1
        assert reason in last_line(cluster, flow)
    finally:
        cluster.end()
        kafka.stop()
