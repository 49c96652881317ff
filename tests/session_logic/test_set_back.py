"""A store that was run with a clock that was ahead, and is now run with the right one."""

import pytest
from msgspec import to_builtins
from msgspec.structs import replace

from session_logic import lane
from session_logic.events import Heartbeat
from session_logic.lane import Lane
from session_logic.move import Move
from session_logic.restoring import read_lane_state
from session_logic.rules import Rules
from tests.support.lanes import BEGIN_MS, DEVICES, LANE, LANES
from tests.support.restarts import Run, shown

RULES = Rules(1_000, 8_000_000, 5_000, "all")
AHEAD_MS = 100_000
OLD, NEW = DEVICES[:2]


def ran_ahead(by_ms: int = AHEAD_MS, rules: Rules = RULES) -> Run:
    """Return a run with a session that was sent up to a time ahead, before it is started again."""
    run = Run(rules)
    run.send("start", "old", OLD)
    run.wait(by_ms)
    run.now_ms -= by_ms
    return run


def test_new_sessions_beat_at_once_and_old_ones_once_time_has_come_up() -> None:
    """Nothing is sent twice, nothing ahead of time, and nothing is left out after it."""
    run = ran_ahead()
    assert run.restart(RULES) == []
    assert run.lane.set_back_ms == AHEAD_MS
    run.wait(500)
    assert shown(run.send("start", "new", NEW)) == ["A@500"]
    assert shown(run.wait(2_000)) == ["h1@1500", "h2@2500"]
    assert shown(run.send("end", "new", NEW)) == ["E(ended)@2500"]
    assert run.wait(AHEAD_MS - 2_500) == []
    assert shown(run.wait(2_000)) == ["h101@101000", "h102@102000"]


def test_end_of_an_old_session_is_not_before_its_heartbeats_that_are_out() -> None:
    """Consumers have seen it alive up to then."""
    run = ran_ahead()
    run.restart(RULES)
    run.wait(10)
    assert shown(run.send("end", "old", OLD)) == [f"E(ended)@{AHEAD_MS}"]
    assert run.wait(2 * AHEAD_MS) == []


def test_shorter_maximum_at_the_same_time_ends_no_session_before_what_is_out() -> None:
    """It would have timed out by then by the new rules."""
    run = ran_ahead()
    assert run.restart(replace(RULES, max_session_ms=50_000)) == []
    assert shown(run.wait(50_000)) == [f"E(timed_out)@{AHEAD_MS}"]


@pytest.mark.parametrize("restarts", range(1, 4))
def test_time_set_back_once_is_not_set_back_by_the_next_starts(restarts: int) -> None:
    """The store has what was sent, so the next start goes on from it."""
    run = ran_ahead()
    for _ in range(restarts):
        assert run.restart(RULES) == []
        run.wait(1_000)
    assert run.lane.set_back_ms == (AHEAD_MS if restarts == 1 else 0)
    run.send("start", "new", NEW)
    assert shown(run.wait(1_000)) == [f"h1@{1_000 * (restarts + 1)}"]
    assert run.lane.reached_ms == BEGIN_MS + AHEAD_MS


@pytest.mark.parametrize("left_ms", [1, 0])
def test_moment_to_which_time_has_come_is_left_behind_by_the_next_start(left_ms: int) -> None:
    """Each is a ring of the wheel; sessions go on as they would with it."""
    run = ran_ahead()
    run.restart(RULES)
    ahead = [(1_000, BEGIN_MS + AHEAD_MS), (1_000, 0)]
    assert run.lane.table.rules.beats == ahead
    run.wait(AHEAD_MS - left_ms)
    assert run.restart(RULES) == []
    assert run.lane.table.rules.beats == (ahead if left_ms else [(1_000, 0)])
    assert run.wait(left_ms) == []
    assert shown(run.wait(2_000)) == ["h101@101000", "h102@102000"]
    assert run.restart(RULES) == []
    assert shown(run.wait(1_000)) == ["h103@103000"]


def test_clock_that_is_ahead_again_by_less_keeps_what_each_session_was_sent() -> None:
    """Each session remembers its own, and the number of intervals does not grow with it."""
    run = ran_ahead()
    run.restart(RULES)
    run.send("start", "new", NEW)
    for _ in range(5):
        run.wait(10_000)
        run.now_ms -= 10_000
        assert run.restart(RULES) == []
        assert len(run.lane.table.rules.beats) <= 3
    beats = [event for event in run.wait(AHEAD_MS + 1_000) if isinstance(event, Heartbeat)]
    assert [beat.sequence for beat in beats if beat.device_id == NEW] == list(range(11, 102))
    assert [beat.sequence for beat in beats if beat.device_id == OLD] == [101]


@pytest.mark.parametrize(("ahead_ms", "set_back_ms"), [(1_000, 0), (1_001, 1_001)])
def test_less_than_a_heartbeat_ahead_is_waited_for(ahead_ms: int, set_back_ms: int) -> None:
    """No session that begins now has a heartbeat due by then."""
    run = ran_ahead(ahead_ms)
    run.restart(RULES)
    assert run.lane.set_back_ms == set_back_ms


def test_ended_session_that_was_forgotten_by_the_wrong_clock_stays_forgotten() -> None:
    """What a start means does not depend on which slots have come round."""
    run = Run(RULES)
    run.send("start", "s", OLD)
    run.send("end", "s", OLD)
    run.wait(6_001)
    run.now_ms -= 6_001
    run.restart(RULES)
    assert not run.lane.table.wheel
    assert shown(run.send("start", "s", OLD)) == ["A@0"]


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a run with more sessions in one millisecond than one call fires."""
    monkeypatch.setattr(lane, "MAX_FIRED_RECORDS", 3)
    run = Run(RULES)
    for device in DEVICES:
        run.send("start", "s", device)
    return run


def test_stop_within_a_moment_of_many_sends_its_rest_before_time_is_set_back(many: Run) -> None:
    """Some key groups were a heartbeat further than the others."""
    run = many
    first = run.wait(1_000)
    assert 0 < len(first) < len(DEVICES)
    run.now_ms -= 2_500
    rest = run.restart(RULES)
    assert sorted(e.device_id for e in first + rest) == sorted(DEVICES)
    assert run.lane.watermark_ms == run.now_ms


def test_stop_within_a_moment_of_many_goes_on_with_its_rest(many: Run) -> None:
    """Each has its heartbeat once, and what comes in between is after it or before it."""
    run = many
    beats = run.wait(1_000)
    while run.lane.behind(run.now_ms):
        assert run.restart(RULES) == []
        beats += run.wait(0)
    assert sorted(e.device_id for e in beats) == sorted(DEVICES)


def test_lanes_that_are_merged_keep_what_their_sessions_were_sent() -> None:
    """Also where the lanes know other intervals, or the same ones in another order."""
    move, lanes = Move(LANES // 2), {LANE: (0, 5_000), LANE + LANES // 2: (9_000, 0)}
    for number, sent_ms in lanes.items():
        old = Lane(number, LANES, RULES)
        old.table.rules = replace(RULES, intervals_ms=(1_000, 1_000), sent_ms=sent_ms)
        list(move.take(old))
    (state,) = move.states()
    stored = read_lane_state(to_builtins(state))
    assert stored.rules is not None
    beats = list(zip(stored.rules.intervals_ms, stored.rules.sent_ms, strict=True))
    assert beats == [(1_000, 0), (1_000, 5_000), (1_000, 9_000)]
