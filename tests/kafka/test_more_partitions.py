"""Partitions that are added to the topics to which lanes write, on a real Kafka."""

import subprocess
from pathlib import Path

import pytest
from confluent_kafka.admin import NewPartitions

from tests.support.cluster import Cluster
from tests.support.command import command
from tests.support.ports import free_port
from tests.support.traffic import (
    Traffic,
    catch_up,
    check,
    start,
    start_under_load,
    stop,
    wait_for_more,
)

ADDED = "partitions were added to a topic that lanes write to"
MORE = "has more partitions than there are lanes"


def add_partitions(cluster: Cluster, beats: str) -> None:
    """Give the output topic one more partition, and that of heartbeats two."""
    more = [NewPartitions(cluster.output, 5), NewPartitions(beats, 6)]
    for added in cluster.admin.create_partitions(more).values():
        added.result()


def partitions_with_records(cluster: Cluster, topic: str) -> set[int]:
    """Return which partitions of a topic were written to."""
    return {record.partition for record in cluster.read(topic)}


@pytest.mark.timeout(300)
def test_run_whose_topics_were_given_partitions_goes_on_after_a_kill_and_a_stop(
    cluster: Cluster, tmp_path: Path
) -> None:
    """It says so of each topic, loses and doubles nothing, and can be recorded and replayed."""
    beats = cluster.give_heartbeats_a_topic()
    flow, traffic = start_under_load(cluster, 1_000, rate=300)
    wait_for_more(cluster, 1_000)
    add_partitions(cluster, beats)
    cluster.wait("a line for each", lambda: cluster.errors(flow).count(ADDED) == 2)
    wait_for_more(cluster, 1_000)
    flow.kill()
    flow.wait()
    assert command("store", "check", **cluster.variables).returncode == 0
    for what in ("check", "create"):
        topics = command("topics", what, "--retention", "1h", **cluster.variables)
        assert (topics.returncode, topics.stdout.count("a run whose store has")) == (0, 2)
    flow = start(cluster)
    wait_for_more(cluster, 4_000)
    stop(cluster, flow)
    assert cluster.errors(flow).count(MORE) == 2
    flow = start(cluster)
    wait_for_more(cluster, 1_000)
    through_ms = catch_up(cluster, traffic)
    stop(cluster, flow)
    assert ADDED not in cluster.errors(flow)
    check(cluster, through_ms)
    for topic in (cluster.output, beats):
        assert partitions_with_records(cluster, topic) == {0, 1, 2, 3}
    path = str(tmp_path / "recording")
    assert command("record", path, **cluster.variables).returncode == 0
    replayed = command("replay", path, "--check", "--last-ms", "300")
    assert (replayed.returncode, "differences 0" in replayed.stdout) == (0, True), replayed


def start_two(cluster: Cluster) -> list[subprocess.Popen[str]]:
    """Start a cluster of two processes, of which the first one alone sees the store."""
    addresses = f"127.0.0.1:{free_port()};127.0.0.1:{free_port()}"
    folders = [str(cluster.folder / f"recovery-{number}") for number in range(2)]
    return [
        start(cluster, "run", "-i", str(number), "-a", addresses, HEARTWHEEL_RECOVERY_DIR=folder)
        for number, folder in enumerate(folders)
    ]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_cluster_whose_first_process_alone_has_the_store_goes_on(cluster: Cluster) -> None:
    """The first process decides: it refuses a new store, and warns of one that has written."""
    beats = cluster.give_heartbeats_a_topic()
    flows = start_two(cluster)
    traffic = Traffic(cluster, 500, 100)
    traffic.start_all()
    cluster.wait("all sessions", lambda: cluster.records_out() >= 500, 120)
    traffic.begin()
    add_partitions(cluster, beats)
    wait_for_more(cluster, 500)
    for flow in flows:
        flow.kill()
        flow.wait()
    first, other = flows = start_two(cluster)
    wait_for_more(cluster, 1_000)
    through_ms = catch_up(cluster, traffic)
    stop(cluster, *flows)
    assert (cluster.errors(first).count(MORE), cluster.errors(other).count(MORE)) == (2, 0)
    check(cluster, through_ms)
    (cluster.folder / "recovery-0").rename(cluster.folder / "other")
    first, other = start_two(cluster)
    assert first.wait(60) == 2
    assert "has 5 partitions, not 4" in cluster.errors(first).splitlines()[-1]
    assert other.poll() is None
