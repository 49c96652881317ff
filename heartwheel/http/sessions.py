"""The listing of the active sessions: a walk over the lanes of each process, piece by piece.

What is guaranteed: the dataflow never waits for a walk, however much there is to list and however
slowly the client reads; a walk needs memory for references to the sessions of one key group, and
for the lines of a few pieces. A session that is active all the while is listed exactly once. One
that begins or ends meanwhile may be listed or not. Each line is true at its as_of_ms.

How. The dataflow goes on, and changes what is walked over. So the sessions of a key group are
copied to a list in one step of the interpreter, in which no other thread has a turn. What has
ended by the time its turn comes is left out. A piece takes about a millisecond, and then the walk
pauses for at least as long: Python lets a thread that computes go on for 5 ms before the next.

In a cluster the process that is asked lists its own lanes, then has each other one list its lanes.
All of them are asked first whether they can. One that fails afterwards is named in the last line,
and the answer is broken off, so that HTTP tells as well that it is not whole.

What would break it: a loop over a dict of the dataflow that gives up the interpreter in between; a
piece for each key group, of which there are 256 even if there are few sessions.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import islice
from time import perf_counter
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from heartwheel.http.answers import json_answer
from heartwheel.http.connections import CONNECTION
from heartwheel.http.processes import LINES, AbsentError, Processes
from heartwheel.http.view import NAME, ProcessView
from heartwheel.sessions.choice import Choice, ChoiceError
from heartwheel.sessions.shown import show
from session_logic.lane import Lane
from session_logic.rules import Session
from session_logic.table import SessionTable

# How many sessions are looked at before others have their turn.
PIECE = 200
MAX_WALKS = 4
MAX_DIGITS = 12
NO_LIMIT = 10**MAX_DIGITS - 1
PATH, LIMIT = "/sessions", "limit"
OK, WRONG, ABSENT, NOT_NOW = 200, 400, 502, 503
_encode_lines = msgspec.json.Encoder().encode_lines


class Sessions:
    """Lists what is active here, and in the other processes of a cluster."""

    def __init__(self, view: ProcessView, processes: Processes) -> None:
        """List what is in the lanes that run."""
        self._view = view
        self._processes = processes
        self.walks = 0

    async def answer(self, request: Request) -> Response:
        """Answer a request with a listing, or say in one line why there is none.

        A request that names this process is answered from its own lanes alone.
        """
        parameters = request.query_params.multi_items()
        try:
            wanted, limit = read_query(parameters)
        except ChoiceError as error:
            return json_answer(WRONG, {"error": str(error)})
        if refusal := self.refusal():
            return json_answer(NOT_NOW, {"error": refusal})
        others = [] if NAME in request.headers else self._processes.others
        try:
            for other in others:
                if await self._processes.status(other, PATH) != OK:
                    refusal = f"{self._processes.named(other)} cannot list its sessions now"
                    return json_answer(NOT_NOW, {"error": refusal})
        except AbsentError as error:
            return json_answer(ABSENT, {"error": str(error)})
        if request.method == "HEAD":
            return Response(media_type=LINES)
        chosen = [(name, value) for name, value in parameters if name != LIMIT]
        return Listing(self, self._all(wanted, limit, chosen, others))

    def refusal(self) -> str:
        """Say why there can be no listing now; "" if there can."""
        for number in self._view.own_lanes:
            if why := self._view.not_yet(number):
                return why
        if self.walks >= MAX_WALKS:
            return f"{self.walks} listings are under way, which is the most there can be: ask again"
        return ""

    async def _all(
        self, wanted: Choice, limit: int, chosen: list[tuple[str, str]], others: list[int]
    ) -> AsyncIterator[bytes]:
        """Yield the lines of this process, then those of others; raises AbsentError."""
        left = limit
        async for part in self._lines(wanted, left):
            left -= part.count(b"\n")
            yield part
        for other in others:
            if left <= 0:
                return
            query = urlencode([*chosen, (LIMIT, left)])
            async for part in self._processes.parts(other, f"{PATH}?{query}"):
                left -= part.count(b"\n")
                yield part

    async def _lines(self, wanted: Choice, limit: int) -> AsyncIterator[bytes]:
        """Yield lines of JSON, many at a time."""
        walk, left = self._walk(), limit
        while True:
            begin_s, now_ms = perf_counter(), self._view.run.clock.now_ms()
            piece = list(islice(walk, PIECE))
            shown = [
                show(session, lane.lane, table, lane.watermark_ms, now_ms)
                for lane, table, session in piece
                if not session.ended_ms and wanted.takes(session)
            ][:left]
            lines = _encode_lines(shown)
            took_s = perf_counter() - begin_s
            if lines:
                yield lines
            left -= len(shown)
            if not left or len(piece) < PIECE:
                return
            await asyncio.sleep(took_s * (2 * self.walks - 1))

    def _walk(self) -> Iterator[tuple[Lane, SessionTable, Session]]:
        for lane in self._view.run.running_lanes():
            table = lane.table
            for group in table.groups.values():
                for session in list(group.active.values()):  # in one step, as is said above
                    yield lane, table, session


class Listing(StreamingResponse):
    """A listing on its way to a client; it ends when the client is gone."""

    def __init__(self, sessions: Sessions, lines: AsyncIterator[bytes]) -> None:
        """Begin to walk once the answer is sent."""
        super().__init__(self._told(lines), media_type=LINES)
        self._sessions = sessions
        self._is_whole = True

    async def _told(self, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the lines, and the error at which they end early."""
        try:
            async for part in lines:
                yield part
        except AbsentError as error:
            self._is_whole = False
            yield _encode_lines([{"error": f"sessions are missing: {error}"}])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; each part that the client has taken has a time of its own."""
        connection = scope["state"][CONNECTION]

        async def send_in_time(message: Message) -> None:
            if not self._is_whole and not message.get("more_body", True):
                connection.break_off()
                while (await receive())["type"] != "http.disconnect":
                    pass
                return
            await send(message)
            connection.renew()

        self._sessions.walks += 1
        try:
            await super().__call__(scope, receive, send_in_time)
        finally:
            self._sessions.walks -= 1


def read_query(parameters: Sequence[tuple[str, str]]) -> tuple[Choice, int]:
    """Return which sessions a query asks for, and how many at most; raises ChoiceError."""
    limits = [value for name, value in parameters if name == LIMIT]
    try:
        wanted = Choice.of((name, value) for name, value in parameters if name != LIMIT)
    except ChoiceError as error:
        raise ChoiceError(f"{error}; limit=N bounds how many there are") from None
    if not limits:
        return wanted, NO_LIMIT
    text = limits[0]
    good = text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS and int(text) > 0
    if not good or len(limits) > 1:
        raise ChoiceError(f"limit is {' and '.join(limits)}: write one whole number from 1 on")
    return wanted, int(text)
