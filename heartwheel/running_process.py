"""A running process as commands ask it over HTTP."""

import json
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from msgspec import Struct

from dataflows.settings import Settings
from dataflows.text import printable
from heartwheel.http.listener import url_of
from session_logic.errors import ConfigError, HeartwheelError

TIMEOUT_S = 5.0
# A status with 15 minutes of history has some 100 kB.
MOST_BYTES = 1 << 24
UNAUTHORIZED = 401
GIVE = "give --url"


class NoAnswerError(HeartwheelError):
    """The process does not answer as Heartwheel does: check the URL, the token and the process."""


class Answer(Struct, frozen=True):
    """The status of an answer, and the JSON object that it has, also as it came."""

    status: int
    value: dict[str, Any]
    text: str


class _NoRedirect(HTTPRedirectHandler):
    """Takes a redirect for the answer: it is none of ours, and the token is for nobody else."""

    def redirect_request(self, *_request: object) -> None:
        """Follow none."""


_opener = build_opener(_NoRedirect)


class RunningProcess:
    """A process of `heartwheel run`, at the URL of its HTTP server."""

    def __init__(self, settings: Settings, url: str | None = None) -> None:
        """Take the URL, or that of the settings; raises ConfigError if there is none."""
        if url is None and not settings.http_port:
            msg = "HEARTWHEEL_HTTP_PORT is 0, so there is no server; give --url"
            raise ConfigError(msg)
        self.url = url or url_of(settings)
        self._token = settings.http_token

    def ask(self, path: str) -> Answer:
        """Return what the process answers to a path that is encoded as in a URL.

        Raises NoAnswerError if nothing answers there, or something that is not Heartwheel.
        """
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        try:
            return self._read(Request(f"{self._root()}{path}", headers=headers))  # noqa: S310
        except (HTTPException, ValueError, RecursionError):
            raise self.stranger() from None
        except OSError as error:
            reason = getattr(error, "reason", error)
            msg = f"{self.url} does not answer ({reason}); does `heartwheel run` run there? {GIVE}"
            raise NoAnswerError(msg) from None

    def _root(self) -> str:
        """Return the URL without a path."""
        try:
            where = urlsplit(self.url)
            _ = where.port  # raises for one that is none, or the client would ask at another
        except ValueError:
            where = urlsplit("")
        if where.scheme not in ("http", "https") or not where.netloc:
            msg = f"{self.url} is no URL of a process: write it as http://HOST:PORT"
            raise NoAnswerError(msg)
        return f"{where.scheme}://{where.netloc}"

    def _read(self, request: Request) -> Answer:
        try:
            with _opener.open(request, timeout=TIMEOUT_S) as answer:
                status, body = answer.status, answer.read(MOST_BYTES)
        except HTTPError as error:
            status, body = error.code, error.read(MOST_BYTES)
            if status == UNAUTHORIZED:
                hint = "set HEARTWHEEL_HTTP_TOKEN to the token of that process"
                msg = f"{self.url} answers {status} {error.reason}; {hint}"
                raise NoAnswerError(msg) from None
        value = json.loads(body)
        if not isinstance(value, dict):
            raise self.stranger()
        return Answer(status, value, body.decode())

    def refused(self, answer: Answer) -> NoAnswerError:
        """Return the error for an answer that is not what was asked for, with what it says."""
        if not isinstance(said := answer.value.get("error"), str):
            return self.stranger()
        return NoAnswerError(f"{self.url} answers {answer.status}: {printable(said)}")

    def stranger(self) -> NoAnswerError:
        """Return the error for an answer that a process of Heartwheel does not give."""
        return NoAnswerError(f"{self.url} answers, but not as Heartwheel; {GIVE}")
