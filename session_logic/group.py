"""The sessions of one group of devices, by device."""

from itertools import chain

from session_logic.rules import Session


class Group:
    """The active session of each device, and those that ended lately."""

    __slots__ = ("active", "ended")

    def __init__(self) -> None:
        """Begin without sessions."""
        self.active: dict[str, Session] = {}
        self.ended: dict[str, list[Session]] = {}

    def put(self, session: Session) -> None:
        """Add a session, active or ended."""
        if session.ended_ms:
            self.ended.setdefault(session.device_id, []).append(session)
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
        self.ended.setdefault(session.device_id, []).append(session)

    def forget(self, session: Session) -> None:
        """Drop an ended session."""
        left = [other for other in self.ended[session.device_id] if other is not session]
        if left:
            self.ended[session.device_id] = left
        else:
            del self.ended[session.device_id]

    def sessions(self) -> list[Session]:
        """Return all of them, active and ended."""
        return [*self.active.values(), *chain.from_iterable(self.ended.values())]
