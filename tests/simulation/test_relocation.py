"""Sessions moved to other lanes device by device: nothing is lost or doubled, by the slow model."""

import random
from zlib import crc32

import pytest

from session_logic.journal import BaseRow
from session_logic.lane import Lane
from session_logic.lane_time import NEVER_MS
from session_logic.relocation import Relocation
from session_logic.restoring import LaneState
from session_logic.rules import Rules
from tests.simulation.moving import DEVICES, Run
from tests.support.events import by_device


class Rerouted(Run):
    """Lanes that have devices by a hash that is another one after each move."""

    moves = 0

    def lane_of(self, device: str, lanes: int) -> int:
        """Return where a device is, with so many lanes."""
        return crc32(f"{self.moves} {device}".encode()) % lanes

    def devices(self, lane: Lane) -> list[str]:
        """Return the devices of a lane."""
        return [device for device in DEVICES if self.lane_of(device, lane.lanes) == lane.lane]

    def after_ms(self, device: str, lane: Lane) -> int:
        """Return up to when the records of a device are out: its lane may be behind that."""
        return max(lane.watermark_ms, self.fired_ms.get(device, NEVER_MS))

    def moved(self, old: list[Lane], lanes: int) -> tuple[list[BaseRow], list[LaneState]]:
        """Return what the new lanes have."""
        self.moves += 1
        relocation = Relocation(lanes, lambda device: self.lane_of(device, lanes))
        for lane in old:
            relocation.take(lane)
        return list(relocation.rows()), relocation.states()


def play(first: int) -> int:
    """Play histories from a seed on; return in how many a lane was behind what was out."""
    behind = 0
    for seed in range(first, first + 50):
        counts = random.Random(seed).choices([1, 2, 3, 5, 8, 16], k=4)
        run = Rerouted(seed, counts[0])
        for lanes in [*counts[1:], counts[-1]]:
            run.work()
            run.move(lanes)
            behind += any(
                run.fired_ms.get(device, NEVER_MS) > lane.watermark_ms
                for lane in run.lanes
                for device in run.devices(lane)
            )
        for _ in range(2):
            run.pass_time()
        assert by_device(run.got) == by_device(run.want), f"seed={seed}"
    return behind


@pytest.mark.parametrize("first", [0, pytest.param(50, marks=pytest.mark.slow)])
def test_devices_in_other_lanes_lose_and_double_nothing(first: int) -> None:
    """Over old and new lanes each device's records are the model's, wherever lanes stopped."""
    assert play(first) > 50


def test_forgotten_moment_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that does not know up to when it is out differs from the model."""
    monkeypatch.setattr(Rules, "sent_until_ms", lambda _rules, _session, watermark_ms: watermark_ms)
    with pytest.raises(AssertionError, match="seed="):
        play(0)
