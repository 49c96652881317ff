"""The sessions of one key group (a fixed part of the devices), by device."""

from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple

from session_logic.rules import Session, has_begun

# How many ended sessions of a device are remembered at most: what one device costs has a bound.
MAX_ENDED = 16


# A session's id, and whether it has begun: an end that came early is kept beside an earlier life.
# Ends without an id may be of several sessions: they are told apart by their times.
_Key = tuple[str, bool, int]


def _key(session: Session) -> _Key:
    name = session.session_id
    return name, has_begun(session), 0 if name else session.ended_ms


class Forgotten(NamedTuple):
    """An ended session that is remembered no longer, and whether only for want of room."""

    session: Session
    crowded_out: bool


class KeyGroup:
    """The active session of each device, and those that ended lately."""

    __slots__ = ("_ended", "active")

    def __init__(self) -> None:
        """Make a group without sessions."""
        self.active: dict[str, Session] = {}
        # Seldom more than one. A container for each would be walked by the garbage collector.
        self._ended: dict[str, Session | dict[_Key, Session]] = {}

    def ended(self, device_id: str) -> Iterable[Session]:
        """Return the sessions of a device that ended lately, the oldest end first."""
        found = self._ended.get(device_id) if self._ended else None
        if found is None:
            return ()
        return (found,) if isinstance(found, Session) else found.values()

    def put(self, session: Session) -> Forgotten | None:
        """Add a session, active or ended; return the one that is remembered no longer for it."""
        if session.ended_ms:
            return self._remember(session)
        self.active[session.device_id] = session
        return None

    def load(self, sessions: list[Session]) -> list[Session]:
        """Add many sessions; return the active ones."""
        active = [session for session in sessions if not session.ended_ms]
        self.active.update(zip([session.device_id for session in active], active, strict=True))
        if len(active) < len(sessions):
            for session in sessions:
                if session.ended_ms:
                    self._remember(session)
        return active

    def end(self, session: Session) -> Forgotten | None:
        """Move the active session of a device to those that ended lately.

        Returns the ended session that is remembered no longer, if there is one.
        """
        del self.active[session.device_id]
        return self._remember(session)

    def _remember(self, session: Session) -> Forgotten | None:
        """Remember an ended session; return the one whose place it takes."""
        found = self._ended.get(session.device_id)
        if found is None:
            self._ended[session.device_id] = session
            return None
        if isinstance(found, Session):
            found = self._ended[session.device_id] = {_key(found): found}
        earlier = found.pop(_key(session), None)  # an earlier life under the same id
        crowded_out = earlier is None and len(found) == MAX_ENDED
        gone = found.pop(next(iter(found))) if crowded_out else earlier
        found[_key(session)] = session
        return None if gone is None else Forgotten(gone, crowded_out)

    def forget(self, session: Session) -> None:
        """Drop an ended session, if it is still remembered."""
        found = self._ended.get(session.device_id)
        if found is session:
            del self._ended[session.device_id]
        elif isinstance(found, dict) and found.get(_key(session)) is session:
            del found[_key(session)]
            if not found:
                del self._ended[session.device_id]

    def sessions(self) -> list[Session]:
        """Return all of them: the active ones, then the ended ones of each device in order."""
        return [*self.active.values(), *chain.from_iterable(map(self.ended, self._ended))]
