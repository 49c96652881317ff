"""Whether a process is alive and ready: at the limits, one by one."""

import pytest

from dataflows.metrics import LANES
from dataflows.stop import STOP
from dataflows.vitals import Vitals
from heartwheel.cluster import Cluster
from heartwheel.http.health import Health
from session_logic.clock import PartitionProgress
from session_logic.lane import Lane
from tests.support.serving import SETTINGS, Client, FixedClock, T, restoring


def health(vitals: Vitals, clock: FixedClock) -> Health:
    """Return what judges a process that has both lanes."""
    return Health(SETTINGS, Cluster(), vitals, clock)


@pytest.mark.parametrize(("beside_ms", "alive"), [(-1, True), (0, True), (1, False)])
def test_loop_that_has_not_turned_for_longer_than_the_limit_is_dead(
    beside_ms: int, *, alive: bool
) -> None:
    """At the limit it is still alive; and before the first turn, when the process starts."""
    vitals, clock = Vitals(), FixedClock()
    assert health(vitals, clock).stalled() is None
    vitals.turn(T)
    clock.now = T + SETTINGS.liveness_timeout_ms + beside_ms
    assert (health(vitals, clock).stalled() is None) is alive


def test_one_stalled_worker_thread_is_found_beside_one_that_turns() -> None:
    """Each thread of a process has to turn."""
    vitals, clock = Vitals(), FixedClock(T + SETTINGS.liveness_timeout_ms + 1)
    vitals.turn(clock.now)
    assert health(vitals, clock).stalled() is None
    vitals.turned_ms[-1] = T
    assert "has not turned for 10.0 s" in (health(vitals, clock).stalled() or "")


def test_wait_for_kafka_is_alive_and_not_ready() -> None:
    """A restart would not bring the broker back; it has a limit of its own."""
    vitals, clock = Vitals(), FixedClock(T + 100_000)
    vitals.turn(T)
    vitals.waits_for_kafka = lambda: True
    assert health(vitals, clock).stalled() is None
    assert "Kafka" in (health(vitals, clock).unready() or "")


def test_restore_has_its_own_limit_and_is_not_ready(lanes: list[Lane]) -> None:
    """A start with a large store is not killed for it."""
    lanes[1] = LANES.running[1] = restoring(1)
    assert lanes[1].restoring
    vitals, clock = Vitals(), FixedClock(T + SETTINGS.restore_timeout_ms)
    vitals.turn(T)
    assert health(vitals, clock).stalled() is None
    assert health(vitals, clock).unready() == "lane 1 being restored"
    clock.now += 1
    assert health(vitals, clock).stalled() is not None


def test_lane_without_word_from_input_is_not_ready(lanes: list[Lane]) -> None:
    """A lane that is not there yet, then one of which a partition has not reported."""
    clock = FixedClock()
    del LANES.running[0]
    assert "lane 0 not begun" in (health(Vitals(), clock).unready() or "")
    lanes[0] = LANES.running[0] = Lane(0, 2, SETTINGS.rules())
    assert "not every input partition" in (health(Vitals(), clock).unready() or "")
    lanes[0].hear(PartitionProgress("t/0", 1, None))
    assert health(Vitals(), clock).unready() is None


@pytest.mark.parametrize(("beside_ms", "ready"), [(-1, True), (0, True), (1, False)])
def test_lane_behind_by_more_than_the_limit_is_not_ready(
    lanes: list[Lane], beside_ms: int, *, ready: bool
) -> None:
    """Time of a lane that is behind is what its input has come to."""
    lanes[1].hear(PartitionProgress("t/0", 1, T))
    reason = health(Vitals(), FixedClock(T + SETTINGS.ready_lag_ms + beside_ms)).unready()
    assert (reason is None) is ready
    assert ready or reason == "lane 1 up to 5.0 s behind the wall clock"


def test_stop_is_alive_and_not_ready(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is being drained is not killed, and gets no more requests."""
    assert (client.get("/readyz").status, client.get("/readyz").body) == (200, b"ok\n")
    client.vitals.turn(T)
    client.clock.now = T + 60_000
    monkeypatch.setattr(STOP, "is_set", lambda: True)
    assert client.get("/livez").status == 200
    answer = client.get("/readyz")
    assert (answer.status, answer.body) == (503, b"the process is being stopped\n")
