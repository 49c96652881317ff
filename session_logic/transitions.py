"""What a fact does to the sessions of its device: begin with TRANSITIONS at the end.

What comes first is decided by the facts' times, in whatever order they are read. What cannot be
undone, because it is out already, is ignored under a name, and never contradicted:

- a start that is older than one that was acted on is ignored (`late_start`);
- an end of an unknown session is remembered for the deduplication window. If its start comes
  then, from no later than the end, the session is announced and ended at once (`ended_early`);
- an end is never before its session's start, nor before a heartbeat of it that is out.

An end without a session id is that of the session that is active at its time: of the active one,
if that began no later; else it is remembered for a start that comes later and is no later. A ping
without one is of the active session as well.

A session that silence ends has ended by the time of the next fact of its device, whenever that is
read. A ping that changes nothing has no effect, so it need not be stored (`changes_nothing`).

Every fact has one outcome, and every outcome is counted.
"""

from collections.abc import Callable
from enum import IntEnum, auto
from itertools import product
from sys import intern

from msgspec import UNSET, Struct
from msgspec.structs import replace

from session_logic.events import EndIfOpen, EndReason, Fact, OutputEvent, SessionActive, Watermark
from session_logic.key_group import KeyGroup
from session_logic.rules import (
    MAX_MISSED_HEARTBEATS,
    Rules,
    Session,
    WatchedSession,
    as_context,
    carried_by,
    context_of,
    drop_ms,
    early_end,
    has_begun,
    is_due,
    is_repeated,
    session_of,
    timeout_ms,
)
from session_logic.silence import is_news
from session_logic.table import SessionTable


class State(IntEnum):
    """What a device is doing, as seen from the session and the time that a fact speaks of.

    An end without a session id speaks of the session that was active at its time.
    """

    IDLE = auto()  # no session is active, and this one is unknown
    BUSY = auto()  # another session is active, and this one is unknown
    OVERTAKEN = auto()  # another session began later and is active, or was lately
    ACTIVE = auto()  # this session is the active one
    ENDED = auto()  # this session ended a short while ago, whatever is active now
    EXPECTED = auto()  # the end of this session has come already, and its start has not


class Input(IntEnum):
    """What a fact says."""

    START = auto()
    END = auto()
    PING = auto()


# Looked up in their classes, they would take longer than what is decided by them.
IDLE, BUSY, OVERTAKEN, ACTIVE, ENDED, EXPECTED = State
START, END, PING = Input


class Change(Struct, gc=False):
    """A fact, the key group and the active session of its device, and how far time has come."""

    fact: Fact
    group: KeyGroup
    active: Session | None
    watermark: Watermark


def apply_fact(
    table: SessionTable, fact: Fact, watermark: Watermark, number: int | None = None
) -> list[OutputEvent]:
    """Apply one fact to a table; return the records that it causes, in order.

    A session that the fact ends first gets the heartbeats that were due by the fact's time and
    have not fired yet, or its timeout instead. The number of its key group may be known.
    """
    if number is None:
        number = table.keys.group_of(fact.device_id)
    group = table.groups[number]
    if watermark.next_group:
        watermark = watermark.of(number)
    active = group.active.get(fact.device_id)
    records: list[OutputEvent] = []
    if active is not None:
        due_ms, reason = table.due_end(active)
        # Live, the wheel has ended what was due by the watermark; a replay relies on this.
        if is_due(due_ms, max(fact.time_ms, watermark.upto_ms)):
            records = table.end(active, reason, watermark, due_ms)
            active = None
    change = Change(fact, group, active, watermark)
    kind = PING if fact.ping else START if fact.is_start else END
    transition = TRANSITIONS[state_of(table, change), kind]
    caused = transition(table, change)
    return records + caused if records else caused


def changes_nothing(table: SessionTable, fact: Fact, watermark: Watermark) -> bool:
    """Say whether a ping leaves everything as it is; one that does not may do so as well."""
    number = table.keys.group_of(fact.device_id)
    active = table.groups[number].active.get(fact.device_id)
    if active is None:
        if fact.is_start:
            return False
        table.counts.add("unknown_ping", fact.platform)
        return True
    if is_due(table.due_end(active)[0], max(fact.time_ms, watermark.of(number).upto_ms)):
        return False
    if fact.session_id not in {"", active.session_id} or active.started_ms > fact.time_ms:
        return False
    if isinstance(active, WatchedSession) and is_news(active, fact.time_ms):
        return False
    table.counts.add("ping", fact.platform)
    return True


def state_of(table: SessionTable, change: Change) -> State:
    """Return what a device is doing, as seen from a fact."""
    fact, active = change.fact, change.active
    if active is not None and not fact.session_id:
        return ACTIVE if active.started_ms <= fact.time_ms else OVERTAKEN
    known = IDLE if active is None else BUSY
    overtaken = before_active = active is not None and active.started_ms > fact.time_ms
    for ended in change.group.ended(fact.device_id):
        if not _is_remembered(table, change, ended):
            continue
        if _is_spoken_of(ended, fact):
            known = _state_after_end(ended, fact, table.rules, known)
        elif has_begun(ended) and ended.started_ms > fact.time_ms:
            overtaken = True
    if active is not None and active.session_id == fact.session_id:
        # An end from before the start is that of an earlier life, where there was one.
        earlier = known is ENDED and before_active and not fact.is_start
        return ENDED if earlier else ACTIVE
    return OVERTAKEN if overtaken and known is not ENDED else known


def _is_remembered(table: SessionTable, change: Change, ended: Session) -> bool:
    """Say whether a session ended a short while ago; else its turn to be dropped is still to come.

    What a fact does never depends on which slots of the wheel have come round.
    """
    return not is_due(drop_ms(ended, table.rules), change.watermark.upto_ms)


def _is_spoken_of(ended: Session, fact: Fact) -> bool:
    """Say whether a fact may be of the life of a session of which the end is known.

    An end without an id may be of each that began by then, and such an early end of each start.
    """
    if fact.session_id:
        return ended.session_id == fact.session_id or (fact.is_start and not ended.session_id)
    return (has_begun(ended) or not ended.session_id) and ended.started_ms <= fact.time_ms


def _state_after_end(ended: Session, fact: Fact, rules: Rules, otherwise: State) -> State:
    """Return the state as seen from a session of which the end is known."""
    if has_begun(ended):
        return ENDED if is_repeated(ended, rules, fact) else otherwise
    if otherwise is ENDED:
        return otherwise
    if fact.is_start:
        return EXPECTED if fact.time_ms <= ended.ended_ms else otherwise
    return EXPECTED if is_repeated(ended, rules, fact) else otherwise


def open_session(table: SessionTable, change: Change) -> list[OutputEvent]:
    """Make the fact's session the active one; one that is opened late owes what it has missed."""
    started_ms, upto_ms = change.fact.time_ms, change.watermark.upto_ms
    session, records = _begin(table, change)
    if not table.listens and not is_due(started_ms + table.rules.heartbeat_ms, upto_ms):
        return records  # as always but for sessions that are opened late
    missed, (due_ms, reason) = _missed(change), table.due_end(session)
    if is_due(due_ms, upto_ms):
        return records + table.end(session, reason, missed, due_ms, MAX_MISSED_HEARTBEATS)
    return records + table.owed(session, missed, upto_ms, MAX_MISSED_HEARTBEATS)


def replace_session(table: SessionTable, change: Change) -> list[OutputEvent]:
    """End the active session, then open the new one."""
    return _end_active(table, change, "replaced") + open_session(table, change)


def close_session(table: SessionTable, change: Change) -> list[OutputEvent]:
    """End the active session."""
    assert change.active is not None
    records = _end_active(table, change, "ended")
    if change.fact.carried:
        return _with_fields_of_end(records, change.active, change.fact.carried)
    return records


def open_and_close(table: SessionTable, change: Change) -> list[OutputEvent]:
    """Open a session whose end came first, and end it at the time of that end."""
    fact = change.fact
    # First, because the end of the active session may take the place of this one.
    ended_ms, carried = min(
        (end.ended_ms, carried_by(end))
        for end in change.group.ended(fact.device_id)
        if not has_begun(end)
        and _is_remembered(table, change, end)
        and _is_spoken_of(end, fact)
        and fact.time_ms <= end.ended_ms
    )
    records = [] if change.active is None else _end_active(table, change, "replaced")
    session, opened = _begin(table, change)
    due_ms = timeout_ms(session, table.rules)
    missed, at_most = _missed(change), MAX_MISSED_HEARTBEATS
    if is_due(due_ms, ended_ms):
        return records + opened + table.end(session, "timed_out", missed, due_ms, at_most)
    # The end itself was counted when it came.
    closed = table.end(session, "ended_early", missed, ended_ms, at_most)
    return records + opened + _with_fields_of_end(closed, session, carried)


def remember_end(table: SessionTable, change: Change) -> list[OutputEvent]:
    """Keep the end of an unknown session: its start may come after it."""
    end = early_end(change.fact, table.rules)
    if not is_due(drop_ms(end, table.rules), change.watermark.upto_ms):
        table.put(end, change.group)
    return ignore_end(table, change)


def hear_from_session(table: SessionTable, change: Change) -> list[OutputEvent]:
    """Note when the active session was heard of."""
    table.counts.add("ping", change.fact.platform)
    _note_heard(change)
    return []


def open_by_ping(table: SessionTable, change: Change) -> list[OutputEvent]:
    """Begin a session by a ping that may do so, instead of the active one; count any other."""
    if not change.fact.is_start:
        return ignore_ping(table, change)
    records = [] if change.active is None else _end_active(table, change, "replaced")
    return records + open_session(table, change)


def ignore_ping(table: SessionTable, change: Change) -> list[OutputEvent]:
    """Count a ping of another session than the active one, or of an idle device."""
    table.counts.add("unknown_ping", change.fact.platform)
    return _end_if_open(change) if change.fact.is_start else []


def ignore_start(table: SessionTable, change: Change) -> list[OutputEvent]:
    """Count a start of the session that is already active."""
    table.counts.add("duplicate_start", change.fact.platform)
    _note_heard(change)
    return _end_if_open(change)


def ignore_repeated_start(table: SessionTable, change: Change) -> list[OutputEvent]:
    """Count a start of a session that just ended: a duplicate that was delivered late."""
    table.counts.add("late_duplicate_start", change.fact.platform)
    return _end_if_open(change)


def ignore_late_start(table: SessionTable, change: Change) -> list[OutputEvent]:
    """Count a start that is older than one that was acted on."""
    table.counts.add("late_start", change.fact.platform)
    return _end_if_open(change)


def ignore_end(table: SessionTable, change: Change) -> list[OutputEvent]:
    """Count an end of another session than the active one, or for an idle device."""
    outcome = "unknown_end" if change.active is None else "stale_end"
    table.counts.add(outcome, change.fact.platform)
    return []


def _begin(table: SessionTable, change: Change) -> tuple[Session, list[OutputEvent]]:
    """Return the new active session of a device, and its first record."""
    fact = _named(change.fact)
    session = session_of(fact, intern(fact.platform), table.interval)
    table.put(session, change.group)
    table.counts.add("started", fact.platform)
    device, name, time_ms, carried = fact.device_id, fact.session_id, fact.time_ms, fact.carried
    context = as_context(carried) if carried else UNSET
    return session, [SessionActive(device, name, fact.platform, time_ms, time_ms, context)]


def _named(fact: Fact) -> Fact:
    """Return a fact that may begin a session with the id of that session: if need be, its time."""
    return fact if fact.session_id else replace(fact, session_id=str(fact.time_ms))


def _note_heard(change: Change) -> None:
    """Move what was last heard of the active session, if it is watched and that is news."""
    active, time_ms = change.active, change.fact.time_ms
    if isinstance(active, WatchedSession) and is_news(active, time_ms):
        active.last_seen_ms = time_ms


def _end_if_open(change: Change) -> list[OutputEvent]:
    """Return the end of the session that an ignored fact would have begun, if it never began.

    A crashed run may have announced it: then nothing else would ever end it.
    """
    fact = _named(change.fact)
    sessions = [*change.group.ended(fact.device_id), *([change.active] if change.active else [])]
    if any(
        (session.session_id, session.started_ms) == (fact.session_id, fact.time_ms)
        and has_begun(session)
        for session in sessions
    ):
        return []
    names = (fact.device_id, fact.session_id, fact.platform)
    times = (fact.time_ms, fact.time_ms)
    context, active = as_context(fact.carried), change.active
    started = None if active is None else _start_of(active)
    return [EndIfOpen(*names, *times, "replaced", 0, context, active=started)]


def _start_of(session: Session) -> SessionActive:
    """Return the record with which an active session began."""
    names = (session.device_id, session.session_id, session.platform)
    return SessionActive(*names, session.started_ms, session.started_ms, context_of(session))


def _missed(change: Change) -> Watermark:
    """Return the watermark from which a session that is opened late has missed its heartbeats."""
    return Watermark(change.fact.time_ms, change.watermark.newest_only)


def _end_active(table: SessionTable, change: Change, reason: EndReason) -> list[OutputEvent]:
    assert change.active is not None
    return table.end(change.active, reason, change.watermark, change.fact.time_ms)


def _with_fields_of_end(
    records: list[OutputEvent], session: Session, carried: bytes
) -> list[OutputEvent]:
    """Return the last records of a session, of which the end has what the end carried as well."""
    *others, end = records
    return [*others, replace(end, context=context_of(session, carried))]


Transition = Callable[[SessionTable, Change], list[OutputEvent]]
TRANSITIONS: dict[tuple[State, Input], Transition] = {
    (IDLE, START): open_session,
    (BUSY, START): replace_session,
    (OVERTAKEN, START): ignore_late_start,
    (ACTIVE, START): ignore_start,
    (ENDED, START): ignore_repeated_start,
    (EXPECTED, START): open_and_close,
    (IDLE, END): remember_end,
    (BUSY, END): remember_end,
    (OVERTAKEN, END): ignore_end,
    (ACTIVE, END): close_session,
    (ENDED, END): ignore_end,
    (EXPECTED, END): ignore_end,
    (IDLE, PING): open_by_ping,
    (BUSY, PING): open_by_ping,
    (OVERTAKEN, PING): ignore_ping,
    (ACTIVE, PING): hear_from_session,
    (ENDED, PING): ignore_ping,
    (EXPECTED, PING): ignore_ping,
}
assert TRANSITIONS.keys() == set(product(State, Input))
