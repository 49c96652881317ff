"""When sessions end because nothing is heard of them.

Every session with an idle timeout is in the slot of the millisecond at which it ends if nothing
more is heard of it. What is heard only moves its last_seen_ms, and the session is put into a later
slot when its slot comes: one move a timeout, whatever the number of pings.

Silence counts only while one could be heard. Where the input stood still, all sessions have until
a whole timeout after the moment at which it went on: hearing_ms.
"""

from collections.abc import Iterable

from session_logic.rules import Session, WatchedSession

# A time without input that is no longer is no outage.
STALL_MS = 2_000
# A hearing_ms of this says that nobody is heard: silence ends no session.
DEAF_MS = 1 << 60
# What is last heard of a session moves in steps of this part of its timeout.
STEPS = 10


class Silence:
    """The sessions with an idle timeout, by when it is over; a ring of the wheel, of its own kind.

    Ended ones are left in their slots until these come.
    """

    timeouts = True

    def __init__(self) -> None:
        """Know no sessions."""
        self.slots: dict[int, list[Session]] = {}
        self.hearing_ms = 0

    def due_ms(self, session: WatchedSession) -> int:
        """Return when a session ends if nothing more is heard of it."""
        return max(session.last_seen_ms, self.hearing_ms) + session.idle_timeout_ms

    def put(self, sessions: Iterable[Session]) -> None:
        """Put those of the sessions that have an idle timeout and are active into their slots."""
        for session in sessions:
            if isinstance(session, WatchedSession) and not session.ended_ms:
                self.slots.setdefault(self.due_ms(session), []).append(session)

    def hear(self, since_ms: int, sessions: Iterable[Session]) -> None:
        """Count silence from a moment on, for all active sessions."""
        was_deaf = self.hearing_ms == DEAF_MS
        self.hearing_ms = since_ms
        if was_deaf:  # no slot that is still to come has them
            self.slots.clear()
            self.put(sessions)

    def keep(self, time_ms: int, sessions: list[Session]) -> None:
        """Leave the slot of a moment, which is over, and put these sessions of it further."""
        del self.slots[time_ms]
        self.put(sessions)

    def pass_over(self, upto_ms: int) -> None:
        """Leave the slots up to a moment to which time has jumped: what was due has been ended."""
        for time_ms in [time_ms for time_ms in self.slots if time_ms <= upto_ms]:
            self.put(self.slots.pop(time_ms))


def is_news(session: WatchedSession, time_ms: int) -> bool:
    """Say whether something heard at a moment changes a session: what is last heard of it."""
    return (time_ms - session.last_seen_ms) * STEPS >= session.idle_timeout_ms
