"""The timing rules of a session: what is due, and what a session owes between two moments."""

from itertools import zip_longest
from typing import Literal

from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.structs import force_setattr

from session_logic.errors import ConfigError
from session_logic.events import (
    Context,
    EndReason,
    Fact,
    Heartbeat,
    Kind,
    OutputEvent,
    SessionEnd,
)

# A fact that comes late brings at most so many heartbeats with it: the newest that it has missed.
MAX_MISSED_HEARTBEATS = 10
# No time that is set is longer, ten years: a new lane, which begins in 1970, never has to go to now
# moment by moment, and sums of times are moments that a clock can have.
LONGEST_MS = 315_360_000_000
# How often the wheel turns for sessions without heartbeats.
QUIET_TURN_MS = 30_000


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
    interval: int = 0  # which of Rules.intervals_ms it beats in, for as long as it lives


class CarryingSession(Session, gc=False, array_like=True):
    """A session with what its start carried, as the JSON object that its records have.

    That of an early end has what the end carried. A class of its own, so that sessions that carry
    nothing cost no byte more.
    """

    context: bytes = b""


class WatchedSession(CarryingSession, gc=False, array_like=True):
    """A session that ends when nothing is heard of it for a while; it may carry nothing."""

    last_seen_ms: int = 0
    idle_timeout_ms: int = 0


class Rules(Struct, frozen=True):
    """The times that govern every session, in milliseconds; with heartbeat_ms 0 none beats."""

    heartbeat_ms: int
    max_session_ms: int
    deduplication_window_ms: int = 120_000
    catch_up: Literal["latest", "all"] = "latest"
    # Every interval that a session may beat in, and up to when heartbeats in it are out already
    # (0: as far as time has come). heartbeat_ms with 0 is added where it is missing.
    intervals_ms: tuple[int, ...] = ()
    sent_ms: tuple[int, ...] = ()
    carry_in_heartbeats: bool = True
    apart: tuple[Kind, ...] = ()  # what is given out apart from the other records

    def __post_init__(self) -> None:
        """Raise ConfigError unless heartbeat_ms <= max_session_ms > 0 and nothing is negative."""
        if not 0 <= self.heartbeat_ms <= self.max_session_ms or not self.max_session_ms:
            msg = (
                f"heartbeat_ms ({self.heartbeat_ms}) must not be negative, and at most "
                f"max_session_ms ({self.max_session_ms}), which must be over 0"
            )
            raise ConfigError(msg)
        if self.deduplication_window_ms < 0:
            msg = f"deduplication_window_ms ({self.deduplication_window_ms}) must not be negative"
            raise ConfigError(msg)
        beats = [*zip_longest(self.intervals_ms, self.sent_ms, fillvalue=0)]
        if (self.heartbeat_ms, 0) not in beats:
            beats.append((self.heartbeat_ms, 0))
        force_setattr(self, "intervals_ms", tuple(interval_ms for interval_ms, _ in beats))
        force_setattr(self, "sent_ms", tuple(sent_ms for _, sent_ms in beats))

    @property
    def beats(self) -> list[tuple[int, int]]:
        """Each interval in which a session may beat, with up to when its heartbeats are out."""
        return list(zip(self.intervals_ms, self.sent_ms, strict=True))

    @property
    def turns_ms(self) -> list[int]:
        """How long the wheel takes to come round, for each interval."""
        return [interval_ms or QUIET_TURN_MS for interval_ms in self.intervals_ms]

    @property
    def interval(self) -> int:
        """The place of the interval in which a session beats that starts now."""
        return self.beats.index((self.heartbeat_ms, 0))

    def sent_until_ms(self, session: Session, watermark_ms: int) -> int:
        """Return the moment up to which the heartbeats of a session are out.

        That is the watermark, but for the sessions of a run whose clock was ahead.
        """
        return max(watermark_ms, self.sent_ms[session.interval])


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
    interval_ms = rules.intervals_ms[session.interval]
    if not interval_ms:
        return None
    sent_until_ms = rules.sent_until_ms(session, watermark_ms)
    sent = max(0, (sent_until_ms - session.started_ms) // interval_ms)
    due_ms = session.started_ms + (sent + 1) * interval_ms
    return None if is_due(timeout_ms(session, rules), due_ms) else due_ms


def drop_ms(session: Session, rules: Rules) -> int:
    """Return the moment at which an ended session is no longer remembered.

    One turn of the wheel after the deduplication window, so that late events still find it.
    """
    turn_ms = rules.intervals_ms[session.interval] or QUIET_TURN_MS
    return session.ended_ms + rules.deduplication_window_ms + turn_ms


def is_repeated(session: Session, rules: Rules, fact: Fact) -> bool:
    """Say whether a fact is of the life of a session that has ended, and not of a later one.

    A timestamp that the sender has set tells: it is not later than the end. One that the broker
    has set tells when the record arrived, so the deduplication window decides. A ping from after
    the end is no duplicate of one from before it.
    """
    if fact.ping:
        return fact.time_ms < session.ended_ms
    if fact.time_ms <= session.ended_ms:
        return True
    return not fact.created and fact.time_ms < session.ended_ms + rules.deduplication_window_ms


def owed_heartbeats(
    session: Session, rules: Rules, *, after_ms: int, upto_ms: int, at_most: int | None = None
) -> list[OutputEvent]:
    """Return the heartbeats due after after_ms and at or before upto_ms, in order.

    None is due at or after the timeout. With at_most, the older ones are left out.
    """
    interval_ms = rules.intervals_ms[session.interval]
    if not interval_ms:
        return []
    upto_ms = min(upto_ms, timeout_ms(session, rules) - 1)
    last = (upto_ms - session.started_ms) // interval_ms
    after_ms = rules.sent_until_ms(session, after_ms)
    first = max(0, (after_ms - session.started_ms) // interval_ms) + 1
    if at_most is not None:
        first = max(first, last + 1 - at_most)
    if first > last:
        return []
    context = context_of(session) if rules.carry_in_heartbeats else UNSET
    return [
        Heartbeat(
            session.device_id,
            session.session_id,
            session.platform,
            session.started_ms,
            session.started_ms + sequence * interval_ms,
            sequence,
            context,
        )
        for sequence in range(first, last + 1)
    ]


def earliest_end_ms(session: Session, rules: Rules, watermark_ms: int) -> int:
    """Return the earliest time that an end of an active session can have.

    That is its start, or its last heartbeat that has been sent: what is out is not contradicted.
    """
    interval_ms = rules.intervals_ms[session.interval]
    if not interval_ms:
        return session.started_ms
    sent_until_ms = min(watermark_ms, timeout_ms(session, rules) - 1)
    # The longest session may have been longer when a clock that was ahead had these sent.
    sent_until_ms = rules.sent_until_ms(session, sent_until_ms)
    beats = max(0, (sent_until_ms - session.started_ms) // interval_ms)
    return session.started_ms + beats * interval_ms


def end_session(session: Session, reason: EndReason, time_ms: int) -> SessionEnd:
    """Mark an active session as ended and return its last record."""
    assert session.ended_ms == 0
    assert time_ms >= session.started_ms
    session.ended_ms = max(1, time_ms)
    last_seen_ms: int | UnsetType = UNSET
    if reason == "went_silent":
        assert isinstance(session, WatchedSession)
        last_seen_ms = session.last_seen_ms
    last_ms = time_ms if last_seen_ms is UNSET else last_seen_ms
    return SessionEnd(
        session.device_id,
        session.session_id,
        session.platform,
        session.started_ms,
        time_ms,
        reason,
        last_ms - session.started_ms,
        context_of(session),
        last_seen_ms,
    )


def session_of(fact: Fact, platform: str, interval: int, ended_ms: int = 0) -> Session:
    """Return a session that is as a fact says."""
    device, name, time_ms = fact.device_id, fact.session_id, fact.time_ms
    if not (fact.carried or fact.idle_timeout_ms):
        return Session(device, name, platform, time_ms, ended_ms, interval)
    context = b"{" + fact.carried + b"}" if fact.carried else b""
    names = (device, name, platform, time_ms, ended_ms, interval, context)
    if not fact.idle_timeout_ms or ended_ms:
        return CarryingSession(*names)
    return WatchedSession(*names, time_ms, fact.idle_timeout_ms)


def context_of(session: Session, carried: bytes = b"") -> Context:
    """Return the context of a record of a session: what its start carried, then what is given."""
    if not isinstance(session, CarryingSession) or not session.context:
        return as_context(carried) if carried else UNSET
    if not carried:
        return Raw(session.context)
    return Raw(session.context[:-1] + b"," + carried + b"}")


def carried_by(session: Session) -> bytes:
    """Return what a session carries, as a fact has it; b"" if that is nothing."""
    return session.context[1:-1] if isinstance(session, CarryingSession) else b""


def as_context(carried: bytes) -> Context:
    """Return what a fact carries as a JSON object, or nothing."""
    return Raw(b"{" + carried + b"}") if carried else UNSET


def early_end(fact: Fact, rules: Rules) -> Session:
    """Return what is remembered of an end that came before its start: a session without one.

    It has no platform, which no session that began can have. It starts when it ends.
    """
    return session_of(fact, "", rules.interval, ended_ms=max(1, fact.time_ms))


def has_begun(session: Session) -> bool:
    """Say whether a remembered session ever began, or is an end that came before its start."""
    return session.platform != ""
