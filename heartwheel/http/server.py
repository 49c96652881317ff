"""The HTTP server of a process, in a thread of its own that the dataflow never waits for."""

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import AsyncIterator

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
from heartwheel.http.all_shards import AllShards
from heartwheel.http.answers import json_answer
from heartwheel.http.connections import PATIENCE_S, BoundedConnection
from heartwheel.http.devices import Devices
from heartwheel.http.guard import Guard
from heartwheel.http.health import Health
from heartwheel.http.listener import url_of
from heartwheel.http.page import Page
from heartwheel.http.processes import Processes
from heartwheel.http.quiet_log import Quiet
from heartwheel.http.sessions import Sessions
from heartwheel.http.status import Status
from heartwheel.http.view import ProcessView

SAMPLE_S = 1.0
# How many connections are taken at a time: fewer than there may be.
BACKLOG = 128
QUIET = Quiet()


class _DeviceConvertor(PathConvertor):
    """Any text up to the end: a device id may hold slashes, and line breaks."""

    regex = "(?s:.+)"


def serve(listener: socket.socket, view: ProcessView) -> uvicorn.Server:
    """Answer on a bound socket, from now to the end of the process or until should_exit is set."""
    logging.getLogger("uvicorn.error").addFilter(QUIET)
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(view),
            http=BoundedConnection,
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=PATIENCE_S,
            backlog=BACKLOG,
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
    processes = Processes(view)
    devices = Devices(view, processes)
    sessions = Sessions(view, processes)
    status = Status(view, health)
    all_shards = AllShards(view, status.describe)
    page = Page()

    async def livez(_request: Request) -> Response:
        return _probe(health.stalled())

    async def readyz(_request: Request) -> Response:
        return _probe(health.unready())

    async def metrics(request: Request) -> Response:
        try:
            encode, content_type = choose_encoder(request.headers.get("accept", ""))
        except TypeError:  # the version that is wanted is no number
            encode, content_type = choose_encoder("")
        return Response(encode(REGISTRY), headers={"content-type": content_type})

    async def status_json(request: Request) -> Response:
        return json_answer(200, status.describe(_number(request.query_params.get("after", ""))))

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
            Route("/devices/{device_id:device}", devices.answer),
            Route("/sessions", sessions.answer),
            Route("/status.json", status_json),
            Route("/shards.json", all_shards.answer),
            Route("/", show_page),
        ],
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return Guard(app, view, page)


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
