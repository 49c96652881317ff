"""The listing of the active sessions of this process: a walk over its lanes, piece by piece.

What is guaranteed: the dataflow never waits for a walk, however much there is to list and however
slowly the client reads; a walk needs memory for references to the sessions of one key group, and
for the lines of a few pieces. A session that is active all the while is listed exactly once. One
that begins or ends meanwhile may be listed or not. Each line is true at its as_of_ms.

How. The dataflow goes on, and changes what is walked over. So the sessions of a key group are
copied to a list in one step of the interpreter, in which no other thread has a turn. What has
ended by the time its turn comes is left out. A piece takes about a millisecond, and then the walk
pauses for at least as long: Python lets a thread that computes go on for 5 ms before the next.

What would break it: a loop over a dict of the dataflow that gives up the interpreter in between; a
piece for each key group, of which there are 256 even if there are few sessions.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import islice
from time import perf_counter

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from heartwheel.http.answers import json_answer
from heartwheel.http.connections import CONNECTION
from heartwheel.http.view import ProcessView
from heartwheel.sessions.choice import Choice, ChoiceError
from heartwheel.sessions.shown import show
from session_logic.lane import Lane
from session_logic.rules import Session
from session_logic.table import SessionTable

MEDIA_TYPE = "application/x-ndjson"
# How many sessions are looked at before others have their turn.
PIECE = 200
MAX_WALKS = 4
MAX_DIGITS = 12
WRONG, NOT_NOW = 400, 503
_encode_lines = msgspec.json.Encoder().encode_lines


class Sessions:
    """Lists what is active in the lanes of this process."""

    def __init__(self, view: ProcessView) -> None:
        """List what is in the lanes that run."""
        self._view = view
        self.walks = 0

    async def answer(self, request: Request) -> Response:
        """Answer a request with a listing, or say in one line why there is none."""
        try:
            wanted, limit = read_query(request.query_params.multi_items())
        except ChoiceError as error:
            return json_answer(WRONG, {"error": str(error)})
        if refusal := self.refusal():
            return json_answer(NOT_NOW, {"error": refusal})
        if request.method == "HEAD":
            return Response(media_type=MEDIA_TYPE)
        return Listing(self, self._lines(wanted, limit))

    def refusal(self) -> str:
        """Say why there can be no listing now; "" if there can."""
        for number in self._view.own_lanes:
            if why := self._view.not_yet(number):
                return why
        if self.walks >= MAX_WALKS:
            return f"{self.walks} listings are under way, which is the most there can be: ask again"
        return ""

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
        super().__init__(lines, media_type=MEDIA_TYPE)
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; each part that the client has taken has a time of its own."""

        async def send_in_time(message: Message) -> None:
            await send(message)
            scope["state"][CONNECTION].renew()

        self._sessions.walks += 1
        try:
            await super().__call__(scope, receive, send_in_time)
        finally:
            self._sessions.walks -= 1


def read_query(parameters: Sequence[tuple[str, str]]) -> tuple[Choice, int]:
    """Return which sessions a query asks for, and how many at most; raises ChoiceError."""
    limits = [value for name, value in parameters if name == "limit"]
    try:
        wanted = Choice.of((name, value) for name, value in parameters if name != "limit")
    except ChoiceError as error:
        raise ChoiceError(f"{error}; limit=N bounds how many there are") from None
    if not limits:
        return wanted, sys.maxsize
    text = limits[0]
    good = text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS and int(text) > 0
    if not good or len(limits) > 1:
        raise ChoiceError(f"limit is {' and '.join(limits)}: write one whole number from 1 on")
    return wanted, int(text)
