"""The clock of a run: what it makes of a wall clock that is corrected, set, wrong and put right."""

from itertools import pairwise

import pytest

from dataflows.clock import SLEW, STEP_S, SteadyClock, system_time
from tests.support.clocks import T

HOUR_S = 3_600.0
TICK_S = 0.01


class Machine:
    """The two clocks of a machine: one that can be set, and one that cannot."""

    def __init__(self) -> None:
        self.wall_s, self.unset_s = T / 1000, 1_000.0
        self.clock = SteadyClock(lambda: self.wall_s, lambda: self.unset_s)

    def pass_time(self, seconds: float) -> list[int]:
        """Let time pass evenly; return what the run's clock tells, tick by tick."""
        told = []
        for _ in range(round(seconds / TICK_S)):
            self.wall_s += TICK_S
            self.unset_s += TICK_S
            told.append(self.clock.now_ms())
        return told

    def apart_s(self) -> float:
        """Return by how much the run's clock is ahead of the wall clock."""
        return self.clock.now_ms() / 1000 - self.wall_s


@pytest.fixture
def machine() -> Machine:
    """Return a machine whose run has started."""
    return Machine()


def test_clock_that_nobody_sets_tells_the_wall_clocks_time(machine: Machine) -> None:
    """From the start on."""
    assert machine.clock.now_ms() == T
    machine.pass_time(60)
    assert machine.apart_s() == pytest.approx(0, abs=0.002)


@pytest.mark.parametrize("step_s", [0.05, 0.49, -0.05, -0.49])
def test_small_correction_is_slewed(machine: Machine, step_s: float) -> None:
    """Time passes a tenth faster or slower until it is made up for, within five seconds."""
    machine.wall_s += step_s
    told = machine.pass_time(STEP_S / SLEW)
    steps = [after - before for before, after in pairwise(told)]
    assert min(steps) >= 1000 * TICK_S * (1 - SLEW) - 1.01
    assert max(steps) <= 1000 * TICK_S * (1 + SLEW) + 1.01
    assert machine.apart_s() == pytest.approx(0, abs=0.002)


@pytest.mark.parametrize("step_s", [0.51, 10.0, 600.0, HOUR_S, 30 * 24 * HOUR_S])
def test_wall_clock_that_is_set_forward_is_followed_at_once(
    machine: Machine, step_s: float
) -> None:
    """Wrong or put right: what is in the future is judged by the wall clock as it now is."""
    machine.pass_time(1)
    machine.wall_s += step_s
    machine.pass_time(TICK_S)
    assert machine.apart_s() == pytest.approx(0, abs=0.002)


@pytest.mark.parametrize("step_s", [0.51, 1.0, 2.0])
def test_wall_clock_that_is_set_back_is_waited_for(machine: Machine, step_s: float) -> None:
    """Time stands still, and never goes back; all is right within a few seconds."""
    before_ms = machine.clock.now_ms()
    machine.wall_s -= step_s
    told = machine.pass_time(step_s + STEP_S / SLEW)
    assert told == sorted(told)
    assert told[0] == before_ms
    assert machine.apart_s() == pytest.approx(0, abs=0.002)


def test_suspended_machine_has_the_true_time_when_it_goes_on(machine: Machine) -> None:
    """Both clocks have gone on meanwhile."""
    machine.wall_s += HOUR_S
    machine.unset_s += HOUR_S
    assert machine.clock.now_ms() == T + 1000 * HOUR_S


def test_paused_guest_has_the_true_time_once_its_wall_clock_is_set(machine: Machine) -> None:
    """Neither clock has gone on meanwhile; then the host sets one of them."""
    machine.pass_time(5)
    machine.wall_s += HOUR_S
    assert machine.clock.now_ms() == pytest.approx(T + 1000 * (HOUR_S + 5), abs=2)


def test_wall_clock_set_wrong_and_back_within_a_run_is_waited_for(machine: Machine) -> None:
    """Until the run is ended, it tells no time twice."""
    machine.wall_s += HOUR_S
    ahead_ms = machine.clock.now_ms()
    machine.wall_s -= HOUR_S
    assert set(machine.pass_time(1)) == {ahead_ms}


def test_pause_between_the_two_readings_is_made_up_for() -> None:
    """The wall clock's reading may be later than the other one's."""
    readings = iter([0.0, 0.0, 5.0])
    walls = iter([100.0, 105.0, 105.0])
    clock = SteadyClock(lambda: next(walls), lambda: next(readings))
    assert clock.now_ms() == 105_000
    assert clock.now_ms() == 105_000


def test_moment_is_told_by_the_wall_clock_as_it_is_set(machine: Machine) -> None:
    """Bytewax sets its timers by it."""
    machine.wall_s += 0.3
    now_ms = machine.clock.now_ms()
    assert machine.clock.at_ms(now_ms + 50) == system_time(machine.wall_s * 1000 + 50)
