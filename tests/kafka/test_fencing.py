"""Two runs on one output: only one of them writes."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.broker import Broker
from tests.support.cluster import Cluster


def test_second_run_on_the_same_store_is_refused(cluster: Cluster) -> None:
    """The lock of the recovery directory keeps it out, with what to do."""
    first = cluster.start()
    cluster.send("Start", "p1", "s")
    cluster.flush()
    cluster.wait("a session", lambda: "s" in cluster.sessions())
    second = cluster.start()
    assert second.wait(20) == 2
    assert "is in use by another run" in cluster.errors(second)
    assert first.poll() is None


def test_second_run_with_another_store_is_refused_while_the_first_lives(
    cluster: Cluster, tmp_path: Path
) -> None:
    """The lease on the output topic keeps it out; after a clean stop it may write at once."""
    first = cluster.start()
    cluster.send("Start", "p1", "s")
    cluster.flush()
    cluster.wait("a session", lambda: "s" in cluster.sessions())
    other = str(tmp_path / "other")
    second = cluster.start(HEARTWHEEL_RECOVERY_DIR=other, HEARTWHEEL_START="latest")
    assert second.wait(30) == 1
    assert "is being written to by another run" in cluster.errors(second)
    first.send_signal(signal.SIGTERM)
    assert first.wait(20) == 0
    third = cluster.start(
        "run", "--new-store", HEARTWHEEL_RECOVERY_DIR=other, HEARTWHEEL_START="latest"
    )

    def later() -> bool:
        """Send it again as long as the run, which begins at the topic's end, has not begun."""
        cluster.send("Start", "p2", "later")
        cluster.flush()
        return "later" in cluster.sessions()

    cluster.wait("a session of the other run", later)
    third.send_signal(signal.SIGTERM)
    assert third.wait(20) == 0


@pytest.mark.slow
def test_old_run_that_comes_back_is_fenced_off(cluster: Cluster, tmp_path: Path) -> None:
    """A paused run whose place another has taken writes nothing more, and ends with an error."""
    first = cluster.start()
    for number in range(50):
        cluster.send("Start", f"c{number}", f"s{number}")
    cluster.flush()
    cluster.wait("the sessions", lambda: len(cluster.sessions()) == 50)
    first.send_signal(signal.SIGSTOP)
    second = cluster.start("run", "--new-store", HEARTWHEEL_RECOVERY_DIR=str(tmp_path / "other"))
    cluster.wait("another run", lambda: "starting" in cluster.errors(second), 60)
    first.send_signal(signal.SIGCONT)
    assert first.wait(20) == 1
    assert "another run has taken over" in cluster.errors(first)
    assert second.poll() is None, cluster.errors(second)


@pytest.fixture
def new_kafka(kafka_libs: Path, tmp_path: Path) -> Iterator[Broker]:
    """Return a Kafka that has not made its topic of groups yet."""
    assert kafka_libs.exists()
    kafka = Broker(tmp_path / "kafka", properties="offsets.topic.num.partitions=200\n")
    kafka.start()
    yield kafka
    kafka.stop()


def test_first_run_on_a_new_broker_waits_for_the_coordinator(
    tmp_path: Path, new_kafka: Broker
) -> None:
    """Kafka makes its topic of groups when first asked, and has nobody to answer meanwhile."""
    cluster = Cluster(new_kafka.address, tmp_path, "new")
    try:
        flow = cluster.start()
        cluster.send("Start", "p1", "s")
        cluster.flush()
        cluster.wait("a session", lambda: "s" in cluster.sessions())
        flow.send_signal(signal.SIGTERM)
        assert flow.wait(20) == 0, cluster.errors(flow)
    finally:
        cluster.end()
