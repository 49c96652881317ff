"""Each record once and in order on a real Kafka, through kills, stops and pauses under load."""

import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.broker import Broker
from tests.support.cluster import Cluster
from tests.support.traffic import Traffic, catch_up, check, records_out, start, stop

KILLS = 20
SESSIONS = 200_000
READ = re.compile(r"read records after the last snapshot.* records=(\d+)")


def records_read(cluster: Cluster, process: subprocess.Popen[str]) -> int:
    """Return how many records of its output a run has read when it resumed, by its log."""
    return sum(map(int, READ.findall(cluster.errors(process))))


def wait_for_resume(cluster: Cluster, flow: subprocess.Popen[str]) -> None:
    """Wait until a run has read what the one before has left."""
    cluster.wait("a resume", lambda: READ.search(cluster.errors(flow)), 60)


@pytest.mark.timeout(600)
def test_twenty_kills_under_load_lose_and_double_nothing(cluster: Cluster) -> None:
    """kill -9 at random moments with 200,000 sessions, in restore, catch-up and steady state."""
    moments = random.Random(KILLS)
    cluster.variables["HEARTWHEEL_HEARTBEAT_MS"] = "10000"
    flow = start(cluster)
    traffic = Traffic(cluster, SESSIONS, rate=1_000)
    traffic.start_all()
    cluster.wait("all sessions", lambda: records_out(cluster) >= SESSIONS, 120)
    traffic.begin()
    reconciled = 0
    for kill in range(KILLS):
        if kill % 2:  # at work; else anywhere from its start on
            wait_for_resume(cluster, flow)
        time.sleep(moments.uniform(0, 4))
        flow.kill()
        flow.wait()
        reconciled += records_read(cluster, flow) > 0
        time.sleep(moments.choice([0, 0, 0, 2]))
        flow = start(cluster)
    wait_for_resume(cluster, flow)
    catch_up(cluster, traffic, 10)
    stopped_ms = stop(cluster, flow)
    found = check(cluster, stopped_ms)
    assert found.sessions > SESSIONS
    assert reconciled > KILLS / 3, "the kills hit nothing that was on its way"


def test_stop_under_load_needs_no_reconciliation(cluster: Cluster) -> None:
    """SIGTERM drains, waits for the acknowledgements and snapshots: the next run reads nothing."""
    traffic = Traffic(cluster, 5_000, rate=1_000)
    traffic.start_all()
    traffic.begin()
    for turn in range(3):
        flow = start(cluster)
        cluster.wait("output", lambda: records_out(cluster) > 5_000)
        time.sleep(3)
        stopped_ms = stop(cluster, flow)
        assert records_read(cluster, flow) == 0
        assert (READ.search(cluster.errors(flow)) is None) == (turn == 0)
    traffic.end()
    flow = start(cluster)
    time.sleep(5)
    stopped_ms = stop(cluster, flow)
    check(cluster, stopped_ms)


def test_paused_process_sees_the_ends_of_meanwhile_first(cluster: Cluster) -> None:
    """SIGSTOP for 15 s, then SIGCONT: no heartbeat of a session that ended in the pause."""
    flow = start(cluster)
    traffic = Traffic(cluster, 5_000, rate=500)
    traffic.start_all()
    cluster.wait("all sessions", lambda: records_out(cluster) >= 5_000)
    traffic.begin()
    time.sleep(5)
    flow.send_signal(signal.SIGSTOP)
    time.sleep(15)
    flow.send_signal(signal.SIGCONT)
    time.sleep(5)
    catch_up(cluster, traffic, 1)
    stopped_ms = stop(cluster, flow)
    found = check(cluster, stopped_ms)
    # In the pause, 15 heartbeats became due for each of some 3,000 sessions that ended.
    assert found.raced < 500, found


def test_killed_broker_under_load_loses_and_doubles_nothing(tmp_path: Path, broker: Broker) -> None:
    """A broker that dies with -9 and comes back delays the output and changes nothing else."""
    assert broker.process is not None  # the shared one proves that Kafka can be had
    own = Broker(tmp_path / "kafka")
    own.start()
    cluster = Cluster(own.address, tmp_path, "killed")
    try:
        flow = start(cluster)
        traffic = Traffic(cluster, 5_000, rate=500)
        traffic.start_all()
        cluster.wait("all sessions", lambda: records_out(cluster) >= 5_000)
        traffic.begin()
        for _ in range(2):
            time.sleep(4)
            own.stop(signal.SIGKILL)
            time.sleep(3)
            own.start()
        time.sleep(5)
        catch_up(cluster, traffic, 1)
        check(cluster, stop(cluster, flow))
    finally:
        cluster.end()
        own.stop()
