"""The sessions step: what a lane gets in a batch, when it wakes, and when it wakes its sink."""

import pytest

from dataflows.lanes import STILL_MS, LaneLogic, StoredLane
from dataflows.messages import HOLD_EPOCHS, LaneBatch
from dataflows.run_state import RunState
from dataflows.settings import Settings
from dataflows.settling import FIRST_MS
from session_logic.clock import PartitionProgress
from session_logic.codec import decode_output
from session_logic.errors import SnapshotError
from session_logic.events import Fact, SessionActive, SessionEnd
from session_logic.journal import Row
from session_logic.lane_time import NEVER_MS, Phase
from session_logic.output import OutputBatch
from tests.support.clocks import FixedClock, T

TICK_MS = 2
HOUR_MS = 3_600_000
CAUGHT_UP = LaneBatch(0, [], PartitionProgress("in/0", 1, None))
START = LaneBatch(0, [Fact(True, "device", "session", "pc", T - 100)])


class Step:
    """Lane 0 of a run whose clock stands still."""

    def __init__(self, stored: StoredLane | None = None) -> None:
        self.clock = FixedClock()
        self.run = RunState(self.clock)
        self.logic = LaneLogic(Settings(lanes=1, tick_ms=TICK_MS), self.run, stored)

    def batch(self, *values: LaneBatch | Row) -> list[OutputBatch]:
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


@pytest.mark.parametrize(("beside_ms", "lost"), [(-1, False), (0, False), (1, True)])
def test_row_that_does_not_come_within_the_limit_is_lost(beside_ms: int, *, lost: bool) -> None:
    """A step of the system clock is no time that the lane has waited."""
    step = Step()
    step.batch(START)
    later = Step(step.logic.snapshot())
    later.clock.now += HOUR_MS
    later.logic.on_notify()
    began_ms = later.logic._waits_since_ms
    later.run.elapsed_ms = lambda: began_ms
    wait(later, Settings().restore_timeout_ms - STILL_MS)
    if lost:
        with pytest.raises(SnapshotError, match="lane 0: journal segment 0 missing"):
            wait(later, STILL_MS + beside_ms)
    else:
        wait(later, STILL_MS + beside_ms)


def wait(step: Step, for_ms: int, turn_ms: int = STILL_MS) -> None:
    """Let time pass for a lane that has a turn every so often."""
    while for_ms > 0:
        now_ms = step.run.elapsed_ms() + min(turn_ms, for_ms)
        step.run.elapsed_ms = lambda now_ms=now_ms: now_ms  # type: ignore[misc]
        step.logic.on_notify()
        for_ms -= turn_ms


def test_time_in_which_output_is_read_is_no_time_that_a_row_takes() -> None:
    """The thread stands still, or another one waits for Kafka; afterwards the limit holds."""
    step = Step()
    step.batch(START)
    later = Step(step.logic.snapshot())
    limit_ms = Settings().restore_timeout_ms
    began_ms = later.logic._waits_since_ms
    later.run.elapsed_ms = lambda: began_ms
    wait(later, 10 * limit_ms, turn_ms=5 * limit_ms)
    later.run.waits_for_kafka = lambda: True
    wait(later, 2 * limit_ms)
    later.run.waits_for_kafka = lambda: False
    wait(later, limit_ms - STILL_MS)
    with pytest.raises(SnapshotError, match="missing"):
        wait(later, 2 * STILL_MS)


def test_lane_of_a_run_that_was_ahead_of_time_sends_nothing_again_and_goes_on() -> None:
    """The clock was an hour ahead and is right now: what was due in that hour is out.

    Ends and new sessions are acted on all the same.
    """
    step = Step()
    emitted, _ = step.logic.on_batch([START, CAUGHT_UP])
    rows = [item for item in emitted if not isinstance(item, OutputBatch)]
    step.clock.now += HOUR_MS
    assert any(step.logic.on_notify()[0])
    stored = step.logic.snapshot()

    later = Step(stored)
    later.batch(*rows, CAUGHT_UP)
    assert not any(later.logic.on_notify()[0])
    assert later.run.lanes[0].reached_ms == T + HOUR_MS
    ended = later.batch(LaneBatch(0, [Fact(False, "device", "session", "pc", T)]))
    assert [type(decode_output(value)) for records in ended for value in records.values] == [
        SessionEnd
    ]
    begun = later.batch(LaneBatch(0, [Fact(True, "other", "new", "pc", T)]))
    assert isinstance(decode_output(begun[0].values[0]), SessionActive)


def test_lane_that_falls_silent_wakes_its_sink_until_all_is_acknowledged() -> None:
    """A snapshot must have the last acknowledgement, whenever it comes; then the lane sleeps."""
    step = Step()
    step.batch(START, CAUGHT_UP)
    end = Fact(False, "device", "session", "pc", T - 50)
    step.batch(LaneBatch(0, [end]), CAUGHT_UP)
    woken_s = []
    while (wake_ms := step.wakes_after_ms()) is not None:
        step.clock.now = T + wake_ms
        emitted, _ = step.logic.on_notify()
        step.logic.snapshot()
        if emitted == [OutputBatch([], [])] and wake_ms >= FIRST_MS:
            woken_s.append(wake_ms // 1_000)
    limit_s = Settings().delivery_timeout_ms // 1_000
    assert woken_s[:3] == [30, 90, 210]
    assert woken_s[-1] > limit_s
    assert len(woken_s) == len([30, 90, 210, 450])


def test_sink_of_a_resumed_lane_is_kept_awake_as_that_of_a_new_one() -> None:
    """It may have another topic than before, which is stored before any lane sends."""
    step = Step()
    step.batch(CAUGHT_UP)
    later = Step(step.logic.snapshot())
    for _ in range(HOLD_EPOCHS):
        assert later.logic.on_notify()[0] == [OutputBatch()]
        assert later.logic.on_notify()[0] == []
        later.logic.snapshot()
    assert later.logic.on_notify()[0] == []


def test_resumed_lane_wakes_its_sink_though_it_has_nothing_to_send() -> None:
    """What the run before had not been told of is acknowledged by then."""
    step = Step()
    for _ in range(HOLD_EPOCHS):
        step.batch(CAUGHT_UP)
        stored = step.logic.snapshot()
    later = Step(stored)
    later.batch(CAUGHT_UP)
    later.logic.on_notify()
    later.clock.now += FIRST_MS
    assert later.logic.on_notify()[0] == [OutputBatch([], [])]


def test_resumed_lane_waits_for_what_is_out_of_silence() -> None:
    """The sink reads it, and is kept awake for that; meanwhile facts wait."""
    step = Step()
    emitted, _ = step.logic.on_batch([START, CAUGHT_UP])
    rows = [item for item in emitted if not isinstance(item, OutputBatch)]
    later = Step(step.logic.snapshot())
    later.run.silent_ends = lambda _lane: None
    assert not any(later.batch(*rows, CAUGHT_UP))
    assert later.run.lanes[0].restoring
    began_ms = later.logic._waits_since_ms
    later.run.elapsed_ms = lambda: began_ms
    wait(later, 2 * Settings().restore_timeout_ms)  # no row is missing
    later.run.silent_ends = lambda _lane: {("device", "session", T - 100): T}
    ended = [item for item in later.logic.on_notify()[0] if isinstance(item, OutputBatch)]
    assert [type(decode_output(value)) for value in ended[0].values] == [SessionEnd]
    assert later.run.lanes[0].time.phase is Phase.LIVE


def test_sink_is_kept_awake_until_an_outage_is_stored() -> None:
    """It holds back meanwhile what follows from that."""
    step = Step()
    watched = Fact(True, "device", "session", "pc", T - 100, idle_timeout_ms=HOUR_MS)
    step.batch(LaneBatch(0, [watched]), CAUGHT_UP)
    step.logic.on_notify()
    for _ in range(HOLD_EPOCHS):
        step.batch(CAUGHT_UP)
        step.logic.snapshot()
    step.clock.now += 5_000
    (records,) = [item for item in step.logic.on_notify()[0] if isinstance(item, OutputBatch)]
    assert records.rests_on_state
    step.logic.snapshot()
    assert len(step.batch(CAUGHT_UP)) == 1
    step.logic.snapshot()
