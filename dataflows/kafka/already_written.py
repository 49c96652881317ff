"""What a crashed run has left of a lane in its partitions, and what is still to be sent.

Learned on a resume (see reconcile.py), and asked for each record that the lane makes again. The
rules are in the head of outbox.py.
"""

from typing import cast

from msgspec.structs import astuple, replace

from session_logic.events import (
    EndIfOpen,
    EndOfSummary,
    Heartbeat,
    OutputEvent,
    SessionActive,
    SessionEnd,
    SessionName,
)
from session_logic.summary import end_of, summary_of

LAST = float("inf")


def place_of(event: OutputEvent) -> tuple[SessionName, float]:
    """Return the session of a record, and its place there."""
    place = 0.0 if isinstance(event, SessionActive) else LAST
    if isinstance(event, Heartbeat):
        place = event.sequence
    return (event.device_id, event.session_id, event.started_ms), place


class AlreadyWritten:
    """What a lane's partitions hold: how far each session has come, and the newest time."""

    def __init__(self) -> None:
        """Begin with empty partitions."""
        self.places: dict[SessionName, float] = {}  # by the topic of all but what is apart
        # Sequence and time of the newest heartbeat of each session.
        self._heartbeats: dict[SessionName, tuple[int, int]] = {}
        self._ends: dict[SessionName, SessionEnd] = {}
        self._summaries: dict[SessionName, EndOfSummary | None] = {}  # None: not known what
        self.newest_ms = -1

    def __bool__(self) -> bool:
        """Say whether there is anything."""
        return self.newest_ms >= 0

    def add(self, event: OutputEvent, *, apart: bool = False) -> None:
        """Note a record that was found, in a topic apart or not; each has a session's in order."""
        name, place = place_of(event)
        self.newest_ms = max(self.newest_ms, event.time_ms)
        if isinstance(event, EndOfSummary):
            self._summaries[name] = event
            return
        if not apart:
            self.places[name] = place
        if isinstance(event, Heartbeat):
            newest = event.sequence, event.time_ms
            self._heartbeats[name] = max(newest, self._heartbeats.get(name, newest))
        elif isinstance(event, SessionEnd):
            self._ends[name] = event

    def silent_ends(self) -> dict[SessionName, int]:
        """Return when each session ended of which an end for silence is there, or its summary."""
        ends_ms = {
            name: one.time_ms
            for name, one in self._summaries.items()
            if one is not None and one.reason == "went_silent"
        }
        for name, end in self._ends.items():
            if end.reason == "went_silent":
                ends_ms[name] = end.time_ms
        return ends_ms

    def has(self, event: OutputEvent, *, apart: bool = False) -> bool:
        """Say whether a record is there, or one that comes after it in its session.

        After one that goes to a topic apart comes what has a later time.
        """
        name, place = place_of(event)
        if isinstance(event, Heartbeat):
            if event.sequence <= self._heartbeats.get(name, (0, 0))[0]:
                return True
            summary = self._summaries.get(name)
            if summary is not None and summary.time_ms < event.time_ms:
                return True  # none follows an end of which the summary alone is there
            if apart:
                return name in self._ends and self._ends[name].time_ms < event.time_ms
        return place <= self.places.get(name, -1)

    def lacking(self, end: EndIfOpen) -> list[OutputEvent]:
        """Return what is missing of a session that is there without its end."""
        name, _ = place_of(end)
        if name in self._ends or not (name in self.places or name in self._heartbeats):
            return []
        lacking: list[OutputEvent] = [self.not_contradicted(SessionEnd(*astuple(end)[:-1]))]
        if name not in self.places:  # only heartbeats are there, which went to another topic
            started_ms, context = end.started_ms, end.context
            start = SessionActive(*name[:2], end.platform, started_ms, started_ms, context)
            lacking.insert(0, start)
        return lacking

    def not_contradicted(self, event: OutputEvent) -> OutputEvent:
        """Return a record as it may follow what is there: no end is before a heartbeat.

        The crashed run may have sent heartbeats that are due after an end which it had not read.
        An end is as the summary says that is there.
        """
        summary = self._summaries.get(place_of(event)[0])
        if isinstance(event, SessionEnd) and summary is not None:
            return replace(
                event,
                time_ms=summary.time_ms,
                reason=summary.reason,
                duration_ms=summary.duration_ms,
                last_seen_ms=summary.last_seen_ms,
                context=summary.context,
            )
        _, heartbeat_ms = self._heartbeats.get(place_of(event)[0], (0, -1))
        if not isinstance(event, SessionEnd) or event.time_ms >= heartbeat_ms:
            return event
        duration_ms = heartbeat_ms - event.started_ms
        if event.reason == "went_silent":
            duration_ms = event.duration_ms  # to the moment at which it was last heard of
        return replace(event, time_ms=heartbeat_ms, duration_ms=duration_ms)

    def missing_summary(self, value: bytes) -> bytes | None:
        """Return a summary as it may stand beside the end that is there, None if one is there."""
        told = end_of(value)
        name, _ = place_of(told)
        if name in self._summaries:
            return None
        end = self._ends.get(name) or self.not_contradicted(told)
        return summary_of(cast("SessionEnd", end))

    def lacking_summary(self, end: EndIfOpen) -> bytes | None:
        """Return the summary of a session that has its end there, and no summary."""
        name, _ = place_of(end)
        found = self._ends.get(name)
        return summary_of(found) if found is not None and name not in self._summaries else None

    def note_summary(self, end: SessionEnd) -> None:
        """Note that the summary of a session is there, or has been sent since."""
        self._summaries.setdefault(place_of(end)[0], None)
