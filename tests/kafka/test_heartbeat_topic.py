"""Heartbeats in a topic of their own on a real Kafka: through kills, and turned on and off."""

import subprocess

import pytest

from session_logic.events import Heartbeat
from tests.support.cluster import Cluster
from tests.support.ports import free_port
from tests.support.traffic import (
    Traffic,
    catch_up,
    check,
    kill_under_load,
    start,
    start_under_load,
    stop,
    wait_for_more,
)


def only_heartbeats(cluster: Cluster, topic: str) -> set[bool]:
    """Return whether the records of a topic are heartbeats."""
    return {isinstance(event, Heartbeat) for event in cluster.events(topic)}


@pytest.mark.timeout(600)
def test_kills_under_load_lose_and_double_nothing_in_both_topics(cluster: Cluster) -> None:
    """kill -9 at random moments: each topic gets what it lacks, and nothing twice."""
    beats = cluster.give_heartbeats_a_topic()
    found = kill_under_load(cluster, 5_000, rate=1_000, more=2_000, pause_s=3)
    assert found.sessions > 5_000
    assert only_heartbeats(cluster, cluster.output) == {False}
    assert only_heartbeats(cluster, beats) == {True}


@pytest.mark.timeout(600)
def test_topic_is_turned_on_and_off_under_load_after_clean_stops_alone(cluster: Cluster) -> None:
    """Nothing is lost or doubled; after a kill the change is refused with a line, and works later.

    Another topic takes the place of the first one, and heartbeats come back to the output.
    """
    flow, traffic = start_under_load(cluster, 2_000, rate=500)
    for turn in ("on", "another", "off"):
        wait_for_more(cluster, 2_000)
        before = dict(cluster.variables)
        flow.kill()
        flow.wait()
        if turn == "off":
            del cluster.variables["HEARTWHEEL_HEARTBEAT_TOPIC"]
        else:
            cluster.give_heartbeats_a_topic()
        after = dict(cluster.variables)
        refused = start(cluster)
        assert refused.wait(60) == 2
        line = cluster.errors(refused).splitlines()[-1]
        assert "start it as it was, stop it with SIGTERM once it is ready" in line
        assert "Traceback" not in cluster.errors(refused)
        cluster.variables = before
        flow = start(cluster)
        wait_for_more(cluster, 4_000)
        stop(cluster, flow)
        cluster.variables = after
        flow = start(cluster)
    wait_for_more(cluster, 2_000)
    through_ms = catch_up(cluster, traffic)
    stop(cluster, flow)
    check(cluster, through_ms)
    assert all(only_heartbeats(cluster, topic) == {True} for topic in cluster.heartbeat_topics)


def start_two(cluster: Cluster) -> list[subprocess.Popen[str]]:
    """Start a cluster of two processes that makes up for every heartbeat."""
    addresses = f"127.0.0.1:{free_port()};127.0.0.1:{free_port()}"
    return [start(cluster, "run", "-i", str(number), "-a", addresses) for number in range(2)]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_cluster_that_is_killed_and_changed_loses_and_doubles_nothing(cluster: Cluster) -> None:
    """Its processes store other topics before one of them sends, and all end with one of them."""
    flows = start_two(cluster)
    traffic = Traffic(cluster, 1_000, 200)
    traffic.start_all()
    cluster.wait("all sessions", lambda: cluster.records_out() >= 1_000, 120)
    traffic.begin()
    for turn in ("on", "off"):
        wait_for_more(cluster, 2_000)
        stop(cluster, *flows)
        if turn == "on":
            cluster.give_heartbeats_a_topic()
        else:
            del cluster.variables["HEARTWHEEL_HEARTBEAT_TOPIC"]
        flows = start_two(cluster)
        for killed in range(2):
            wait_for_more(cluster, 2_000)
            flows[killed].kill()
            for flow in flows:
                flow.wait(60)
            flows = start_two(cluster)
        wait_for_more(cluster, 20_000)  # by then what was found has been made again
    through_ms = catch_up(cluster, traffic)
    stop(cluster, *flows)
    check(cluster, through_ms)
    assert only_heartbeats(cluster, cluster.heartbeat_topics[0]) == {True}
