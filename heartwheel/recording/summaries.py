"""The check of recorded summaries: each says what a recorded end says, once and in its order.

The ends themselves are compared with the replay. So a summary need not be: where a run ended a
session otherwise than its replay, and may have, its summary is that of the run.
"""

from collections import defaultdict, deque
from collections.abc import Iterator
from typing import NamedTuple

from msgspec import MsgspecError

from heartwheel.recording.difference import Difference, Row
from heartwheel.recording.recorded import Recorded
from session_logic.codec import decode_summary
from session_logic.events import SessionEnd, SessionSummary
from session_logic.summary import summary_of


class _Wanted(NamedTuple):
    """The summary of a recorded end, and when that was sent."""

    value: bytes
    sent_ms: int


class Summaries:
    """What of the recorded ends and of the recorded summaries has no counterpart yet."""

    def __init__(self, from_ms: int, cut_ms: int) -> None:
        """Know what may be missing: of sessions before from_ms, and what was sent after cut_ms."""
        self._from_ms = from_ms
        self._cut_ms = cut_ms
        self._wanted: defaultdict[str, deque[_Wanted]] = defaultdict(deque)
        self._found: defaultdict[str, deque[bytes]] = defaultdict(deque)
        self._unreached: defaultdict[str, list[SessionEnd]] = defaultdict(list)
        self.counts = dict.fromkeys(("equal", "unreached", "earlier"), 0)

    def note_end(self, end: SessionEnd, sent_ms: int) -> None:
        """Take in an end that was recorded."""
        device = end.device_id
        self._wanted[device].append(_Wanted(summary_of(end), sent_ms))
        self._match(device)

    def note_unreached(self, end: SessionEnd) -> None:
        """Take in an end that the run had not sent when its recording ends; its summary it may."""
        self._unreached[end.device_id].append(end)

    def note(self, device: str, recorded: Recorded) -> None:
        """Take in a summary that was recorded."""
        assert isinstance(recorded.item, bytes)
        self._found[device].append(recorded.item)
        self._match(device)

    def _match(self, device: str) -> None:
        """Remove what is equal or earlier from both heads."""
        wanted, found = self._wanted[device], self._found[device]
        while wanted and found:
            if wanted[0].value == found[0]:
                self.counts["equal"] += 1
                wanted.popleft()
                found.popleft()
            elif self._is_earlier(found[0]):
                self.counts["earlier"] += 1
                found.popleft()
            elif self._is_earlier(wanted[0].value):
                self.counts["earlier"] += 1
                wanted.popleft()
            else:
                break
        for queues in (self._wanted, self._found):
            if not queues[device]:
                del queues[device]

    def differences(self) -> Iterator[Difference]:
        """Yield what is left by device, once all has been taken in."""
        for device in [*self._wanted, *(name for name in self._found if name not in self._wanted)]:
            difference = Difference(device, of="summary")
            wanted, found = self._wanted[device], self._found[device]
            while wanted and found:
                difference.add(_unequal(wanted, found))
                self._match(device)
                wanted, found = self._wanted[device], self._found[device]
            for end in wanted:
                if end.sent_ms > self._cut_ms:
                    self.counts["unreached"] += 1
                elif self._is_earlier(end.value):
                    self.counts["earlier"] += 1
                else:
                    difference.add((end.value, None))
            for value in found:
                if self._is_unreached(device, value):
                    self.counts["unreached"] += 1
                elif self._is_earlier(value):
                    self.counts["earlier"] += 1
                else:
                    difference.add((None, value))
            if difference.count:
                yield difference

    def _is_unreached(self, device: str, value: bytes) -> bool:
        """Say whether a summary is of an end that is not recorded yet; each end has only one.

        The run may have ended the session later than the replay does.
        """
        found = _decoded(value)
        ends = self._unreached[device]
        for end in ends:
            if (
                found is not None
                and (found.session_id, found.started_ms) == (end.session_id, end.started_ms)
                and found.ended_ms >= end.time_ms
            ):
                ends.remove(end)
                return True
        return False

    def _is_earlier(self, value: bytes) -> bool:
        """Say whether a summary is of a session that began before the recording."""
        found = _decoded(value)
        return found is not None and found.started_ms < self._from_ms


def _decoded(value: bytes) -> SessionSummary | None:
    """Return what a summary says; None for a record of another program."""
    try:
        return decode_summary(value)
    except (MsgspecError, UnicodeDecodeError):
        return None


def _unequal(wanted: deque[_Wanted], found: deque[bytes]) -> Row:
    """Remove both heads, or only the one whose counterpart is missing."""
    if wanted[0].value in found:
        return None, found.popleft()
    if any(end.value == found[0] for end in wanted):
        return wanted.popleft().value, None
    return wanted.popleft().value, found.popleft()
