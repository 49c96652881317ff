"""The look-up of a device: what is active on it, from the lane in memory."""

import asyncio
from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from heartwheel.http.answers import json_answer
from heartwheel.http.device_answer import FOUND, IDLE, NOT_YET
from heartwheel.http.processes import AbsentError, Processes
from heartwheel.http.split_devices import SplitDevices, joined
from heartwheel.http.view import NAME, ProcessView
from heartwheel.sessions.shown import ShownSession, show
from session_logic.keys import key_group_of, lane_of

ELSEWHERE, ABSENT = 421, 502
# Of the answers of shards, which one counts: none is active only if all say so.
CERTAIN = (ABSENT, NOT_YET, IDLE)


class Devices:
    """Answers for the lanes of this process, and asks the owner of any other."""

    def __init__(self, view: ProcessView, processes: Processes) -> None:
        """Look up in the lanes that run, here and in other processes."""
        self._view = view
        self._processes = processes
        self._split = SplitDevices()

    async def answer(self, request: Request) -> Response:
        """Answer a request: what `look_up` says here, or in the process that has the lane.

        502 if that one does not answer. A request that names this process is not passed on.
        """
        device_id = request.path_params["device_id"]
        status, found = self.look_up(device_id)
        if NAME in request.headers:
            return json_answer(status, found)
        target = request.scope["raw_path"].decode("ascii")
        if self._view.settings.shard:
            return await self._ask_shards(status, found, target, device_id)
        if isinstance(found, ShownSession):
            self._split.note(found)
            return json_answer(status, found)
        if status != ELSEWHERE:
            return json_answer(status, found)
        try:
            asked = await self._processes.look_up(found["owner"]["process"], target, device_id)
        except AbsentError as error:
            return json_answer(ABSENT, {**found, "error": str(error)})
        return Response(asked.body, asked.status, media_type="application/json")

    async def _ask_shards(
        self, own_status: int, own: ShownSession | dict[str, Any], target: str, device_id: str
    ) -> Response:
        """Return the answer of the shard that has the device, of which no rule tells which it is.

        If none has it, then one that is not certain: of a shard that does not answer or is not
        restored. If several have it, the session that was started last.
        """
        others = self._processes.others
        asked = await asyncio.gather(
            *(self._processes.look_up(number, target, device_id) for number in others),
            return_exceptions=True,
        )
        found = [own] if isinstance(own, ShownSession) else []
        answers = [] if isinstance(own, ShownSession) else [json_answer(own_status, own)]
        for answer in asked:
            if isinstance(answer, AbsentError):
                if not isinstance(own, ShownSession):
                    said = {**own, "active": None, "error": str(answer)}
                    answers.append(json_answer(ABSENT, said))
            elif isinstance(answer, BaseException):
                raise answer
            elif answer.session is not None:
                found.append(answer.session)
            else:
                passed_on = Response(answer.body, answer.status, media_type="application/json")
                answers.append(passed_on)
        if found:
            session = joined(found)
            self._split.note(session)
            return json_answer(FOUND, session)
        return min(answers, key=lambda answer: CERTAIN.index(answer.status_code))

    def look_up(self, device_id: str) -> tuple[int, ShownSession | dict[str, Any]]:
        """Return an HTTP status and what to say with it; times are in ms since 1970.

        200 for an active session, 404 if none is, 421 with the owner if another process has the
        lane, 503 while the lane is not restored. Takes a few look-ups in dicts, whatever there is.
        """
        run, cluster = self._view.run, self._view.cluster
        number = self._lane_of(device_id)
        answer: dict[str, Any] = {"device_id": device_id, "lane": number, "active": False}
        lane = run.lanes.get(number)
        if lane is None and cluster.owner(number) != cluster.number:
            return self._elsewhere(answer, number)
        why = self._view.not_yet(number)
        if lane is None or why:
            return NOT_YET, {**answer, "active": None, "error": why}
        table = lane.table
        session = table.find(device_id)
        if session is not None:
            return FOUND, joined(list(self._sessions(device_id, number)))
        if self._view.settings.route == "partition":
            answer["lane"] = None  # its events may be in any partition
        return IDLE, {**answer, "error": "no session is active on this device"}

    def _sessions(self, device_id: str, number: int) -> Iterator[ShownSession]:
        """Yield the sessions of a device in the lanes that may have it, of which one is known."""
        run, now_ms = self._view.run, self._view.run.clock.now_ms()
        by_hash = self._view.settings.route == "hash"
        for lane in [run.lanes[number]] if by_hash else run.lanes.copy().values():
            session = lane.table.find(device_id)
            if session is not None:
                yield show(session, lane.lane, lane.table, lane.watermark_ms, now_ms)

    def _lane_of(self, device_id: str) -> int:
        """Return the lane of a device, or one that it may be in if no lane here has it."""
        settings = self._view.settings
        if settings.route == "hash":
            return lane_of(key_group_of(device_id), settings.lanes)
        lanes, own = self._view.run.lanes, settings.own_lanes
        has = (n for n in own if n in lanes and lanes[n].table.find(device_id) is not None)
        unknown = (n for n in own if self._view.not_yet(n))
        return next(has, next(unknown, own[0]))

    def _elsewhere(self, answer: dict[str, Any], number: int) -> tuple[int, dict[str, Any]]:
        owner = self._view.cluster.owner(number)
        address = self._view.cluster.addresses[owner]
        return ELSEWHERE, {
            **answer,
            "active": None,
            "error": f"process {owner} ({address}) has lane {number}",
            "owner": {"process": owner, "address": address},
        }
