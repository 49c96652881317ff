"""A store's first run reads the input from a moment on, on a real Kafka."""

import signal
import subprocess
import time
from datetime import UTC, datetime

from confluent_kafka import Producer
from confluent_kafka.admin import NewPartitions

from session_logic.events import SessionActive
from tests.support.cluster import Cluster
from tests.support.command import command, one_line

HOUR_MS = 3_600_000


def stop(cluster: Cluster, flow: subprocess.Popen[str]) -> None:
    """Stop a run cleanly."""
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(30) == 0, cluster.errors(flow)


def send(cluster: Cluster, partition: int, session: str, time_ms: int) -> None:
    """Send a start to a partition of the PC topic."""
    value = f'{{"type":"GameStart","device_id":"p-{session}","session_id":"{session}"}}'
    producer = Producer({"bootstrap.servers": cluster.address})  # knows of new partitions
    producer.produce(cluster.pc, value, f"p-{session}", partition, timestamp=time_ms)
    assert producer.flush(10) == 0


def starts(cluster: Cluster) -> list[str]:
    """Return the session of each start in the output."""
    return sorted(e.session_id for e in cluster.events() if isinstance(e, SessionActive))


def test_first_run_reads_from_the_moment_and_later_runs_go_on(cluster: Cluster) -> None:
    """Partition 0 has records on both sides of it, partition 1 only earlier ones."""
    now_ms = int(time.time() * 1000)
    moment_ms = now_ms - HOUR_MS
    moment = datetime.fromtimestamp(moment_ms / 1000, UTC).isoformat(timespec="milliseconds")
    cluster.variables |= {"HEARTWHEEL_START": moment, "HEARTWHEEL_MAX_SESSION_MS": "86400000"}
    send(cluster, 0, "before", moment_ms - 1)
    send(cluster, 0, "at", moment_ms)
    send(cluster, 0, "late", moment_ms - 1)
    send(cluster, 0, "after", moment_ms + 1)
    send(cluster, 1, "long-before", moment_ms - HOUR_MS)
    flow = cluster.start()
    cluster.wait("the first sessions", lambda: starts(cluster) == ["after", "at", "late"])
    assert f"topic={cluster.pc} partition=0 offset=1" in cluster.errors(flow)
    send(cluster, 1, "next", now_ms)
    cluster.wait("the next one", lambda: "next" in starts(cluster))
    flow.kill()
    flow.wait()
    send(cluster, 1, "meanwhile", now_ms)
    later = datetime.fromtimestamp(now_ms / 1000 + 3_600, UTC).isoformat()
    flow = cluster.start(HEARTWHEEL_START=later)
    cluster.wait("what came meanwhile", lambda: "meanwhile" in starts(cluster))
    stop(cluster, flow)
    assert starts(cluster) == ["after", "at", "late", "meanwhile", "next"]


def test_partition_that_was_added_is_read_from_the_moment(cluster: Cluster) -> None:
    """Its old records are from before the first run reads; each of the others is read once."""
    now_ms = int(time.time() * 1000)
    moment = datetime.fromtimestamp(now_ms // 1000 - 60, UTC).isoformat()
    cluster.variables["HEARTWHEEL_START"] = moment
    flow = cluster.start()
    send(cluster, 0, "first", now_ms)
    cluster.wait("the first session", lambda: starts(cluster) == ["first"])
    stop(cluster, flow)
    cluster.admin.create_partitions([NewPartitions(cluster.pc, 3)])[cluster.pc].result()
    send(cluster, 2, "old", now_ms - HOUR_MS)
    send(cluster, 2, "new", now_ms)
    flow = cluster.start()
    cluster.wait("the new one", lambda: "new" in starts(cluster))
    flow.kill()
    flow.wait()
    send(cluster, 2, "newer", now_ms)
    flow = cluster.start()
    cluster.wait("the newer one", lambda: "newer" in starts(cluster))
    stop(cluster, flow)
    assert starts(cluster) == ["first", "new", "newer"]


def test_start_that_is_no_moment_is_one_line(cluster: Cluster) -> None:
    """Above all one without a zone, which could mean another hour."""
    variables = cluster.variables | {"HEARTWHEEL_START": "2026-11-25T00:00:00"}
    done = command("run", **variables)
    one_line(done, 2, "HEARTWHEEL_START is '2026-11-25T00:00:00'", "a moment with its zone")
