"""The check of a recorded table of active sessions: the newest row of each device is right.

Rows come at least once, and compaction removes older ones: so it is the newest row that counts. It
is what follows from the last records of the device in the output, which are compared with the
replay.
"""

from collections import defaultdict
from collections.abc import Iterator

from msgspec import MsgspecError, Struct
from msgspec.json import decode

from heartwheel.recording.difference import Difference
from heartwheel.recording.recorded import Recorded
from session_logic.events import ActiveSession, Heartbeat, OutputEvent, SessionActive, SessionEnd
from session_logic.output import NO_SESSION, row_of


class _Wanted(Struct):
    """What the row of a device is by the output: its session, if one is active."""

    active: SessionActive | None
    sent_ms: int


class ActiveTable:
    """The session of each device by the output, and the newest row of each; all in memory."""

    def __init__(self, max_session_ms: int, from_ms: int, cut_ms: int) -> None:
        """Know what may be missing: of sessions before from_ms, and what was sent after cut_ms."""
        self._max_session_ms = max_session_ms
        self._from_ms = from_ms
        self._cut_ms = cut_ms
        self._wanted: dict[str, _Wanted] = {}
        self._newest: dict[str, bytes] = {}
        # What is due after the last record of a device: its row may be out, and that record not.
        self._unreached: defaultdict[str, list[bytes]] = defaultdict(list)
        self.counts = dict.fromkeys(("equal", "unreached", "earlier"), 0)

    def note_event(self, event: OutputEvent, sent_ms: int) -> None:
        """Take in a start or an end that was recorded; one of another session changes nothing."""
        wanted = self._wanted.setdefault(event.device_id, _Wanted(None, sent_ms))
        if isinstance(event, SessionActive):
            wanted.active, wanted.sent_ms = event, sent_ms
        elif isinstance(event, SessionEnd) and _is_of(event, wanted.active):
            wanted.active, wanted.sent_ms = None, sent_ms

    def note_unreached(self, event: OutputEvent) -> None:
        """Take in a start or an end that the run had not sent when its recording ends."""
        if not isinstance(event, Heartbeat):
            row = row_of(event, self._max_session_ms)
            self._unreached[event.device_id].append(row)

    def note(self, device: str, recorded: Recorded) -> None:
        """Take in a row that was recorded."""
        assert isinstance(recorded.item, bytes)
        self._newest[device] = recorded.item

    def differences(self) -> Iterator[Difference]:
        """Yield each device whose newest row is wrong, once all has been taken in."""
        for device in [*self._wanted, *(name for name in self._newest if name not in self._wanted)]:
            wanted = self._wanted.get(device)
            row = row_of(None if wanted is None else wanted.active, self._max_session_ms)
            found = self._newest.get(device, NO_SESSION)
            if found == row or found in self._unreached.get(device, ()):
                self.counts["equal"] += 1
            elif wanted is not None and wanted.sent_ms > self._cut_ms:
                self.counts["unreached"] += 1
            elif self._is_earlier(row) or self._is_earlier(found):
                self.counts["earlier"] += 1
            else:
                yield Difference(device, [(row, found)], 1, of="row")

    def _is_earlier(self, row: bytes) -> bool:
        """Say whether a row is of a session that began before the recording."""
        try:
            return row != NO_SESSION and decode(row, type=ActiveSession).started_ms < self._from_ms
        except (MsgspecError, UnicodeDecodeError):  # another program's
            return False


def _is_of(end: SessionEnd, active: SessionActive | None) -> bool:
    """Say whether an end is that of the active session."""
    return active is not None and (end.session_id, end.started_ms) == (
        active.session_id,
        active.started_ms,
    )
