"""The slow reference model: one dict, no wheel, no lanes, no cleverness.

It says what must come out; the tests and the benchmark compare real output with it.
"""

from msgspec import Struct

from session_logic.events import (
    EndReason,
    Fact,
    Heartbeat,
    OutputEvent,
    SessionActive,
    SessionEnd,
    Watermark,
)
from session_logic.rules import Rules


class Life(Struct):
    """A session as the model knows it."""

    fact: Fact
    ended_ms: int | None = None


class Model:
    """Every session that ever was, by device, oldest first."""

    def __init__(self, rules: Rules) -> None:
        """Begin with no sessions."""
        self.rules = rules
        self.lives: dict[str, list[Life]] = {}

    def apply(self, fact: Fact, watermark: Watermark) -> list[OutputEvent]:
        """Return the records that a fact causes."""
        lives = self.lives.setdefault(fact.device_id, [])
        active = lives[-1] if lives and lives[-1].ended_ms is None else None
        records: list[OutputEvent] = []
        if active is not None:
            timeout_ms = active.fact.time_ms + self.rules.max_session_ms
            if timeout_ms <= fact.time_ms or timeout_ms <= watermark.upto_ms:
                records += self._end(active, "timed_out", timeout_ms, watermark)
                active = None
        if active is not None and active.fact.session_id == fact.session_id:
            if not fact.is_start:
                records += self._end(active, "ended", fact.time_ms, watermark)
            return records
        if not fact.is_start or self._remembered(
            lives, fact.session_id, fact.time_ms, watermark.upto_ms
        ):
            return records
        if active is not None:
            records += self._end(active, "replaced", fact.time_ms, watermark)
        return records + self._open(lives, fact, watermark.upto_ms)

    def _remembered(
        self, lives: list[Life], session_id: str, time_ms: int, watermark_ms: int
    ) -> bool:
        for life in lives:
            if life.fact.session_id == session_id and life.ended_ms is not None:
                # Until the session's own beat, the first that is late enough.
                turn_ms = life.fact.time_ms
                late_ms = life.ended_ms + self.rules.deduplication_window_ms
                while turn_ms < late_ms:
                    turn_ms += self.rules.heartbeat_ms
                while turn_ms - self.rules.heartbeat_ms >= late_ms:
                    turn_ms -= self.rules.heartbeat_ms
                if turn_ms > time_ms and turn_ms + self.rules.heartbeat_ms > watermark_ms:
                    return True
        return False

    def _open(self, lives: list[Life], fact: Fact, watermark_ms: int) -> list[OutputEvent]:
        life = Life(fact)
        lives.append(life)
        active = SessionActive(*_names(fact), fact.time_ms, fact.time_ms)
        return [active, *self._due(life, fact.time_ms, watermark_ms, newest_only=False)]

    def _end(
        self, life: Life, reason: EndReason, time_ms: int, watermark: Watermark
    ) -> list[OutputEvent]:
        fact = life.fact
        owed = self._beats(life, watermark.upto_ms, time_ms, newest_only=watermark.newest_only)
        life.ended_ms = max(1, time_ms)
        duration_ms = max(0, time_ms - fact.time_ms)
        end = SessionEnd(*_names(fact), fact.time_ms, time_ms, reason, duration_ms)
        return [*owed, end]

    def _beats(
        self, life: Life, after_ms: int, upto_ms: int, *, newest_only: bool
    ) -> list[OutputEvent]:
        fact = life.fact
        beats: list[OutputEvent] = []
        sequence, time_ms = 1, fact.time_ms + self.rules.heartbeat_ms
        while time_ms <= upto_ms and time_ms < fact.time_ms + self.rules.max_session_ms:
            if time_ms > after_ms:
                beats.append(Heartbeat(*_names(fact), fact.time_ms, time_ms, sequence))
            sequence, time_ms = sequence + 1, time_ms + self.rules.heartbeat_ms
        return beats[-1:] if newest_only else beats

    def _due(
        self, life: Life, after_ms: int, upto_ms: int, *, newest_only: bool
    ) -> list[OutputEvent]:
        timeout_ms = life.fact.time_ms + self.rules.max_session_ms
        if timeout_ms <= upto_ms:
            return self._end(life, "timed_out", timeout_ms, Watermark(after_ms, newest_only))
        return self._beats(life, after_ms, upto_ms, newest_only=newest_only)

    def advance(self, after_ms: int, upto_ms: int, *, newest_only: bool) -> list[OutputEvent]:
        """Return what comes due after after_ms and at or before upto_ms."""
        return [
            record
            for lives in self.lives.values()
            for life in lives
            if life.ended_ms is None
            for record in self._due(life, after_ms, upto_ms, newest_only=newest_only)
        ]


def _names(fact: Fact) -> tuple[str, str, str]:
    return fact.device_id, fact.session_id, fact.platform
