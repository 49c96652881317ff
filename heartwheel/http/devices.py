"""The look-up of a device: what is active on it, from the lane in memory."""

from typing import Any

from msgspec import UNSET

from heartwheel.http.view import ProcessView
from session_logic.keys import key_group_of, lane_of
from session_logic.lane import Lane
from session_logic.rules import Session, WatchedSession, context_of, next_heartbeat_ms, timeout_ms

FOUND, IDLE, ELSEWHERE, NOT_YET = 200, 404, 421, 503


class Devices:
    """Answers for the lanes of this process, and names the owner of any other."""

    def __init__(self, view: ProcessView) -> None:
        """Look up in the lanes that run."""
        self._lanes = view.settings.lanes
        self._cluster = view.cluster
        self._run = view.run

    def look_up(self, device_id: str) -> tuple[int, dict[str, Any]]:
        """Return an HTTP status and what to say with it; times are in ms since 1970.

        200 for an active session, 404 if none is, 421 with the owner if another process has the
        lane, 503 while the lane is not restored. Takes a few look-ups in dicts, whatever there is.
        """
        number = lane_of(key_group_of(device_id), self._lanes)
        answer: dict[str, Any] = {"device_id": device_id, "lane": number, "active": False}
        lane = self._run.lanes.get(number)
        if lane is None:
            return self._absent(answer, number)
        if lane.restoring:
            return NOT_YET, {**answer, "active": None, "error": f"lane {number} is being restored"}
        session = lane.table.find(device_id)
        if session is None:
            return IDLE, {**answer, "error": "no session is active on this device"}
        context = context_of(session)
        return FOUND, {
            **answer,
            "active": True,
            "session_id": session.session_id,
            "platform": session.platform,
            "started_ms": session.started_ms,
            "next_heartbeat_ms": next_heartbeat_ms(session, lane.table.rules, lane.watermark_ms),
            "timeout_ms": timeout_ms(session, lane.table.rules),
            **_silence(lane, session),
            "as_of_ms": self._run.clock.now_ms(),
            **({} if context is UNSET else {"context": context}),
        }

    def _absent(self, answer: dict[str, Any], number: int) -> tuple[int, dict[str, Any]]:
        owner = self._cluster.owner(number)
        if owner == self._cluster.number:
            awaited = self._run.awaited_processes
            why = f"waiting for {awaited}" if awaited else "no word yet from input or store"
            error = f"lane {number} has not begun: {why}"
            return NOT_YET, {**answer, "active": None, "error": error}
        address = self._cluster.addresses[owner]
        return ELSEWHERE, {
            **answer,
            "active": None,
            "error": f"process {owner} ({address}) has lane {number}: ask it",
            "owner": {"process": owner, "address": address},
        }


def _silence(lane: Lane, session: Session) -> dict[str, int]:
    """Return when a session was last heard of, and when it ends if nothing more is, if ever."""
    if not isinstance(session, WatchedSession):
        return {}
    return {
        "last_seen_ms": session.last_seen_ms,
        "silent_ms": lane.table.wheel.silence.due_ms(session),
    }
