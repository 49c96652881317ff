"""A topic that joins a running set-up: its history is an outage, and no session is harmed."""

import time
from itertools import pairwise

import pytest

from session_logic.events import Heartbeat, OutputEvent, SessionActive, SessionEnd
from tests.support.cluster import Cluster
from tests.support.traffic import stop

DEVICES = 200
RUNNING = 20
HOUR_MS = 3_600_000
HISTORY_MS = 6 * HOUR_MS
HEARTBEAT_MS = 1_000
# The newest of when the run was stopped, the newest of when it was back, and one that came due.
MAX_HEARTBEATS = 3


def send_history(cluster: Cluster) -> None:
    """Send six hours of events of the console topic; every other session has ended."""
    now_ms = int(time.time() * 1000)
    events = []
    for number in range(DEVICES):
        start_ms = now_ms - HISTORY_MS + number * HISTORY_MS // DEVICES // 2
        events.append((start_ms, "Start", number))
        if number % 2:
            events.append((start_ms + HISTORY_MS // 3, "End", number))
    for time_ms, kind, number in sorted(events):
        cluster.send(kind, f"c{number}", f"joined-{number}", time_ms)
    cluster.flush()


def back_ms(cluster: Cluster) -> int:
    """Return when the first record of the history was written: the run is back then."""
    return min(
        record.time_ms
        for record in cluster.read(cluster.output)
        if b'"joined-' in (record.value or b"")
    )


def check_running(events: list[OutputEvent], upto_ms: int) -> None:
    """Check that a session began, missed heartbeats by upto_ms in one outage, and ended."""
    assert isinstance(events[0], SessionActive)
    assert isinstance(events[-1], SessionEnd)
    assert events[-1].reason == "ended"
    beats = [event for event in events if isinstance(event, Heartbeat)]
    assert len(events) == len(beats) + 2
    assert all(beat.sequence < later.sequence for beat, later in pairwise(beats))
    missed = [beat for beat, later in pairwise(beats) if later.sequence != beat.sequence + 1]
    assert len(missed) <= 1
    assert all(beat.time_ms <= upto_ms for beat in missed)
    assert len([beat for beat in beats if beat.time_ms > upto_ms]) >= 3


def check_history(sessions: dict[str, list[OutputEvent]], upto_ms: int) -> int:
    """Check the sessions of the history as of a moment; return how many records they have."""
    count = 0
    for number in range(DEVICES):
        events = [event for event in sessions[f"joined-{number}"] if event.time_ms <= upto_ms]
        assert isinstance(events[0], SessionActive)
        assert isinstance(events[-1], SessionEnd) is bool(number % 2)
        assert sum(isinstance(event, Heartbeat) for event in events) <= MAX_HEARTBEATS
        count += len(events)
    return count


@pytest.mark.slow
def test_history_of_a_topic_that_joins_is_an_outage(cluster: Cluster) -> None:
    """Each session of it gets its newest heartbeat; those that were there before go on."""
    cluster.variables |= {
        "HEARTWHEEL_HEARTBEAT_MS": str(HEARTBEAT_MS),
        "HEARTWHEEL_MAX_SESSION_MS": str(8 * HOUR_MS),
        "HEARTWHEEL_CATCH_UP": "latest",
    }
    both = cluster.variables["HEARTWHEEL_INPUT_TOPICS"]
    cluster.variables["HEARTWHEEL_INPUT_TOPICS"] = f"{cluster.pc}=pc"
    flow = cluster.start()
    for number in range(RUNNING):
        cluster.send("Start", f"p{number}", f"running-{number}")
    cluster.flush()
    cluster.wait("heartbeats", lambda: cluster.records_out() >= 4 * RUNNING)
    stop(cluster, flow)
    send_history(cluster)
    cluster.variables["HEARTWHEEL_INPUT_TOPICS"] = both
    flow = cluster.start()

    cluster.wait("the joined", lambda: len(cluster.sessions().get("joined-0", [])) >= 9)
    for number in range(RUNNING):
        cluster.send("End", f"p{number}", f"running-{number}")
    cluster.flush()
    cluster.wait("the end", lambda: isinstance(cluster.sessions()["running-0"][-1], SessionEnd))
    stop(cluster, flow)

    sessions, upto_ms = cluster.sessions(), back_ms(cluster) + HEARTBEAT_MS
    assert 2 * DEVICES <= check_history(sessions, upto_ms) <= 4 * DEVICES
    for number in range(RUNNING):
        check_running(sessions[f"running-{number}"], upto_ms)
