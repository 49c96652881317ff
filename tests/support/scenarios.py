"""The four scenarios from topic to topic, and input that is rejected."""

import time

from session_logic.events import Heartbeat, SessionEnd
from tests.support.cluster import Cluster
from tests.support.events import kinds

MAX_SESSION_MS = 20_000
# However slow the start is, each heartbeat is sent.
VARIABLES = {"HEARTWHEEL_MAX_SESSION_MS": str(MAX_SESSION_MS), "HEARTWHEEL_CATCH_UP": "all"}
BAD = {
    "nothing": None,
    "no json": b"hello",
    "cut json": b'{"type":"GameStart"',
    "bytes": bytes(range(256)),
    "array": b"[]",
    "unknown type": b'{"type":"GamePause","device_id":"d","session_id":"s"}',
    "no device": b'{"type":"GameStart","session_id":"s"}',
    "empty id": b'{"type":"GameStart","device_id":"","session_id":"s"}',
    "number id": b'{"type":"GameStart","device_id":1,"session_id":"s"}',
    "long id": b'{"type":"GameStart","device_id":"' + b"x" * 129 + b'","session_id":"s"}',
}


def check_scenarios(cluster: Cluster) -> None:
    """Send all four scenarios to a running flow and check what comes out.

    The session that times out is half over when it starts, so the others live on for as long.
    """
    cluster.send("Start", "c1", "replaced")
    cluster.send("Start", "p1", "ended")
    cluster.send("Start", "p2", "timed-out", time.time_ns() // 1_000_000 - MAX_SESSION_MS // 2)
    cluster.flush()
    cluster.wait("two heartbeats", lambda: len(cluster.sessions().get("ended", [])) >= 3)
    cluster.send("End", "p1", "ended")
    cluster.send("Start", "c1", "second")
    cluster.flush()
    cluster.wait(
        "timeout", lambda: "end timed_out" in kinds(cluster.sessions().get("timed-out", []))
    )
    cluster.wait(
        "a beat of the second", lambda: "beat 1" in kinds(cluster.sessions().get("second", []))
    )
    sessions = cluster.sessions()
    beats = [f"beat {n}" for n in range(1, 99)]
    assert kinds(sessions["timed-out"]) == ["active", *beats[:19], "end timed_out"]
    assert kinds(sessions["ended"])[:3] == ["active", *beats[:2]]
    assert kinds(sessions["ended"])[-1] == "end ended"
    assert kinds(sessions["replaced"])[-1] == "end replaced"
    assert kinds(sessions["second"])[:2] == ["active", "beat 1"]
    assert {e.platform for e in sessions["ended"]} == {"pc"}
    assert {e.platform for e in sessions["second"]} == {"console"}
    for events in sessions.values():
        started_ms = events[0].started_ms
        for event in events:
            assert event.started_ms == started_ms
            if isinstance(event, Heartbeat):
                assert event.time_ms == started_ms + event.sequence * 1_000
            elif isinstance(event, SessionEnd):
                assert event.duration_ms == event.time_ms - started_ms
    times = {(r.time_ms) for r in cluster.read(cluster.pc)}
    assert {sessions["ended"][0].time_ms, sessions["timed-out"][0].time_ms} <= times
