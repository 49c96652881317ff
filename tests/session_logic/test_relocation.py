"""Sessions that move to other lanes, device by device."""

import pytest
from msgspec import to_builtins

from session_logic.clock import PartitionProgress
from session_logic.errors import ConfigError
from session_logic.events import Fact, OutputEvent
from session_logic.lane import Lane
from session_logic.lane_time import NEVER_MS
from session_logic.relocation import Relocation
from session_logic.restoring import LISTENING_VERSION, STATE_VERSION, read_lane_state
from session_logic.rules import Rules
from tests.support.events import decoded

T = 1_700_000_000_000
RULES = Rules(1_000, 10_000, catch_up="all")


def stopped(number: int, stop_ms: int, *facts: Fact) -> Lane:
    """Return one of two lanes that took these facts and was stopped then."""
    lane = Lane(number, 2, RULES)
    lane.update(PartitionProgress("topic/0", 1, None))
    lane.apply(list(facts), T)
    for passed_ms in range(100, stop_ms + 1, 100):
        lane.advance(T + passed_ms)
    return lane


def moved(*old: Lane, lanes: int = 1) -> list[Lane]:
    """Return the lanes that these become, all devices in the last one."""
    relocation = Relocation(lanes, lambda _: lanes - 1)
    for lane in old:
        relocation.take(lane)
    rows = list(relocation.rows())
    new = []
    for state in relocation.states():
        lane = Lane(state.lane, lanes, RULES, read_lane_state(to_builtins(state)), T + 5_000)
        for row in rows:
            if row.lane == state.lane:
                assert lane.restore(row, T + 5_000).records.count() == 0
        assert not lane.restoring
        lane.update(PartitionProgress("topic/0", 1, None))
        new.append(lane)
    return new


def wait(lane: Lane, upto_ms: int) -> list[tuple[str, str, int]]:
    """Return what a lane sends up to a moment: device, kind and time."""
    return list(map(shown, decoded(lane.advance(T + upto_ms).records)))


def shown(event: OutputEvent) -> tuple[str, str, int]:
    """Return device, kind and time of a record."""
    time_ms = getattr(event, "time_ms", event.started_ms)
    return event.device_id, type(event).__name__, time_ms - T


def start(device: str, after_ms: int = 0, idle_ms: int = 0, carried: bytes = b"") -> Fact:
    """Return a start."""
    return Fact(True, device, "s", "pc", T + after_ms, False, carried, False, idle_ms)


def test_lanes_of_two_moments_go_on_from_the_earlier_and_send_nothing_twice() -> None:
    """Heartbeats of the later one are out; each session has its next one in time."""
    (lane,) = moved(stopped(0, 1_500, start("early")), stopped(1, 3_500, start("late")))
    assert lane.watermark_ms == T + 1_500
    assert wait(lane, 3_500) == [("early", "Heartbeat", 2_000), ("early", "Heartbeat", 3_000)]
    beats = wait(lane, 4_000)
    assert sorted(beats) == [("early", "Heartbeat", 4_000), ("late", "Heartbeat", 4_000)]


def test_end_is_never_before_a_heartbeat_that_the_lane_of_before_has_sent() -> None:
    """The new lane itself has not come so far."""
    (lane,) = moved(stopped(0, 1_500, start("early")), stopped(1, 3_500, start("late")))
    output = lane.apply([Fact(False, "late", "s", "pc", T + 2_200)], T + 1_500)
    assert list(map(shown, decoded(output.records))) == [("late", "SessionEnd", 3_000)]
    assert all(device == "early" for device, _, _ in wait(lane, 9_000))


def test_sessions_that_ended_stay_known() -> None:
    """A duplicate of a start that comes after the move begins nothing."""
    end = Fact(False, "d", "s", "pc", T + 500)
    lanes = moved(stopped(0, 1_000, start("d"), end), stopped(1, 700), lanes=3)
    lane = lanes[2]
    assert [len(one.table.wheel) for one in lanes] == [0, 0, 1]
    assert not lane.apply([start("d")], T + 1_000).records
    assert lane.state().version == STATE_VERSION


def test_what_sessions_carry_and_when_they_were_heard_moves_along() -> None:
    """Silence goes on counting where it did."""
    carrying = start("d", idle_ms=2_000, carried=b'"a":1')
    (lane,) = moved(stopped(0, 1_500, carrying), stopped(1, 700, start("e")))
    assert lane.state().version == LISTENING_VERSION
    sent = decoded(lane.advance(T + 2_000).records)
    (end,) = [event for event in sent if type(event).__name__ == "SessionEnd"]
    assert shown(end) == ("d", "SessionEnd", 2_000)
    assert bytes(end.context) == b'{"a":1}'  # type: ignore[arg-type]


def test_lanes_without_sessions_keep_the_latest_of_their_moments() -> None:
    """Those that were never read have none."""
    assert moved(Lane(0, 2, RULES))[0].watermark_ms == NEVER_MS
    first, second = (stopped(number, 500) for number in range(2))
    first.time.watermark_ms, second.time.watermark_ms = T, T + 500
    assert moved(first, second)[0].watermark_ms == T + 500


def test_device_that_is_active_in_two_lanes_is_refused() -> None:
    """In one lane it can have one active session."""
    with pytest.raises(ConfigError, match="device d has active sessions in several lanes"):
        moved(stopped(0, 500, start("d")), stopped(1, 500, start("d", 100)))
