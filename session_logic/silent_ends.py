"""Ends for silence that a run which crashed has sent, and that its store does not tell.

They may depend on what that run alone knew: in which order it read several partitions, and what
came late. So a lane learns them from the output, and each counts as soon as time, or a fact of its
device, has come to it. It is applied as the fact that the session has ended.

What would break it: an end that is forgotten before input of its device may still come that is
older, or one that comes about twice.
"""

from collections.abc import Iterable, Iterator, Mapping

from session_logic.events import Fact, SessionName
from session_logic.rules import is_due
from session_logic.table import SessionTable


class SilentEnds:
    """The ends that are out, of sessions that may still be active here."""

    def __init__(self, *, wanted: bool) -> None:
        """Begin without any; wanted says that they are still to be learned."""
        self.wanted = wanted
        self._ends_ms: dict[SessionName, int] = {}

    def __bool__(self) -> bool:
        """Say whether an end is left that has not come about."""
        return bool(self._ends_ms)

    def learn(self, ends_ms: Mapping[SessionName, int]) -> None:
        """Take in which ends are out, and when each of them was."""
        self.wanted = False
        self._ends_ms = dict(ends_ms)

    def before(self, facts: Iterable[Fact], table: SessionTable) -> Iterator[tuple[Fact, bool]]:
        """Yield facts, each after the end of its device's session that is out and not later.

        With each goes whether it is such an end. Between two of them the table must take in the
        first.
        """
        for fact in facts:
            end = self._end(fact.device_id, fact.time_ms, table)
            if end is not None:
                yield end, True
            yield fact, False

    def due(self, upto_ms: int, table: SessionTable) -> list[Fact]:
        """Return the ends that have come about by a moment."""
        devices = dict.fromkeys(device_id for device_id, *_ in self._ends_ms)
        ends = [self._end(device_id, upto_ms, table) for device_id in devices]
        return [end for end in ends if end is not None]

    def _end(self, device_id: str, upto_ms: int, table: SessionTable) -> Fact | None:
        """Return the end of a device's active session, if it is out and was by a moment."""
        session = table.find(device_id) if self._ends_ms else None
        if session is None:
            return None
        name = device_id, session.session_id, session.started_ms
        if not is_due(self._ends_ms.get(name, upto_ms + 1), upto_ms):
            return None
        time_ms = self._ends_ms.pop(name)
        return Fact(False, device_id, session.session_id, session.platform, time_ms)

    def forget(self, upto_ms: int) -> None:
        """Forget the ends by a moment up to which everything is known."""
        self._ends_ms = {
            name: time_ms for name, time_ms in self._ends_ms.items() if not is_due(time_ms, upto_ms)
        }
