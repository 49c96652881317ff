"""Who may ask, and which headers every answer has."""

from ipaddress import ip_address
from secrets import compare_digest
from urllib.parse import unquote_to_bytes

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from heartwheel.http.page import Page
from heartwheel.http.view import NAME, ProcessView

PROBES = ("/livez", "/readyz")


class Guard:
    """Asks for the token, on everything but the probes, and sets the headers of every answer.

    Bytes that are no text are refused: read as another text, they would be answered as if asked.
    What is answered with data says which process it is from, and a request may say for which it is.
    """

    def __init__(self, app: ASGIApp, view: ProcessView, page: Page) -> None:
        """Without a token, ask only that the browser's page is from this server."""
        token = view.settings.http_token
        self._app = app
        self._name = view.name
        self._expected = f"Bearer {token}".encode() if token else b""
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["content-security-policy"] = self._page.policy
                headers["x-content-type-options"] = "nosniff"
                headers["referrer-policy"] = "no-referrer"
                headers["cache-control"] = "no-store"
                if not public and refusal is None:
                    headers[NAME] = self._name
            await send(message)

        public = scope["path"] in PROBES
        refusal = None if public else self._refusal(scope) or _unreadable(scope)
        await (refusal or self._app)(scope, receive, send_safely)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if not self._expected:
            if _is_named_here(headers.get("host", "")):
                return self._misdirected(headers)
            error = "without HEARTWHEEL_HTTP_TOKEN, ask by IP address or as localhost"
            return JSONResponse({"error": error}, 421)
        if compare_digest(headers.get("authorization", "").encode(), self._expected):
            return self._misdirected(headers)
        if scope["path"] == "/":  # a browser cannot send the token before the page asks for it
            response = self._page.response(401)
        else:
            error = "send the header Authorization: Bearer TOKEN"
            response = JSONResponse({"error": error}, 401)
        response.headers["www-authenticate"] = "Bearer"
        return response

    def _misdirected(self, headers: Headers) -> Response | None:
        """Refuse a request that names another process."""
        if headers.get(NAME, self._name) == self._name:
            return None
        return JSONResponse({"error": f"this is process {self._name}"}, 421)


def _unreadable(scope: Scope) -> Response | None:
    try:
        unquote_to_bytes(scope["raw_path"] + b"?" + scope["query_string"]).decode()
    except UnicodeDecodeError:
        return JSONResponse({"error": "this is no UTF-8: encode it so, then by %XX"}, 400)
    return None


def _is_named_here(host: str) -> bool:
    """Say whether a Host header is an address or localhost.

    Any other name may be a foreign page's own, pointed at this machine to read from it.
    """
    name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    try:
        ip_address(name)
    except ValueError:
        return name == "localhost"
    return True
