"""Input of transactional producers: committed, aborted and open transactions, and retention."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import OFFSET_END, Producer, TopicPartition

from session_logic.events import Heartbeat, SessionEnd
from tests.support.cluster import Cluster
from tests.support.command import command
from tests.support.events import kinds
from tests.support.ports import free_port
from tests.support.scrape import Metrics

pytestmark = pytest.mark.slow


class TransactionalSender:
    """A producer with a transactional id of its own, which sends to partition 0 of pc."""

    def __init__(self, cluster: Cluster, name: str, timeout_ms: int = 60_000) -> None:
        self._topic = cluster.pc
        self.producer = Producer(
            {
                "bootstrap.servers": cluster.address,
                "transactional.id": f"{cluster.pc}-{name}",
                "transaction.timeout.ms": timeout_ms,
                "log_level": "0",
            }
        )
        self.producer.init_transactions(30)

    def send(self, kind: str, device: str, session: str, time_ms: int = 0) -> None:
        """Send an event within the transaction, and wait until it is in the log."""
        value = f'{{"type":"Game{kind}","device_id":"{device}","session_id":"{session}"}}'
        self.producer.produce(self._topic, value, device, 0, timestamp=time_ms)
        assert self.producer.flush(10) == 0

    def commit(self, kind: str, device: str, session: str) -> None:
        """Send an event in a transaction of its own."""
        self.producer.begin_transaction()
        self.send(kind, device, session)
        self.producer.commit_transaction(10)


@pytest.fixture
def sender(cluster: Cluster) -> Iterator[TransactionalSender]:
    """Return a sender; what it leaves open is aborted in the end."""
    made = TransactionalSender(cluster, "one")
    yield made
    made.producer.purge()


def lag(port: int) -> float:
    """Return how many records a run has not taken."""
    return Metrics(port).sum("consumer_lag_records")


def stop(cluster: Cluster, flow: subprocess.Popen[str]) -> None:
    """Stop a run cleanly."""
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(30) == 0, cluster.errors(flow)


def heartbeats(cluster: Cluster, session: str) -> list[Heartbeat]:
    """Return the heartbeats of a session."""
    return [e for e in cluster.sessions().get(session, ()) if isinstance(e, Heartbeat)]


def stored_offset(cluster: Cluster) -> int:
    """Return the next offset of partition 0 of pc in the store."""
    folder = cluster.variables["HEARTWHEEL_RECOVERY_DIR"]
    done = command("store", "inspect", "--json", HEARTWHEEL_RECOVERY_DIR=folder)
    assert done.returncode == 0, done
    offset: int = json.loads(done.stdout)["source"][f"{cluster.pc}/0"]
    return offset


def expire(cluster: Cluster) -> int:
    """Let everything in partition 0 of pc expire; return where it begins and ends then."""
    place = TopicPartition(cluster.pc, 0, OFFSET_END)
    low: int = cluster.admin.delete_records([place])[place].result().low_watermark
    return low


def test_partition_that_ends_with_a_marker_is_read_to_its_end(
    cluster: Cluster, sender: TransactionalSender
) -> None:
    """Its lag is 0, and retention behind the marker stops neither this run nor the next one."""
    port = free_port()
    flow = cluster.start(HEARTWHEEL_HTTP_PORT=str(port))
    for number in range(20):
        sender.commit("Start", "p1", f"s{number}")
    # A heartbeat comes only once all is read, the last marker included.
    cluster.wait("a heartbeat", lambda: heartbeats(cluster, "s19"))
    cluster.wait("no lag", lambda: not lag(port))
    stop(cluster, flow)
    assert stored_offset(cluster) == 40
    assert expire(cluster) == 40
    flow = cluster.start(HEARTWHEEL_HTTP_PORT=str(port))
    before = cluster.records_out()
    cluster.wait("heartbeats", lambda: cluster.records_out() >= before + 3)
    cluster.wait("no lag", lambda: not lag(port))
    flow.send_signal(signal.SIGSTOP)  # a pause, after which the partition is fetched again
    time.sleep(2)
    flow.send_signal(signal.SIGCONT)
    before = cluster.records_out()
    cluster.wait("heartbeats", lambda: cluster.records_out() >= before + 3)
    stop(cluster, flow)


def test_transaction_that_timed_out_under_a_run_may_expire(cluster: Cluster) -> None:
    """Its marker has been passed: a run that is killed later goes on, although both are gone."""
    port = free_port()
    sender = TransactionalSender(cluster, "late", timeout_ms=1_000)
    flow = cluster.start(HEARTWHEEL_HTTP_PORT=str(port))
    sender.commit("Start", "p1", "one")
    cluster.wait("heartbeats", lambda: heartbeats(cluster, "one"))
    sender.producer.begin_transaction()
    sender.send("End", "p1", "one")
    sender.producer.purge()
    cluster.wait("an open transaction", lambda: lag(port))
    cluster.wait("no lag", lambda: not lag(port))
    # Heartbeats that time has held back come at once, so they do not tell that it is stored.
    cluster.wait("a snapshot", lambda: stored_offset(cluster) == 4)
    flow.kill()
    flow.wait()
    assert expire(cluster) == 4
    flow = cluster.start()
    before = cluster.records_out()
    cluster.wait("heartbeats", lambda: cluster.records_out() >= before + 3)
    stop(cluster, flow)


def test_transaction_that_ends_and_expires_without_a_run_is_refused_and_can_be_skipped(
    cluster: Cluster, sender: TransactionalSender
) -> None:
    """Nothing was lost, but nothing shows that; the session goes on after the skip."""
    flow = cluster.start()
    sender.commit("Start", "p1", "one")
    cluster.wait("heartbeats", lambda: cluster.records_out() >= 3)
    sender.producer.begin_transaction()
    sender.send("End", "p1", "one")
    cluster.wait_for_quiet(3)
    flow.kill()
    flow.wait()
    sender.producer.abort_transaction(10)
    assert stored_offset(cluster) == 2
    assert expire(cluster) == 4
    refused = cluster.start()
    assert refused.wait(30) == 2
    assert "markers of transactions, have expired unread (2 from" in cluster.errors(refused)
    skipped = command("store", "skip", "--yes", **cluster.variables)
    assert skipped.returncode == 0, skipped.stderr
    flow = cluster.start()
    before = cluster.records_out()
    cluster.wait("heartbeats", lambda: cluster.records_out() >= before + 3)
    stop(cluster, flow)
    assert kinds(cluster.sessions()["one"]).count("active") == 1
    assert not any(isinstance(event, SessionEnd) for event in cluster.events())


def test_aborted_transaction_is_not_seen(cluster: Cluster, sender: TransactionalSender) -> None:
    """Neither its events nor a lag remain."""
    port = free_port()
    flow = cluster.start(HEARTWHEEL_HTTP_PORT=str(port))
    sender.commit("Start", "p1", "one")
    cluster.wait("session", cluster.sessions)
    sender.producer.begin_transaction()
    sender.send("End", "p1", "one")
    sender.producer.abort_transaction(10)
    before = cluster.records_out()
    cluster.wait("heartbeats", lambda: cluster.records_out() >= before + 3)
    cluster.wait("no lag", lambda: not lag(port))
    stop(cluster, flow)
    assert not any(isinstance(event, SessionEnd) for event in cluster.events())


def test_time_waits_for_an_open_transaction(cluster: Cluster, sender: TransactionalSender) -> None:
    """Behind it may be an end: a heartbeat after that end would be wrong."""
    flow = cluster.start()
    sender.commit("Start", "p1", "one")
    cluster.wait("heartbeats", lambda: cluster.records_out() >= 3)
    other = TransactionalSender(cluster, "other")
    sender.producer.begin_transaction()
    sender.send("Start", "p2", "two")
    cluster.wait_for_quiet(3)
    ended_ms = time.time_ns() // 1_000_000
    other.commit("End", "p1", "one")
    cluster.wait_for_quiet(3)
    assert not cluster.errors(flow).count("no answer from Kafka")
    sender.producer.commit_transaction(10)
    cluster.wait("the end", lambda: kinds(cluster.sessions()["one"])[-1] == "end ended")
    assert max(beat.time_ms for beat in heartbeats(cluster, "one")) <= ended_ms
    cluster.wait("the other", lambda: "two" in cluster.sessions())
    stop(cluster, flow)
