"""Topics of a real Kafka that no longer fit the store: refused, found by the check, skipped."""

import signal
import subprocess
from collections.abc import Callable

import pytest
from confluent_kafka import Producer, TopicPartition

from session_logic.codec import decode_output
from session_logic.events import Heartbeat
from tests.support.broker import create_topics
from tests.support.cluster import Cluster
from tests.support.command import command

STRAY = b"\xff not of Heartwheel"


def expire_input(cluster: Cluster) -> str:
    """Delete events that nobody has read, among them the end of the session."""
    cluster.send("End", "p1", "s1")
    cluster.flush()
    parts = [TopicPartition(cluster.pc, partition, -1) for partition in range(2)]
    for future in cluster.admin.delete_records(parts).values():
        future.result()
    return "records have expired unread"


def cut_input(cluster: Cluster) -> str:
    """Make the topic again, shorter than it was."""
    for future in cluster.admin.delete_topics([cluster.pc]).values():
        future.result()
    cluster.wait("no topic", lambda: cluster.pc not in cluster.admin.list_topics().topics)
    create_topics(cluster.admin, {cluster.pc: 2})
    return "the topic was cut or made anew"


def stray_output(cluster: Cluster) -> str:
    """Write to the output topic."""
    producer = Producer({"bootstrap.servers": cluster.address, "log_level": "0"})
    for lane in range(4):
        producer.produce(cluster.output, STRAY, partition=lane)
    assert producer.flush(10) == 0
    return "is not Heartwheel's"


@pytest.mark.slow
@pytest.mark.parametrize("harm", [expire_input, cut_input, stray_output])
def test_start_is_refused_and_goes_on_with_the_sessions_after_a_skip(
    cluster: Cluster, harm: Callable[[Cluster], str]
) -> None:
    """The session that was active before has its next heartbeat, and no other start."""
    first = cluster.start()
    cluster.send("Start", "p1", "s1")
    cluster.flush()
    cluster.wait("a session", lambda: "s1" in cluster.sessions())
    stop(cluster, first)
    text = harm(cluster)
    refused = cluster.start()
    assert refused.wait(30) in {1, 2}
    assert text in cluster.errors(refused).splitlines()[-1]

    def store(*arguments: str) -> subprocess.CompletedProcess[str]:
        return command("store", *arguments, **cluster.variables)

    checked = store("check")
    assert checked.returncode == 1
    assert text in checked.stdout
    skipped = store("skip", "--yes")
    assert skipped.returncode == 0, skipped.stderr
    assert store("check").returncode == 0
    before = cluster.records_out()
    again = cluster.start()
    cluster.wait("heartbeats", lambda: cluster.records_out() >= before + 3)
    stop(cluster, again)
    values = [record.value or b"" for record in cluster.read(cluster.output)]
    events = [decode_output(value) for value in values if value != STRAY]
    assert {event.session_id for event in events} == {"s1"}
    assert [type(event).__name__ for event in events].count("SessionActive") == 1
    sequences = [event.sequence for event in events if isinstance(event, Heartbeat)]
    assert sequences == sorted(set(sequences))


def stop(cluster: Cluster, flow: subprocess.Popen[str]) -> None:
    """Stop a run cleanly."""
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(20) == 0, cluster.errors(flow)
