"""The sessions step: what a lane gets in a batch, when it wakes, and when it wakes its sink."""

from dataflows.lanes import LaneLogic
from dataflows.messages import HOLD_EPOCHS, LaneBatch
from dataflows.run_state import RunState
from dataflows.settings import Settings
from session_logic.clock import PartitionProgress
from session_logic.events import Fact
from session_logic.lane import NEVER_MS
from session_logic.output import OutputBatch
from tests.support.clocks import FixedClock, T

TICK_MS = 2
CAUGHT_UP = LaneBatch(0, [], PartitionProgress("in/0", 1, None))
START = LaneBatch(0, [Fact(True, "device", "session", "pc", T - 100)])


class Step:
    """Lane 0 of a run whose clock stands still."""

    def __init__(self) -> None:
        self.run = RunState(FixedClock())
        self.logic = LaneLogic(Settings(lanes=1, tick_ms=TICK_MS), self.run, None)

    def batch(self, *values: LaneBatch) -> list[OutputBatch]:
        """Return what a batch brings about for the sink."""
        emitted, _ = self.logic.on_batch(list(values))
        return [item for item in emitted if isinstance(item, OutputBatch)]

    def wakes_after_ms(self) -> int | None:
        """Return after how long the lane wants to be woken."""
        at = self.logic.notify_at()
        return None if at is None else round(at.timestamp() * 1000) - T


def test_facts_come_before_the_progress_of_their_batch() -> None:
    """Progress lets time pass: facts that came with it must not find that it has."""
    step = Step()
    step.batch(CAUGHT_UP, START)
    assert step.run.lanes[0].watermark_ms == NEVER_MS
    step.logic.on_notify()
    assert step.run.lanes[0].watermark_ms == T


def test_sink_of_a_new_lane_is_kept_awake_once_an_epoch() -> None:
    """An empty batch in each of the epochs in which the sink holds, then none any more."""
    step = Step()
    for _ in range(HOLD_EPOCHS):
        assert [len(records) for records in step.batch(CAUGHT_UP)] == [0]
        assert step.batch(CAUGHT_UP) == []
        step.logic.snapshot()
    assert step.batch(CAUGHT_UP) == []


def test_lane_without_sessions_sleeps_when_its_sink_holds_no_more() -> None:
    """Nothing can become due."""
    step = Step()
    for _ in range(HOLD_EPOCHS):
        step.batch(CAUGHT_UP)
        step.logic.snapshot()
    step.logic.on_notify()
    assert step.wakes_after_ms() is None


def test_lane_with_a_session_wakes_at_the_next_tick() -> None:
    """A heartbeat may be due then; at once while the lane is behind."""
    step = Step()
    step.batch(START, CAUGHT_UP)
    assert step.wakes_after_ms() == 0
    step.logic.on_notify()
    assert step.wakes_after_ms() == TICK_MS


def test_sink_is_woken_once_more_at_the_end() -> None:
    """So that its last snapshot has every acknowledgement."""
    step = Step()
    step.batch(CAUGHT_UP)
    emitted, _ = step.logic.on_eof()
    assert emitted == [OutputBatch([], [])]
