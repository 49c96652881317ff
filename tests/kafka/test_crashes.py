"""Crashes on a real Kafka: killed processes and a broker that goes away."""

import signal
import time
from pathlib import Path

import pytest

from session_logic.events import SessionActive, SessionEnd
from tests.support.broker import Broker, free_port
from tests.support.cluster import Cluster, check_whole, kinds
from tests.support.scrape import Metrics

DEVICES = 2_000
# While a process is away, heartbeats become due: with this, every one of them is sent.
ALL = {"HEARTWHEEL_CATCH_UP": "all"}


def start_devices(cluster: Cluster) -> None:
    """Start a session on every device and wait for them."""
    for number in range(DEVICES):
        cluster.send("Start", f"c{number}", f"s{number}")
    cluster.flush()
    cluster.wait("all sessions", lambda: len(cluster.sessions()) == DEVICES)


def test_kill_and_resume_loses_no_session_and_beats_none_after_its_end(cluster: Cluster) -> None:
    """Three kills under load; the sessions that ended while it was down stay ended."""
    flow = cluster.start(**ALL)
    start_devices(cluster)
    for turn in range(3):
        time.sleep(0.7)
        flow.send_signal(signal.SIGKILL)
        flow.wait()
        for number in range(turn, DEVICES, 10):
            cluster.send("End", f"c{number}", f"s{number}")
        cluster.flush()
        flow = cluster.start(**ALL)
        time.sleep(2)
    ended = {f"s{n}" for turn in range(3) for n in range(turn, DEVICES, 10)}
    cluster.wait(
        "every end",
        lambda: {e.session_id for e in cluster.events() if isinstance(e, SessionEnd)} == ended,
    )
    before = len(cluster.events())
    cluster.wait("more heartbeats", lambda: len(cluster.events()) > before + DEVICES)
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(20) == 0, cluster.errors(flow)
    sessions = cluster.sessions()
    assert len(sessions) == DEVICES
    check_whole(sessions)


def test_stop_under_load_and_start_again_loses_and_doubles_nothing(cluster: Cluster) -> None:
    """SIGTERM drains, snapshots and flushes: the next run goes on where this one ended."""
    for _ in range(3):
        flow = cluster.start(**ALL)
        if not cluster.sessions():
            start_devices(cluster)
        time.sleep(2.5)
        flow.send_signal(signal.SIGTERM)
        assert flow.wait(20) == 0, cluster.errors(flow)
    sessions = cluster.sessions()
    assert len(sessions) == DEVICES
    check_whole(sessions)
    for name, events in sessions.items():
        assert len(kinds(events)) == len(set(kinds(events))), name


def test_stop_long_before_the_next_snapshot_waits_for_none(cluster: Cluster) -> None:
    """With a snapshot a minute, a stop takes its own at once, and the next run goes on from it."""
    for turn, snapshot_ms in enumerate(("250", "60000", "60000")):
        flow = cluster.start(**ALL, HEARTWHEEL_SNAPSHOT_MS=snapshot_ms)
        cluster.send("Start", "p1", f"s{turn}")
        cluster.flush()
        cluster.wait("the session", lambda t=turn: f"s{t}" in cluster.sessions())
        flow.send_signal(signal.SIGTERM)
        assert flow.wait(20) == 0, cluster.errors(flow)
    sessions = cluster.sessions()
    assert [kinds(events)[-1] for events in sessions.values()][:2] == ["end replaced"] * 2
    for name, events in sessions.items():
        assert len(kinds(events)) == len(set(kinds(events))), name


def test_broker_away_for_ten_seconds_loses_nothing(tmp_path: Path, broker: Broker) -> None:
    """A broker that is stopped and started again delays the output and changes nothing else."""
    assert broker.process is not None  # the shared one proves that Kafka can be had
    own = Broker(tmp_path / "kafka")
    own.start()
    cluster = Cluster(own.address, tmp_path, "away")
    try:
        flow = cluster.start(**ALL)
        start_devices(cluster)
        own.stop()
        time.sleep(10)
        own.start()
        cluster.send("Start", "p1", "after")
        cluster.flush()
        cluster.wait("a session after", lambda: "after" in cluster.sessions(), 60)
        time.sleep(2)
        flow.send_signal(signal.SIGTERM)
        assert flow.wait(30) == 0, cluster.errors(flow)
        sessions = cluster.sessions()
        assert len(sessions) == DEVICES + 1
        check_whole(sessions)
        (line,) = [line for line in cluster.errors(flow).splitlines() if "[kafka]" in line]
        assert "[warning" in line
        assert "facility=FAIL" in line
    finally:
        cluster.end()
        own.stop()


def test_broker_that_hangs_while_nothing_comes_holds_the_clock(
    tmp_path: Path, broker: Broker
) -> None:
    """No connection is lost, yet nobody knows whether the input is still at its end."""
    assert broker.process is not None
    own = Broker(tmp_path / "kafka")
    own.start()
    assert own.process is not None
    cluster = Cluster(own.address, tmp_path, "hangs")
    port = free_port()

    def lag_s() -> float:
        return max(Metrics(port).all("clock_lag_seconds").values())

    try:
        flow = cluster.start(**ALL, HEARTWHEEL_HTTP_PORT=str(port))
        cluster.send("Start", "p1", "s")
        cluster.flush()
        cluster.wait("a heartbeat", lambda: len(cluster.sessions().get("s", ())) > 1)
        assert lag_s() < 1
        own.process.send_signal(signal.SIGSTOP)
        cluster.wait("a clock that stands still", lambda: lag_s() > 4, 12)
        own.process.send_signal(signal.SIGCONT)
        cluster.wait("a clock that goes on", lambda: lag_s() < 1)
        flow.send_signal(signal.SIGTERM)
        assert flow.wait(30) == 0, cluster.errors(flow)
        check_whole(cluster.sessions())
    finally:
        own.process.send_signal(signal.SIGCONT)
        cluster.end()
        own.stop()


def test_crash_exits_with_an_error_and_the_next_start_resumes(cluster: Cluster) -> None:
    """A lost output topic is one line and a non-zero exit code, not a hang."""
    flow = cluster.start(HEARTWHEEL_DELIVERY_TIMEOUT_MS="3000")
    cluster.send("Start", "p1", "s")
    cluster.flush()
    cluster.wait("a session", lambda: "s" in cluster.sessions())
    for future in cluster.admin.delete_topics([cluster.output]).values():
        future.result()
    assert flow.wait(40) == 1
    lines = [line for line in cluster.errors(flow).splitlines() if line.startswith("heartwheel:")]
    assert len(lines) == 1
    assert "resumes from its last snapshot" in lines[0]


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_signal_before_any_input_stops_cleanly(cluster: Cluster, sign: signal.Signals) -> None:
    """An idle run stops as cleanly as a busy one."""
    flow = cluster.start(**ALL)
    time.sleep(3)
    flow.send_signal(sign)
    assert flow.wait(20) == 0, cluster.errors(flow)
    assert isinstance(cluster.events(), list)
    assert not any(isinstance(event, SessionActive) for event in cluster.events())
