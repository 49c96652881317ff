"""The time of a lane: how far it has come, how far it may go on, and when it goes in one step.

The watermark is how far time has come: every heartbeat and timeout due at or before it has fired,
none that is due later has. Where more falls due in one millisecond than one call should fire, time
comes to some key groups before it comes to the others. The watermark only rises, but for one case:
a store was run with a clock that was ahead. Then a restore sets it back to the true time, and every
session remembers up to when it was sent.

Phases. A lane with a state begins RESTORING: facts are stored, but wait until every row of the
store is there. Then it is CATCHING_UP, and a new lane is so from the beginning: the run stood
still for a while, or was not there yet, and the input holds what came meanwhile. So nothing fires
before the clock has come to the moment at which catching up began. Then the lane leaps to that
moment in one step, and is LIVE. With catch_up `latest`, a session gets only the newest of the
heartbeats that fell due meanwhile. A lane that is LIVE but stood still for over PAUSE_MS leaps as
well.
"""

from enum import Enum, auto
from typing import NamedTuple

from session_logic.clock import LaneClock
from session_logic.events import Watermark
from session_logic.hearing import Hearing
from session_logic.rules import Rules
from session_logic.silence import DEAF_MS

NEVER_MS = -1
# A lane that stood still for longer, though it runs, has had an outage.
PAUSE_MS = 10_000


class Phase(Enum):
    """What a lane is doing; see the head of this module."""

    RESTORING = auto()
    CATCHING_UP = auto()
    LIVE = auto()


class Leap(NamedTuple):
    """A step in which time does not pass moment by moment.

    Sessions go on from a watermark to the lane's time: with timeouts_only all that times out by
    then, else also the heartbeats between. After it time has come to then_ms.
    """

    watermark: Watermark
    then_ms: int
    timeouts_only: bool


class LaneTime:
    """Decides by the clock, the phase and the watermark of a lane; fires nothing itself."""

    def __init__(self, watermark_ms: int, next_group: int, hearing: Hearing) -> None:
        """Begin catching up from a watermark; next_group is that of Watermark."""
        self.clock = LaneClock()
        self.hearing = hearing
        self.phase = Phase.CATCHING_UP
        self.watermark_ms = watermark_ms
        self.next_group = next_group
        self._catch_up_to_ms: int | None = None

    @property
    def resuming(self) -> bool:
        """Whether the lane has not yet caught up with the time before its start."""
        return self.phase is not Phase.LIVE

    def watermark(self, rules: Rules) -> Watermark:
        """Return how far time has come, as facts are applied by it."""
        newest_only = self.resuming and rules.catch_up == "latest"
        return Watermark(self.watermark_ms, newest_only, self.next_group)

    def come_to(self, watermark: Watermark) -> None:
        """Take note of how far time has come."""
        self.watermark_ms, self.next_group = watermark.upto_ms, watermark.next_group

    def lag_ms(self, now_ms: int, *, has_sessions: bool) -> int | None:
        """Return how far the lane's time is behind now_ms, or None while that is not known.

        A lane without sessions fires nothing: its time is what its clock says. now_ms may be from
        before the lane's last turn, which is no lag.
        """
        if self.watermark_ms != NEVER_MS and (has_sessions or self.resuming):
            return max(0, now_ms - self.watermark_ms)
        time_ms = self.clock.time_ms(now_ms)
        return None if time_ms is None else max(0, now_ms - time_ms)

    def may_come_to(self, now_ms: int, rules: Rules) -> int | None:
        """Return the time up to which the lane may fire now, or None if it must wait.

        It waits while rows are missing, while no partition is known, and with catch_up `latest`
        until the clock has come to the moment at which catching up began.
        """
        time_ms = self.clock.time_ms(now_ms)
        if self.phase is Phase.RESTORING or time_ms is None:
            return None
        if self.phase is Phase.CATCHING_UP:
            self._catch_up_to_ms = self._catch_up_to_ms or now_ms
            if rules.catch_up == "latest" and time_ms < self._catch_up_to_ms:
                return None
        return time_ms

    def heard_from(self, time_ms: int, now_ms: int) -> int | None:
        """Return the moment from which silence counts anew, or None if it goes on counting.

        It does so where an outage has ended, and never (DEAF_MS) while one goes on.
        """
        clock, hearing, watermark_ms = self.clock, self.hearing, self.watermark_ms
        restarted = hearing.has_restarted(now_ms, watermark_ms)
        deaf = clock.leaves or ((hearing.deaf or restarted) and not clock.live)
        if deaf is not hearing.deaf:
            return DEAF_MS if deaf else time_ms
        if deaf:
            return None
        if restarted or (time_ms > watermark_ms and hearing.has_stalled(now_ms)):
            return now_ms
        return time_ms if hearing.was_deaf(time_ms, watermark_ms) else None

    def leap(self, time_ms: int, rules: Rules) -> Leap | None:
        """Return the step in which time goes on, where it is not to pass moment by moment."""
        step_ms = time_ms - self.watermark_ms
        heartbeat_ms = max(rules.intervals_ms)
        paused = self.watermark_ms != NEVER_MS and step_ms > PAUSE_MS
        outage = self.phase is Phase.CATCHING_UP or paused
        if outage and rules.catch_up == "latest" and step_ms > heartbeat_ms:
            newest_only = Watermark(self.watermark_ms, newest_only=True)
            return Leap(newest_only, time_ms - heartbeat_ms, timeouts_only=True)
        if step_ms > rules.max_session_ms + heartbeat_ms:
            return Leap(Watermark(self.watermark_ms), time_ms, timeouts_only=False)
        return None

    def note_turn(self, before: Watermark, time_ms: int, now_ms: int) -> None:
        """Take note of whether time has gone on, and has come as far as all input has."""
        moved = (self.watermark_ms, self.next_group) != (before.upto_ms, before.next_group)
        abreast = self.clock.live and self.watermark_ms == time_ms
        self.hearing.note_turn(now_ms, moved=moved, abreast=abreast)
