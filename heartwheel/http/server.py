"""The HTTP server of a process, in a thread of its own that the dataflow never waits for."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator
from ipaddress import ip_address
from typing import Any

import msgspec
import uvicorn
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from dataflows.clock import Clock
from dataflows.logs import log
from dataflows.settings import Settings
from heartwheel.http.devices import Devices
from heartwheel.http.guard import Guard
from heartwheel.http.health import Health
from heartwheel.http.page import Page
from heartwheel.http.status import Status
from heartwheel.http.view import ProcessView
from session_logic.errors import ConfigError

SAMPLE_S = 1.0
# Whoever opens connections and says nothing must not take the files that Kafka needs.
MAX_CONNECTIONS = 256
KEEP_ALIVE_S = 30
_encode = msgspec.json.Encoder().encode


class _DeviceConvertor(PathConvertor):
    """Any text up to the end: a device id may hold slashes, and line breaks."""

    regex = "(?s:.+)"


def bind(settings: Settings) -> socket.socket | None:
    """Take the address of the settings, or return None if they want no server.

    Raises ConfigError if it cannot be had.
    """
    host, port = settings.http_host, settings.http_port
    if not port:
        return None
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        msg = (
            f"HEARTWHEEL_HTTP_HOST and HEARTWHEEL_HTTP_PORT: {host}:{port} cannot be bound "
            f"({error.strerror}); choose a host of this machine and a port that is free, or "
            "HEARTWHEEL_HTTP_PORT=0 for none"
        )
        raise ConfigError(msg) from None
    # asyncio does not, as this socket does not say that it is TCP: an answer in two parts, as they
    # all are, would wait 40 ms for the client's word of the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def url_of(settings: Settings) -> str:
    """Return where a browser on this machine finds the page."""
    host = settings.http_host
    with contextlib.suppress(ValueError):
        if ip_address(host).is_unspecified:
            host = "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.http_port}/"


def serve(listener: socket.socket, view: ProcessView) -> uvicorn.Server:
    """Answer on a bound socket, from now to the end of the process or until should_exit is set."""
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(view),
            http="h11",
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
    )
    # It takes no signals, as it is not the main thread, and dies with the process.
    threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, name="http", daemon=True
    ).start()
    log.info("status page", url=url_of(view.settings))
    return server


def make_app(view: ProcessView) -> ASGIApp:
    """Return the routes, guarded."""
    register_url_convertor("device", _DeviceConvertor())
    health = Health(view)
    devices = Devices(view)
    status = Status(view, health)
    page = Page()

    async def livez(_request: Request) -> Response:
        return _probe(health.stalled())

    async def readyz(_request: Request) -> Response:
        return _probe(health.unready())

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(REGISTRY), headers={"content-type": content_type})

    async def device(request: Request) -> Response:
        return _json(*devices.look_up(request.path_params["device_id"]))

    async def status_json(request: Request) -> Response:
        return _json(200, status.describe(_number(request.query_params.get("after", ""))))

    async def show_page(_request: Request) -> Response:
        return page.response(200)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        sampling = asyncio.create_task(_sample(status, view.run.clock))
        yield
        sampling.cancel()

    app = Starlette(
        routes=[
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/devices/{device_id:device}", device),
            Route("/status.json", status_json),
            Route("/", show_page),
        ],
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return Guard(app, view.settings.http_token, page)


async def _sample(status: Status, clock: Clock) -> None:
    while True:
        # A lane was added while the lanes were gone through: the next second sees it.
        with contextlib.suppress(RuntimeError):
            status.history.sample(clock.now_ms())
        await asyncio.sleep(SAMPLE_S)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0


def _probe(problem: str | None) -> Response:
    return Response(f"{problem or 'ok'}\n", 503 if problem else 200, media_type="text/plain")


def _json(code: int, value: dict[str, Any]) -> Response:
    return Response(_encode(value), code, media_type="application/json")
