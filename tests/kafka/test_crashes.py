"""Crashes on a real Kafka: killed processes and a broker that goes away."""

import signal
from pathlib import Path

import pytest

from heartwheel.store.identity import may_have_sent_more
from heartwheel.store.recovery_files import Recovery
from tests.support.broker import Broker
from tests.support.check import check_whole
from tests.support.cluster import Cluster
from tests.support.endpoint import STOP_S, get, start
from tests.support.events import kinds
from tests.support.scrape import Metrics
from tests.support.traffic import stop

# While a process is away, heartbeats become due: with this, every one of them is sent.
ALL = {"HEARTWHEEL_CATCH_UP": "all"}


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
    check_whole(sessions)


def test_broker_that_hangs_while_nothing_comes_holds_the_clock(
    own_kafka: Broker, own_cluster: Cluster
) -> None:
    """No connection is lost, yet nobody knows whether the input is still at its end."""
    cluster = own_cluster
    flow, port = start(cluster, **ALL)

    def lag_s() -> float:
        return max(Metrics(port).all("clock_lag_seconds").values())

    cluster.send("Start", "p1", "s")
    cluster.flush()
    cluster.wait("a heartbeat", lambda: len(cluster.sessions().get("s", ())) > 1)
    cluster.wait("a clock that goes", lambda: lag_s() < 1)
    own_kafka.pause()
    cluster.wait("a clock that stands still", lambda: lag_s() > 4, 12)
    own_kafka.resume()
    cluster.wait("a clock that goes on", lambda: lag_s() < 1)
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(30) == 0, cluster.errors(flow)
    check_whole(cluster.sessions())


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
    """An idle run stops as cleanly as a busy one, and has written nothing."""
    flow, port = start(cluster, **ALL)
    cluster.wait("readiness", lambda: get(port, "/readyz")[0] == 200)
    flow.send_signal(sign)
    assert flow.wait(20) == 0, cluster.errors(flow)
    assert cluster.events() == []


def test_store_that_is_replaced_under_a_run_is_told_and_not_taken_for_its_own(
    cluster: Cluster, tmp_path: Path
) -> None:
    """That at the path is as a kill leaves it; the one that was moved goes on once it is back."""
    store, away, copy = tmp_path / "store", tmp_path / "away", tmp_path / "copy"
    cluster.variables["HEARTWHEEL_RECOVERY_DIR"] = str(store)
    flow = cluster.start(**ALL)
    cluster.send("Start", "p1", "s")
    cluster.flush()
    cluster.wait("a heartbeat", lambda: len(cluster.sessions().get("s", ())) > 1)
    assert cluster.start("store", "backup", str(copy)).wait(60) == 0
    store.rename(away)
    copy.rename(store)
    cluster.wait("the log", lambda: "moved, replaced or deleted" in cluster.errors(flow))
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(STOP_S) == 1
    assert "moved, replaced or deleted" in cluster.errors(flow).splitlines()[-1]
    with Recovery(store) as recovery:
        assert may_have_sent_more(recovery)
    store.rename(copy)
    away.rename(store)
    flow = cluster.start(**ALL)
    before = len(cluster.sessions()["s"])
    cluster.wait("more heartbeats", lambda: len(cluster.sessions()["s"]) > before + 1, 60)
    stop(cluster, flow)
    check_whole(cluster.sessions())
