"""Input topics that are retired, made anew, or get more partitions, on a real Kafka."""

import signal
import subprocess

import pytest
from confluent_kafka import Producer, TopicCollection
from confluent_kafka.admin import NewPartitions

from tests.support.broker import create_topics
from tests.support.cluster import Cluster
from tests.support.command import command
from tests.support.events import kinds

pytestmark = pytest.mark.slow


def stop(cluster: Cluster, flow: subprocess.Popen[str]) -> None:
    """Stop a run cleanly."""
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(30) == 0, cluster.errors(flow)


def make_anew(cluster: Cluster) -> None:
    """Delete the pc topic, and make it again."""
    for deleted in cluster.admin.delete_topics([cluster.pc]).values():
        deleted.result()
    cluster.wait("deletion", lambda: cluster.pc not in cluster.admin.list_topics(timeout=5).topics)
    create_topics(cluster.admin, {cluster.pc: 2})


def topic_id(cluster: Cluster) -> str:
    """Return the id of the pc topic as the broker says it."""
    found = cluster.admin.describe_topics(TopicCollection([cluster.pc]))[cluster.pc]
    return str(found.result(10).topic_id)


def beats(cluster: Cluster, session: str) -> int:
    """Return how many records of a session are out."""
    return len(cluster.sessions().get(session, []))


@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_partitions_that_are_added_while_it_runs_are_read_at_once(
    cluster: Cluster, start: str
) -> None:
    """From their beginning, whatever the settings say, and each record once after a restart."""
    flow = cluster.start(HEARTWHEEL_START=start)
    cluster.wait("a start", lambda: "reading" in cluster.errors(flow))
    cluster.admin.create_partitions([NewPartitions(cluster.pc, 4)])[cluster.pc].result()
    producer = Producer({"bootstrap.servers": cluster.address})
    for partition in (2, 3):
        value = f'{{"type":"GameStart","device_id":"p{partition}","session_id":"s{partition}"}}'
        producer.produce(cluster.pc, value, f"p{partition}", partition)
    assert producer.flush(10) == 0
    cluster.wait("sessions", lambda: {"s2", "s3"} <= cluster.sessions().keys())
    assert "partitions were added to an input topic" in cluster.errors(flow)
    flow.kill()
    flow.wait()
    before = beats(cluster, "s2")
    flow = cluster.start(HEARTWHEEL_START=start)
    cluster.wait("heartbeats", lambda: beats(cluster, "s2") >= before + 2)
    stop(cluster, flow)
    for session in cluster.sessions().values():
        assert kinds(session).count("active") == 1


def test_retired_topic_is_left_and_read_on_when_it_comes_back(cluster: Cluster) -> None:
    """Its sessions go on; what was sent to it meanwhile is read then, and nothing twice."""
    flow = cluster.start()
    cluster.send("Start", "c1", "console")
    cluster.send("Start", "p1", "pc")
    cluster.flush()
    cluster.wait("sessions", lambda: {"console", "pc"} <= cluster.sessions().keys())
    stop(cluster, flow)
    before = beats(cluster, "pc")
    flow = cluster.start(HEARTWHEEL_INPUT_TOPICS=f"{cluster.console}=console")
    cluster.wait("heartbeats", lambda: beats(cluster, "pc") >= before + 2)
    assert f"part={cluster.pc}/" in cluster.errors(flow)
    cluster.send("End", "p1", "pc")
    cluster.send("Start", "p2", "meanwhile")
    cluster.flush()
    stop(cluster, flow)
    flow = cluster.start()
    cluster.wait("the end", lambda: kinds(cluster.sessions()["pc"])[-1] == "end ended")
    cluster.wait("the other", lambda: "meanwhile" in cluster.sessions())
    stop(cluster, flow)
    assert kinds(cluster.sessions()["pc"]).count("active") == 1


def test_topic_that_was_made_anew_is_refused_with_both_ids(cluster: Cluster) -> None:
    """Stopped and running; 30 of its 80 records would be read otherwise."""
    flow = cluster.start()
    for number in range(50):
        cluster.send("Start", "p1", f"old-{number}")
    cluster.flush()
    cluster.wait("sessions", lambda: len(cluster.sessions()) == 50)
    stop(cluster, flow)
    before = topic_id(cluster)
    make_anew(cluster)
    for number in range(80):
        cluster.send("Start", "p1", f"new-{number}")
    cluster.flush()
    after = topic_id(cluster)
    flow = cluster.start()
    assert flow.wait(30) == 2
    last = cluster.errors(flow).splitlines()[-1]
    assert before in last
    assert after in last
    assert f"store skip --anew {cluster.pc}" in last
    assert not any(session.startswith("new") for session in cluster.sessions())
    checked = command("store", "check", **cluster.variables)
    assert checked.returncode == 1
    assert checked.stdout.splitlines()[1:] == [last.removeprefix("heartwheel: ")]
    skip = ("store", "skip", "--anew", cluster.pc, "--yes")
    assert command(*skip, **cluster.variables).returncode == 0
    assert command("store", "check", **cluster.variables).returncode == 0
    flow = cluster.start()
    new = {f"new-{number}" for number in range(80)}
    cluster.wait("all of the new topic", lambda: new <= cluster.sessions().keys())
    stop(cluster, flow)


def test_topic_that_is_made_anew_while_it_is_read_ends_the_run(cluster: Cluster) -> None:
    """Within a look at the topics, and the next start is refused as well."""
    flow = cluster.start()
    cluster.send("Start", "p1", "one")
    cluster.flush()
    cluster.wait("session", lambda: "one" in cluster.sessions())
    before = topic_id(cluster)
    make_anew(cluster)
    assert flow.wait(40) == 2
    assert before in cluster.errors(flow).splitlines()[-1]
    flow = cluster.start()
    assert flow.wait(30) == 2
    assert before in cluster.errors(flow).splitlines()[-1]


def test_compacted_output_is_a_warning_of_the_run(cluster: Cluster) -> None:
    """It is said once, and only of that topic."""
    cluster.configure(cluster.output, "cleanup.policy", "compact")
    flow = cluster.start()
    cluster.wait("the warning", lambda: "is compacted" in cluster.errors(flow))
    stop(cluster, flow)
    (line,) = [line for line in cluster.errors(flow).splitlines() if "is compacted" in line]
    assert cluster.output in line
    assert "cleanup.policy=delete" in line
