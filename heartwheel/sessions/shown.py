"""An active session as a look-up, a listing and an export show it."""

from msgspec import UNSET, Struct, UnsetType

from session_logic.events import Context
from session_logic.rules import (
    Session,
    WatchedSession,
    context_of,
    next_heartbeat_ms,
    timeout_ms,
)
from session_logic.table import SessionTable


class ShownSession(Struct, frozen=True, gc=False, kw_only=True):
    """An active session, seen at as_of_ms; times are in ms since 1970.

    next_heartbeat_ms is None if none follows. A session that silence can end has last_seen_ms, and
    silent_ms, at which it ends if nothing more is heard of it. context is what it carries.
    """

    device_id: str
    lane: int
    active: bool = True
    session_id: str
    platform: str
    started_ms: int
    next_heartbeat_ms: int | None
    timeout_ms: int
    last_seen_ms: int | UnsetType = UNSET
    silent_ms: int | UnsetType = UNSET
    as_of_ms: int
    context: Context = UNSET


def show(
    session: Session, lane: int, table: SessionTable, watermark_ms: int, as_of_ms: int
) -> ShownSession:
    """Return a session of a lane's table as it is shown; what was due by watermark_ms was sent."""
    watched = session if isinstance(session, WatchedSession) else None
    return ShownSession(
        device_id=session.device_id,
        lane=lane,
        session_id=session.session_id,
        platform=session.platform,
        started_ms=session.started_ms,
        next_heartbeat_ms=next_heartbeat_ms(session, table.rules, watermark_ms),
        timeout_ms=timeout_ms(session, table.rules),
        last_seen_ms=watched.last_seen_ms if watched else UNSET,
        silent_ms=table.wheel.silence.due_ms(watched) if watched else UNSET,
        as_of_ms=as_of_ms,
        context=context_of(session),
    )
