"""Sessions moved to another number of lanes: nothing is lost or doubled, against the slow model."""

import random

import pytest

from session_logic.clock import PartitionProgress
from session_logic.events import Fact
from session_logic.keys import key_group_of, lane_of
from session_logic.lane import Lane
from session_logic.move import Move
from session_logic.restoring import Restoration
from session_logic.rules import Rules
from tests.simulation.moving import DEVICES, Run
from tests.support.events import by_device, decoded
from tests.support.lanes import BEGIN_MS


@pytest.mark.parametrize("first", [0, pytest.param(50, marks=pytest.mark.slow)])
def test_lanes_split_and_merged_lose_and_double_nothing(first: int) -> None:
    """Over old and new lanes each device's records are the model's, wherever lanes stopped."""
    owed = 0
    for seed in range(first, first + 50):
        counts = random.Random(seed).choices([1, 2, 4, 8, 16], k=4)
        run = Run(seed, counts[0])
        for lanes in [*counts[1:], counts[-1]]:
            run.work()
            before = len(run.got)
            run.move(lanes)
            owed += len(run.got) - before
        run.pass_time()
        assert by_device(run.got) == by_device(run.want), f"seed={seed}"
    assert owed > 100


def test_owed_records_are_sent_once_and_stored_until_then() -> None:
    """A group from a lane that was behind is made up for when its base comes, and only then."""
    rules = Rules(1_000, 10_000)
    devices = [next(d for d in DEVICES if lane_of(key_group_of(d), 2) == lane) for lane in (0, 1)]
    old = [Lane(number, 2, rules) for number in (0, 1)]
    for lane, device, stop_ms in zip(old, devices, (900, 2_500), strict=True):
        lane.update(PartitionProgress("topic/0", 1, None))
        lane.apply([Fact(True, device, "s", "pc", BEGIN_MS)], BEGIN_MS)
        for passed_ms in range(100, stop_ms + 1, 100):
            lane.advance(BEGIN_MS + passed_ms)
    move = Move(1)
    rows = [row for lane in old for row in move.take(lane)]
    (state,) = move.states()
    assert state.watermark_ms == BEGIN_MS + 2_500
    assert state.moved_watermarks == {key_group_of(devices[0]): BEGIN_MS + 900}
    lane = Lane(0, 1, rules, state)
    sent = []
    for row in rows:
        sent += decoded(lane.restore(row, BEGIN_MS).records)
    assert [(e.device_id, e.time_ms - BEGIN_MS) for e in sent] == [(devices[0], 2_000)]
    assert lane.state().moved_watermarks == {}


def test_forgotten_debt_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lane that sends nothing of what a moved group owes differs from the model."""
    monkeypatch.setattr(Restoration, "_owed_by_moved_group", lambda _self, _group, some: ([], some))
    with pytest.raises(AssertionError):
        test_lanes_split_and_merged_lose_and_double_nothing(0)
