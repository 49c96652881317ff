"""Whether a process is alive and ready: at the limits, one by one."""

import pytest

from dataflows.run_state import RunState
from heartwheel.cluster import Cluster
from heartwheel.http.health import Health
from heartwheel.http.view import ProcessView
from session_logic.clock import PartitionProgress
from session_logic.lane import Lane
from tests.support.clocks import FixedClock, T
from tests.support.serving import SETTINGS, Client, restoring


def health(run: RunState) -> Health:
    """Return what judges a process that has both lanes."""
    return Health(ProcessView(SETTINGS, Cluster(), run))


def at(now: int) -> RunState:
    """Return the state of a run that nothing is known of yet, at this time."""
    return RunState(FixedClock(now))


@pytest.mark.parametrize(("beside_ms", "alive"), [(-1, True), (0, True), (1, False)])
def test_loop_that_has_not_turned_for_longer_than_the_limit_is_dead(
    beside_ms: int, *, alive: bool
) -> None:
    """At the limit it is still alive; and before the first turn, when the process starts."""
    run = at(T)
    assert health(run).stalled() is None
    run.note_alive()
    turned_ms = run.elapsed_ms()
    run.elapsed_ms = lambda: turned_ms + SETTINGS.liveness_timeout_ms + beside_ms
    assert (health(run).stalled() is None) is alive


def test_one_stalled_worker_thread_is_found_beside_one_that_turns() -> None:
    """Each thread of a process has to turn."""
    run = at(T)
    run.elapsed_ms = lambda: SETTINGS.liveness_timeout_ms + 1
    run.note_alive()
    assert health(run).stalled() is None
    run.turned_ms[-1] = 0
    assert "has not turned for 10.0 s" in (health(run).stalled() or "")


def test_process_is_alive_after_a_step_of_the_system_clock(run: RunState) -> None:
    """However far it is set forward, no loop has stood still for it."""
    run.note_alive()
    run.clock.now += 3_600_000
    assert health(run).stalled() is None


def test_wait_for_kafka_is_alive_and_not_ready() -> None:
    """A restart would not bring the broker back; it has a limit of its own."""
    run = at(T)
    run.turned_ms[-1] = run.elapsed_ms() - 100_000
    assert health(run).stalled() is not None
    run.waits_for_kafka = lambda: True
    assert health(run).stalled() is None
    assert "Kafka" in (health(run).unready() or "")


def test_output_that_is_not_taken_is_alive_and_not_ready() -> None:
    """The probe says which partition, once it takes longer than the limit for lag."""
    run = at(T)
    run.stalled_output = lambda longer_than_s: "out/1 for 7.0 s" if longer_than_s < 7 else ""
    assert health(run).stalled() is None
    assert health(run).unready() == "no output taken by out/1 for 7.0 s"


def test_wait_for_a_schema_is_alive_and_not_ready() -> None:
    """The probe says which one; a restart would not bring it."""
    run = at(T)
    run.awaited_schema = lambda: "schema 7 of the registry"
    assert health(run).stalled() is None
    assert health(run).unready() == "waiting for schema 7 of the registry"


def test_process_that_waits_for_another_is_alive_and_says_for_which(client: Client) -> None:
    """A restart would not bring the other one."""
    client.run.lanes.clear()
    client.run.awaited_processes = "process 1 (127.0.0.1:9982)"
    assert client.get("/livez").status == 200
    answer = client.get("/readyz")
    assert (answer.status, answer.body) == (503, b"waiting for process 1 (127.0.0.1:9982)\n")
    error = client.json("/devices/d")["error"]
    assert error.endswith("has not begun: waiting for process 1 (127.0.0.1:9982)")


def test_restore_has_its_own_limit_and_is_not_ready(run: RunState) -> None:
    """A start with a large store is not killed for it."""
    run.lanes[1] = restoring(1)
    assert run.lanes[1].restoring
    run.turned_ms[-1] = 0
    run.elapsed_ms = lambda: SETTINGS.restore_timeout_ms
    assert health(run).stalled() is None
    assert health(run).unready() == "lane 1 being restored"
    run.elapsed_ms = lambda: SETTINGS.restore_timeout_ms + 1
    assert health(run).stalled() is not None


def test_lane_without_word_from_input_is_not_ready(run: RunState) -> None:
    """A lane that is not there yet, then one of which a partition has not reported."""
    del run.lanes[0]
    assert "lane 0 not begun" in (health(run).unready() or "")
    run.lanes[0] = Lane(0, 2, SETTINGS.rules())
    assert "not every input partition" in (health(run).unready() or "")
    run.lanes[0].update(PartitionProgress("t/0", 1, None))
    assert health(run).unready() is None


@pytest.mark.parametrize(("beside_ms", "ready"), [(-1, True), (0, True), (1, False)])
def test_lane_behind_by_more_than_the_limit_is_not_ready(
    run: RunState, beside_ms: int, *, ready: bool
) -> None:
    """Time of a lane that is behind is what its input has come to."""
    run.lanes[1].update(PartitionProgress("t/0", 1, T))
    run.clock.now = T + SETTINGS.ready_lag_ms + beside_ms
    reason = health(run).unready()
    assert (reason is None) is ready
    assert ready or reason == "lane 1 up to 5.0 s behind the wall clock"


def test_clock_that_most_input_does_not_fit_is_not_ready(run: RunState) -> None:
    """Input that is set aside, all of it, is no service; a restart would not help."""
    run.timestamps.note(T, [T + 3_600_000] * 50, T + 60_000, at_end=True)
    reason = health(run).unready() or ""
    assert reason.startswith("the clock of this machine or the broker's is wrong")
    assert health(run).stalled() is None


def test_stop_is_alive_and_not_ready(client: Client) -> None:
    """What is being drained is not killed, and gets no more requests."""
    assert (client.get("/readyz").status, client.get("/readyz").body) == (200, b"ok\n")
    client.run.turned_ms[-1] = client.run.elapsed_ms() - 60_000
    client.run.stop.set()
    assert client.get("/livez").status == 200
    answer = client.get("/readyz")
    assert (answer.status, answer.body) == (503, b"the process is being stopped\n")
