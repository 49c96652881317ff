"""What a run says of itself in the log while it reads a backlog."""

from collections.abc import Callable
from datetime import UTC, datetime

from msgspec import Struct

from dataflows.logs import log

SAY_MS = 5_000


class Lag(Struct, frozen=True):
    """How far behind the consumer of a process is: events left, and the time it has come to."""

    events: int
    through_ms: int


class BacklogLog:
    """Counts what is read while there is a backlog, and says so every few seconds."""

    def __init__(self) -> None:
        """Begin with no backlog."""
        self._began_ms = 0
        self._said_ms = 0
        self._read = self._read_before = 0

    def note(self, now_ms: int, read: int, *, behind: bool, lag: Callable[[], Lag]) -> None:
        """Take in a poll; lag is asked for only when there is something to say."""
        if not behind:
            if self._said_ms > self._began_ms > 0:
                took_s = (now_ms - self._began_ms) / 1000
                log.info("caught up", events=self._read, seconds=round(took_s, 1))
            self._began_ms = 0
            return
        if not self._began_ms:
            self._began_ms = self._said_ms = now_ms
            self._read = self._read_before = 0
        self._read += read
        if now_ms - self._said_ms >= SAY_MS:
            left = lag()
            log.info(
                "catching up",
                events_left=left.events,
                events_a_second=(self._read - self._read_before) * 1000 // (now_ms - self._said_ms),
                at=datetime.fromtimestamp(left.through_ms / 1000, UTC).isoformat(" ", "seconds"),
            )
            self._said_ms, self._read_before = now_ms, self._read
