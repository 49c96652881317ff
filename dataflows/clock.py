"""The clock of a run, the only one that the dataflow reads."""

import time
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# How fast this clock approaches a wall clock that was set, in seconds a second.
SLEW = 0.1


class Clock(Protocol):
    """Tells the time in milliseconds since 1970, and when that is for Bytewax."""

    def now_ms(self) -> int:
        """Return the time."""
        ...

    def at_ms(self, time_ms: int) -> datetime:
        """Return the time by Bytewax's clock, the wall clock, at which now_ms will be time_ms."""
        ...

    def not_before(self, time_ms: int) -> None:
        """Tell no time before this one, which an earlier run has reached."""
        ...


class SteadyClock:
    """The wall clock without its steps.

    It starts at the wall clock's time and advances with the clock that nobody can set
    (CLOCK_BOOTTIME where there is one). When the wall clock is set, this one approaches it slowly,
    so that a step neither skips heartbeats nor stops them.
    """

    def __init__(self) -> None:
        """Start at the wall clock's time."""
        self._lock = Lock()
        self._steady_s = _steady_s()
        self._now_s = time.time()

    def now_ms(self) -> int:
        """Return the time; it never goes back."""
        with self._lock:  # worker threads share the clock
            steady_s = _steady_s()
            passed_s = steady_s - self._steady_s
            self._steady_s = steady_s
            apart_s = time.time() - self._now_s - passed_s
            limit_s = SLEW * passed_s
            self._now_s += passed_s + max(-limit_s, min(limit_s, apart_s))
            return int(self._now_s * 1000)

    def not_before(self, time_ms: int) -> None:
        """Go on from this time if it is ahead: the wall clock may have been set back meanwhile."""
        self._now_s = max(self._now_s, time_ms / 1000)

    def at_ms(self, time_ms: int) -> datetime:
        """Return the time by the wall clock as it is now set."""
        return system_time(time.time() * 1000 + time_ms - self._now_s * 1000)


def wall_offset_s() -> float:
    """Return the time of the wall clock minus that of the clock that nobody can set."""
    return time.time() - _steady_s()


def _steady_s() -> float:
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def system_time(time_ms: float) -> datetime:
    """Return a time of the wall clock as Bytewax wants it."""
    return _EPOCH + timedelta(milliseconds=time_ms)
