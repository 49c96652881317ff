"""The look-up of a device: what is active on it, from the lane in memory."""

from typing import Any

from heartwheel.http.view import ProcessView
from heartwheel.sessions.shown import ShownSession, show
from session_logic.keys import key_group_of, lane_of

FOUND, IDLE, ELSEWHERE, NOT_YET = 200, 404, 421, 503


class Devices:
    """Answers for the lanes of this process, and names the owner of any other."""

    def __init__(self, view: ProcessView) -> None:
        """Look up in the lanes that run."""
        self._view = view

    def look_up(self, device_id: str) -> tuple[int, ShownSession | dict[str, Any]]:
        """Return an HTTP status and what to say with it; times are in ms since 1970.

        200 for an active session, 404 if none is, 421 with the owner if another process has the
        lane, 503 while the lane is not restored. Takes a few look-ups in dicts, whatever there is.
        """
        run, cluster = self._view.run, self._view.cluster
        number = lane_of(key_group_of(device_id), self._view.settings.lanes)
        answer: dict[str, Any] = {"device_id": device_id, "lane": number, "active": False}
        lane = run.lanes.get(number)
        if lane is None and cluster.owner(number) != cluster.number:
            return self._elsewhere(answer, number)
        why = self._view.not_yet(number)
        if lane is None or why:
            return NOT_YET, {**answer, "active": None, "error": why}
        table = lane.table
        session = table.find(device_id)
        if session is None:
            return IDLE, {**answer, "error": "no session is active on this device"}
        now_ms = run.clock.now_ms()
        return FOUND, show(session, number, table, lane.watermark_ms, now_ms)

    def _elsewhere(self, answer: dict[str, Any], number: int) -> tuple[int, dict[str, Any]]:
        owner = self._view.cluster.owner(number)
        address = self._view.cluster.addresses[owner]
        return ELSEWHERE, {
            **answer,
            "active": None,
            "error": f"process {owner} ({address}) has lane {number}: ask it",
            "owner": {"process": owner, "address": address},
        }
