"""Topics of a real Kafka that no longer fit the store: refused, found by the check, skipped."""

import signal
import subprocess
import time
from collections.abc import Callable
from enum import Enum

import pytest
from confluent_kafka import Producer, TopicPartition

from session_logic.codec import decode_output
from session_logic.events import Heartbeat, SessionActive
from tests.support.broker import Broker, create_topics
from tests.support.cluster import Cluster
from tests.support.command import command

# How many records there are in the damaged batch, which is the first one of its partition.
DAMAGED = 50
STRAY = b"\xff not of Heartwheel"


class Part(Enum):
    """What is damaged of a batch; all but the values is at a place of its own."""

    LENGTH = 8
    MAGIC = 16
    CHECKSUM = 17
    VALUE = -1


def expire_input(cluster: Cluster) -> str:
    """Delete events that nobody has read, among them the end of the session."""
    cluster.send("End", "p1", "s1")
    cluster.flush()
    parts = [TopicPartition(cluster.pc, partition, -1) for partition in range(2)]
    for future in cluster.admin.delete_records(parts).values():
        future.result()
    return "have expired unread"


def cut_input(cluster: Cluster) -> str:
    """Make the topic again, shorter than it was."""
    for future in cluster.admin.delete_topics([cluster.pc]).values():
        future.result()
    cluster.wait("no topic", lambda: cluster.pc not in cluster.admin.list_topics().topics)
    create_topics(cluster.admin, {cluster.pc: 2})
    return "made anew"


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
    anew = ["--anew", cluster.pc] if harm is cut_input else []
    skipped = store("skip", "--yes", *anew)
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


@pytest.mark.slow
@pytest.mark.parametrize("part", [part for part in Part if part is not Part.LENGTH])
def test_batch_that_is_damaged_in_the_broker_is_got_past(
    broker: Broker, cluster: Cluster, part: Part
) -> None:
    """The run ends with the name of the partition; behind the batch it goes on."""
    run_with_a_session(cluster)
    behind = damage(broker, cluster, part)
    flow = cluster.start()
    assert flow.wait(30) == 1
    last = cluster.errors(flow).splitlines()[-1]
    assert "at offset 0" in last
    assert f"`heartwheel store skip --to {cluster.pc}/0=OFFSET`" in last
    skip_to(cluster, behind)


@pytest.mark.slow
def test_batch_whose_length_is_damaged_in_the_broker_is_told_and_got_past(
    broker: Broker, cluster: Cluster
) -> None:
    """Kafka says nothing of it, and gives nothing; the next segment can be read."""
    run_with_a_session(cluster)
    segment = damage(broker, cluster, Part.LENGTH)
    flow = cluster.start()
    cluster.wait("a warning", lambda: "its log may be damaged there" in cluster.errors(flow))
    stop(cluster, flow)
    skip_to(cluster, segment)


def run_with_a_session(cluster: Cluster) -> None:
    """Run until a session is out, and stop; the next record begins a segment of its own."""
    cluster.configure(cluster.pc, "segment.ms", "1000")
    flow = cluster.start()
    cluster.send("Start", "c1", "s1")
    cluster.flush()
    cluster.wait("the first session", lambda: "s1" in cluster.sessions())
    stop(cluster, flow)


def damage(broker: Broker, cluster: Cluster, part: Part) -> int:
    """Change a batch in the broker's log; return where the next one is, which has a start."""
    producer = Producer(
        {"bootstrap.servers": cluster.address, "linger.ms": "200", "log_level": "0"}
    )
    for _ in range(DAMAGED):
        producer.produce(cluster.pc, b'{"type":"GameEnd"}' * 9, partition=0)
    assert producer.flush(10) == 0
    time.sleep(1.5)
    start = b'{"type":"GameStart","device_id":"p1","session_id":"s2"}'
    producer.produce(cluster.pc, start, b"p1", 0)
    assert producer.flush(10) == 0
    segments = sorted((broker._folder / "data" / f"{cluster.pc}-0").glob("*.log"))
    with segments[-2].open("r+b") as file:
        file.seek(len(segments[-2].read_bytes()) - 20 if part is Part.VALUE else part.value)
        file.write(b"\0\0\0\x14" if part is Part.LENGTH else b"\x7f")
    behind = int(segments[-1].stem)
    assert behind == DAMAGED
    return behind


def skip_to(cluster: Cluster, offset: int) -> None:
    """Skip what is damaged, and run: both sessions are there, and the first one went on."""
    place = f"{cluster.pc}/0={offset}"
    skipped = command("store", "skip", "--yes", "--to", place, **cluster.variables)
    assert skipped.returncode == 0, skipped.stderr
    flow = cluster.start()
    cluster.wait("the next session", lambda: "s2" in cluster.sessions())
    before = cluster.records_out()
    cluster.wait("heartbeats", lambda: cluster.records_out() >= before + 3)
    stop(cluster, flow)
    first, *beats = cluster.sessions()["s1"]
    assert isinstance(first, SessionActive)
    sequences = [beat.sequence for beat in beats if isinstance(beat, Heartbeat)]
    assert sequences == sorted(set(sequences))
    assert len(sequences) == len(beats) > 0


def stop(cluster: Cluster, flow: subprocess.Popen[str]) -> None:
    """Stop a run cleanly."""
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(20) == 0, cluster.errors(flow)
