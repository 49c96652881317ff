"""Other settings on the same store: a lane is restored by the rules of before, then goes over."""

import pytest
from msgspec import to_builtins
from msgspec.structs import replace

from session_logic.events import OutputEvent
from session_logic.lane import Lane
from session_logic.move import Move
from session_logic.restoring import read_lane_state
from session_logic.rules import Rules
from tests.support.events import decoded
from tests.support.lanes import LANE, LANES
from tests.support.restarts import DEVICE, Run, shown

RULES = Rules(1_000, 3_600_000, 5_000, "all")


def test_running_session_keeps_its_interval_and_new_ones_take_the_new_one() -> None:
    """No name of a record comes twice, and none that its rule demands is missing."""
    run = Run(RULES)
    run.send("start", "s1")
    assert shown(run.wait(3_000)) == ["h1@1000", "h2@2000", "h3@3000"]
    assert run.restart(replace(RULES, heartbeat_ms=2_000)) == []
    assert shown(run.wait(2_000)) == ["h4@4000", "h5@5000"]
    assert shown(run.send("start", "s2")) == ["E(replaced)@5000", "A@5000"]
    assert shown(run.wait(4_000)) == ["h1@7000", "h2@9000"]


@pytest.mark.parametrize("times", [1, 2, 3])
def test_interval_that_comes_back_is_the_one_that_was(times: int) -> None:
    """Settings that go to and fro do not add up."""
    run = Run(RULES)
    run.send("start", "s1")
    for _ in range(times):
        run.restart(replace(RULES, heartbeat_ms=2_000))
        run.restart(RULES)
    assert run.lane.table.rules.intervals_ms == (1_000, 2_000)
    assert shown(run.wait(1_000)) == ["h1@1000"]


def test_shorter_maximum_ends_what_is_over_it_after_what_is_out() -> None:
    """It ends once, after the last heartbeat, and nothing follows."""
    run = Run(RULES)
    run.send("start", "s1")
    assert len(run.wait(7_000)) == 7
    assert shown(run.restart(replace(RULES, max_session_ms=3_000))) == ["E(timed_out)@7001"]
    assert run.wait(60_000) == []
    assert run.restart(RULES) == []
    assert run.wait(60_000) == []
    assert run.lane.table.active == 0


def test_longer_maximum_revives_nothing_that_has_timed_out() -> None:
    """What is in the store of the time before stays ended, and what runs on may run longer."""
    run = Run(replace(RULES, max_session_ms=3_000))
    run.send("start", "s1")
    assert shown(run.wait(3_000))[-1] == "E(timed_out)@3000"
    run.send("start", "s2")
    run.wait(1_000)
    assert run.restart(RULES) == []
    assert run.lane.table.find(DEVICE) is not None
    assert shown(run.wait(3_000)) == ["h2@5000", "h3@6000", "h4@7000"]


@pytest.mark.parametrize("crashes", range(4))
def test_crash_after_the_change_sends_the_same_again(crashes: int) -> None:
    """What is sent follows from the store: so it has the same names and the same content."""
    run = Run(RULES)
    run.send("start", "s1")
    run.wait(7_000)
    shorter = replace(RULES, max_session_ms=3_000)
    first = run.restart(shorter)
    for _ in range(crashes):
        run.store.crash()
        state = read_lane_state(run.store.state or [])
        run.lane = Lane(LANE, LANES, shorter, state)
        again: list[OutputEvent] = []
        for row in list(run.store.rows.values()):
            again += decoded(run.lane.restore(row, run.now_ms).records)
        assert again == first


def test_sessions_of_several_intervals_keep_them_when_lanes_are_merged() -> None:
    """Lanes know the intervals in the order in which they were set, each in its own."""
    move = Move(LANES // 2)
    rules = {LANE: (1_000, 2_000), LANE + LANES // 2: (3_000, 2_000)}
    for number, intervals_ms in rules.items():
        lane = Lane(number, LANES, replace(RULES, heartbeat_ms=2_000))
        lane.table.rules = replace(RULES, heartbeat_ms=2_000, intervals_ms=intervals_ms)
        list(move.take(lane))
    (state,) = move.states()
    stored = read_lane_state(to_builtins(state))
    assert stored.rules is not None
    assert stored.rules.intervals_ms == [1_000, 2_000, 3_000]


def test_lane_without_rows_takes_other_rules_and_writes_nothing() -> None:
    """No base is announced that is not in the store."""
    run = Run(RULES)
    assert run.restart(replace(RULES, heartbeat_ms=2_000)) == []
    assert run.lane.state().journal.through == {}
    run.send("start", "s1")
    assert shown(run.wait(2_000)) == ["h1@2000"]
