"""The clock of a run, the only one that the dataflow reads.

It tells the time of the wall clock, but evenly, and it never goes back while a run lasts. What it
guarantees: it is at most `STEP_S` beside the wall clock, except while it waits for a wall clock
that was set back.

- The wall clock is corrected a little, as NTP does all the while: this clock slews towards it, so
  that no heartbeat is skipped or sent in a heap. At `SLEW`, a correction of `STEP_S` takes 5 s.
- The wall clock is set forward by more: this clock follows at once. For the lanes that is what a
  pause of the process is: known ends of input are asked for again, and a step of over 10 s is an
  outage. A wrong clock that is put right is right from then on, and so is what it judges.
- The wall clock is set back by more: this clock stands still until it has come up. It does so for
  2 s at most, because beyond that heartwheel.signals ends the run. The next run starts with the
  time of the wall clock, whatever an earlier run has reached: if that is later, the lanes send no
  heartbeat again, and wait.

The time between two readings is that of a clock which nobody can set, and which goes on while the
machine is suspended (CLOCK_BOOTTIME where there is one).

What would break it: a larger `STEP_S` or a smaller `SLEW`, because a difference then lasts for as
long as one divided by the other; a smaller `STEP_S`, because time daemons step the clock by tenths
of a second as well (ntpd from 0.128 s on, systemd from 0.4 s on), and heartbeats would come in
heaps.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# How fast this clock approaches a wall clock that was corrected, in seconds a second.
SLEW = 0.1
# A difference of more than this is not approached but followed at once.
STEP_S = 0.5


class Clock(Protocol):
    """Tells the time in milliseconds since 1970, and when that is for Bytewax."""

    def now_ms(self) -> int:
        """Return the time."""
        ...

    def at_ms(self, time_ms: int) -> datetime:
        """Return the time by Bytewax's clock, the wall clock, at which now_ms will be time_ms."""
        ...


def boot_time_s() -> float:
    """Return the time of the clock that nobody can set, and that goes on in a suspend."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class SteadyClock:
    """The wall clock without its small steps, and never set back."""

    def __init__(
        self, wall_s: Callable[[], float] = time.time, unset_s: Callable[[], float] = boot_time_s
    ) -> None:
        """Start at the wall clock's time."""
        self._wall_s, self._unset_s = wall_s, unset_s
        self._lock = Lock()
        self._read_s = unset_s()
        self._now_s = wall_s()

    def now_ms(self) -> int:
        """Return the time; it never goes back."""
        with self._lock:  # worker threads share the clock
            read_s, wall_s = self._unset_s(), self._wall_s()
            passed_s = read_s - self._read_s
            self._read_s = read_s
            apart_s = wall_s - self._now_s - passed_s
            if abs(apart_s) > STEP_S:
                self._now_s = max(self._now_s, wall_s)
            else:
                limit_s = SLEW * passed_s
                self._now_s += passed_s + max(-limit_s, min(limit_s, apart_s))
            return int(self._now_s * 1000)

    def at_ms(self, time_ms: int) -> datetime:
        """Return the time by the wall clock as it is now set."""
        return system_time(self._wall_s() * 1000 + time_ms - self._now_s * 1000)


def elapsed_ms() -> int:
    """Return the time of a clock that nobody can set, and that stands still in a suspend.

    For how long something takes or waits: then a step of the wall clock is no time that passed.
    """
    return int(time.monotonic() * 1000)


def wall_offset_s() -> float:
    """Return the time of the wall clock minus that of the clock that nobody can set."""
    return time.time() - boot_time_s()


def system_time(time_ms: float) -> datetime:
    """Return a time of the wall clock as Bytewax wants it."""
    return _EPOCH + timedelta(milliseconds=time_ms)
