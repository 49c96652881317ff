"""The timing rules of a session: what is due, and what a session owes between two moments."""

from typing import Literal

from msgspec import Struct

from session_logic.errors import ConfigError
from session_logic.events import EndReason, Heartbeat, OutputEvent, SessionEnd


class Session(Struct, gc=False, array_like=True):
    """One session of a device; ended_ms is 0 while it is active.

    0 and not None, because there are millions: one int, and no Optional. An end at the moment 0
    is stored as 1. An ended session is kept for a while, so that a late duplicate of its start is
    recognised.
    """

    device_id: str
    session_id: str
    platform: str
    started_ms: int
    ended_ms: int = 0


class Rules(Struct, frozen=True):
    """The times that govern every session, in milliseconds."""

    heartbeat_ms: int
    max_session_ms: int
    deduplication_window_ms: int = 60_000
    catch_up: Literal["latest", "all"] = "latest"

    def __post_init__(self) -> None:
        """Raise ConfigError unless 0 < heartbeat_ms <= max_session_ms and nothing is negative."""
        if not 0 < self.heartbeat_ms <= self.max_session_ms:
            msg = (
                f"heartbeat_ms ({self.heartbeat_ms}) must be over 0 and at most "
                f"max_session_ms ({self.max_session_ms})"
            )
            raise ConfigError(msg)
        if self.deduplication_window_ms < 0:
            msg = f"deduplication_window_ms ({self.deduplication_window_ms}) must not be negative"
            raise ConfigError(msg)


def is_due(due_ms: int, now_ms: int) -> bool:
    """Say whether something due at due_ms has to have happened at now_ms."""
    return due_ms <= now_ms


def timeout_ms(session: Session, rules: Rules) -> int:
    """Return the moment at which an active session times out."""
    return session.started_ms + rules.max_session_ms


def next_heartbeat_ms(session: Session, rules: Rules, watermark_ms: int) -> int | None:
    """Return when an active session's next heartbeat is due; None if it times out before.

    What was due by watermark_ms has been sent.
    """
    sent = max(0, (watermark_ms - session.started_ms) // rules.heartbeat_ms)
    due_ms = session.started_ms + (sent + 1) * rules.heartbeat_ms
    return None if is_due(timeout_ms(session, rules), due_ms) else due_ms


def forget_ms(session: Session, rules: Rules) -> int:
    """Return the event time from which a repeated start opens a new session.

    Before it, a start of the ended session counts as a duplicate.

    It is the first turn of the session's wheel slot at which it has been ended for
    deduplication_window_ms. A replay decides alike, because the moment of processing plays no
    part.
    """
    age_ms = session.ended_ms + rules.deduplication_window_ms - session.started_ms
    turns = -(-age_ms // rules.heartbeat_ms)
    return session.started_ms + turns * rules.heartbeat_ms


def drop_ms(session: Session, rules: Rules) -> int:
    """Return the turn at which an ended session is dropped.

    One heartbeat after `forget_ms`, so that late events still find it.
    """
    return forget_ms(session, rules) + rules.heartbeat_ms


def owed_heartbeats(
    session: Session, rules: Rules, *, newest_only: bool, after_ms: int, upto_ms: int
) -> list[OutputEvent]:
    """Return the heartbeats due after after_ms and at or before upto_ms, in order.

    None is due at or after the timeout; newest_only leaves out all but the last of them.
    """
    upto_ms = min(upto_ms, timeout_ms(session, rules) - 1)
    last = (upto_ms - session.started_ms) // rules.heartbeat_ms
    first = max(0, (after_ms - session.started_ms) // rules.heartbeat_ms) + 1
    if newest_only:
        first = max(first, last)
    return [
        Heartbeat(
            session.device_id,
            session.session_id,
            session.platform,
            session.started_ms,
            session.started_ms + sequence * rules.heartbeat_ms,
            sequence,
        )
        for sequence in range(first, last + 1)
    ]


def end_session(session: Session, reason: EndReason, time_ms: int) -> SessionEnd:
    """Mark an active session as ended and return its last record."""
    assert session.ended_ms == 0
    session.ended_ms = max(1, time_ms)
    return SessionEnd(
        session.device_id,
        session.session_id,
        session.platform,
        session.started_ms,
        time_ms,
        reason,
        max(0, time_ms - session.started_ms),
    )
