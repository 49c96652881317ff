"""Each record once and in order on a real Kafka, through kills, stops and pauses under load."""

import random
import re
import signal
import subprocess
import time

import pytest

from tests.support.broker import Broker
from tests.support.cluster import Cluster
from tests.support.traffic import catch_up, check, start, start_under_load, stop, wait_for_more

LAPSED = re.compile(r"lease .*not (be )?renewed (in time|for)")
READ = re.compile(r"read records after the last snapshot.* records=(\d+)")


def records_read(cluster: Cluster, process: subprocess.Popen[str]) -> int:
    """Return how many records of its output a run has read when it resumed, by its log."""
    return sum(map(int, READ.findall(cluster.errors(process))))


def wait_for_resume(cluster: Cluster, flow: subprocess.Popen[str]) -> None:
    """Wait until a run has read what the one before has left."""
    cluster.wait("a resume", lambda: READ.search(cluster.errors(flow)), 60)


@pytest.mark.parametrize(
    ("kills", "sessions", "heartbeat_ms"),
    [
        pytest.param(4, 5_000, 1_000, id="4-kills"),
        pytest.param(6, 200_000, 10_000, id="6-kills", marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(600)
def test_kills_under_load_lose_and_double_nothing(
    cluster: Cluster, kills: int, sessions: int, heartbeat_ms: int
) -> None:
    """kill -9 at random moments of restore, catch-up and steady state."""
    moments = random.Random(kills)
    cluster.variables["HEARTWHEEL_HEARTBEAT_MS"] = str(heartbeat_ms)
    flow, traffic = start_under_load(cluster, sessions, rate=1_000)
    reconciled = 0
    for kill in range(kills):
        if kill % 2 == 0:  # at work; else anywhere from its start on
            wait_for_more(cluster, 1)
        time.sleep(moments.uniform(0, 4))
        flow.kill()
        flow.wait()
        reconciled += records_read(cluster, flow) > 0
        time.sleep(moments.choice([0, 0, 0, 2]))
        flow = start(cluster)
    wait_for_resume(cluster, flow)
    through_ms = catch_up(cluster, traffic)
    reconciled += records_read(cluster, flow) > 0
    stop(cluster, flow)
    found = check(cluster, through_ms)
    assert found.sessions > sessions
    assert reconciled > kills / 4, "the kills hit nothing that was on its way"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_within_a_moment_of_many_sessions_lose_and_double_nothing(cluster: Cluster) -> None:
    """With timestamps of whole seconds a lane has more in one millisecond than one call fires."""
    cluster.variables["HEARTWHEEL_HEARTBEAT_MS"] = "10000"
    begin_ms = time.time_ns() // 1_000_000_000 * 1_000
    for number in range(90_000):
        cluster.send("Start", f"p-many-{number}", f"many-{number}", begin_ms)
    cluster.flush()
    flow, traffic = start_under_load(cluster, 1_000, rate=200)
    reconciled = 0
    for moment_s in (0, 0.1, 0.3):
        wait_for_more(cluster, 30_000)
        time.sleep(moment_s)
        flow.kill()
        flow.wait()
        reconciled += records_read(cluster, flow) > 0
        flow = start(cluster)
    wait_for_resume(cluster, flow)
    through_ms = catch_up(cluster, traffic)
    reconciled += records_read(cluster, flow) > 0
    stop(cluster, flow)
    found = check(cluster, through_ms)
    assert found.sessions > 90_000
    assert reconciled


def test_stop_under_load_needs_no_reconciliation(cluster: Cluster) -> None:
    """SIGTERM drains, waits for the acknowledgements and snapshots: the next run reads nothing."""
    flow, traffic = start_under_load(cluster, 5_000, rate=1_000)
    for turn in range(3):
        wait_for_more(cluster, 10_000)
        stop(cluster, flow)
        assert records_read(cluster, flow) == 0
        assert (READ.search(cluster.errors(flow)) is None) == (turn == 0)
        flow = start(cluster)
    through_ms = catch_up(cluster, traffic)
    stop(cluster, flow)
    check(cluster, through_ms)


@pytest.mark.parametrize(
    "pause_s", [pytest.param(4, id="short"), pytest.param(15, id="long", marks=pytest.mark.slow)]
)
def test_paused_process_sees_the_ends_of_meanwhile_first(cluster: Cluster, pause_s: int) -> None:
    """SIGSTOP, then SIGCONT: no heartbeat of a session that ended in the pause."""
    flow, traffic = start_under_load(cluster, 5_000, rate=500)
    wait_for_more(cluster, 10_000)
    flow.send_signal(signal.SIGSTOP)
    time.sleep(pause_s)
    flow.send_signal(signal.SIGCONT)
    wait_for_more(cluster, 10_000)
    through_ms = catch_up(cluster, traffic)
    stop(cluster, flow)
    # In the pause of 15 s, 15 heartbeats became due for each of some 3,000 sessions that ended.
    found = check(cluster, through_ms)
    assert found.raced < 500, found


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kills", [pytest.param(1, id="once"), pytest.param(2, id="twice")])
def test_killed_broker_under_load_loses_and_doubles_nothing(
    own_kafka: Broker, own_cluster: Cluster, kills: int
) -> None:
    """A broker that dies with -9 and comes back delays the output and changes nothing else.

    Senders deliver what they held late; a late start brings its newest ten heartbeats.
    """
    own_cluster.variables["HEARTWHEEL_HEARTBEAT_MS"] = "10000"
    flow, traffic = start_under_load(own_cluster, 2_000, rate=500)
    first = flow
    for _ in range(kills):
        wait_for_more(own_cluster, 2_000)
        own_kafka.stop(signal.SIGKILL)
        time.sleep(1)
        own_kafka.start()
        own_cluster.wait_for_renewals(3, 60, flow)
        if flow.poll() is not None:  # on a slow machine, Kafka is away for longer than a lease
            assert LAPSED.search(own_cluster.errors(flow)), own_cluster.errors(flow)
            flow = start(own_cluster)
            own_cluster.wait_for_renewals(seconds=60)
    through_ms = catch_up(own_cluster, traffic)
    stop(own_cluster, flow)
    check(own_cluster, through_ms)
    (line,) = [line for line in own_cluster.errors(first).splitlines() if "[kafka]" in line][:1]
    assert "[warning" in line
    assert "facility=FAIL" in line
