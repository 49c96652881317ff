"""Clocks of tests."""

from datetime import datetime

from msgspec import Struct

from dataflows.clock import system_time

T = 1_700_000_000_000


class FixedClock(Struct):
    """A clock that stands still where it is put."""

    now: int = T

    def now_ms(self) -> int:
        return self.now

    def at_ms(self, time_ms: int) -> datetime:
        return system_time(time_ms)
