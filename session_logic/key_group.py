"""The sessions of one group of devices, by device."""

from collections.abc import Sequence
from itertools import chain

from session_logic.rules import Session


class KeyGroup:
    """The active session of each device, and those that ended lately."""

    __slots__ = ("_ended", "active")

    def __init__(self) -> None:
        """Begin without sessions."""
        self.active: dict[str, Session] = {}
        # Seldom more than one. A list for each device would be walked by the garbage collector.
        self._ended: dict[str, Session | list[Session]] = {}

    def ended(self, device_id: str) -> Sequence[Session]:
        """Return the sessions of a device that ended lately."""
        found = self._ended.get(device_id) if self._ended else None
        if found is None:
            return ()
        return found if isinstance(found, list) else (found,)

    def put(self, session: Session) -> None:
        """Add a session, active or ended."""
        if session.ended_ms:
            self._remember(session)
        else:
            self.active[session.device_id] = session

    def load(self, sessions: list[Session]) -> list[Session]:
        """Add many sessions; return the active ones."""
        active = [session for session in sessions if not session.ended_ms]
        self.active.update(zip([session.device_id for session in active], active, strict=True))
        if len(active) < len(sessions):
            for session in sessions:
                if session.ended_ms:
                    self.put(session)
        return active

    def end(self, session: Session) -> None:
        """Move the active session of a device to those that ended lately."""
        del self.active[session.device_id]
        self._remember(session)

    def _remember(self, session: Session) -> None:
        earlier = self.ended(session.device_id)
        self._ended[session.device_id] = [*earlier, session] if earlier else session

    def forget(self, session: Session) -> None:
        """Drop an ended session."""
        left = [other for other in self.ended(session.device_id) if other is not session]
        if left:
            self._ended[session.device_id] = left if len(left) > 1 else left[0]
        else:
            del self._ended[session.device_id]

    def sessions(self) -> list[Session]:
        """Return all of them, active and ended."""
        return [*self.active.values(), *chain.from_iterable(map(self.ended, self._ended))]
