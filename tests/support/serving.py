"""A server as the tests ask it, and lanes with sessions to be asked for."""

import json
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse

from dataflows.run_state import RunState
from dataflows.settings import Settings
from dataflows.settings_sources import load_settings
from heartwheel.cluster import Cluster
from heartwheel.http.listener import bind
from heartwheel.http.server import serve
from heartwheel.http.view import ProcessView
from session_logic.events import Fact
from session_logic.journal import JournalState
from session_logic.keys import key_group_of, lane_of
from session_logic.lane import Lane
from session_logic.restoring import STATE_VERSION, LaneState
from tests.support.clocks import T
from tests.support.ports import free_port

SETTINGS = Settings(lanes=2, heartbeat_ms=1_000, max_session_ms=10_000)
HOSTILE = "a/../b\n<img src=x onerror=alert(1)>\"'&%2f\u2028\U0001f3ae"
TOKEN = "correct-horse"  # noqa: S105


def start(run: RunState, device: str, session: str = "s") -> Lane:
    """Start a session at T in its lane."""
    lane = run.lanes[lane_of(key_group_of(device), 2)]
    lane.apply([Fact(True, device, session, "pc", T)], T)
    return lane


class Client:
    """A server on a port of its own, and what it answers."""

    def __init__(
        self, run: RunState, token: str = "", cluster: Cluster | None = None, **variables: str
    ) -> None:
        self.settings = load_settings(
            {
                "HEARTWHEEL_LANES": "2",
                "HEARTWHEEL_HEARTBEAT_MS": "1000",
                "HEARTWHEEL_HTTP_PORT": str(free_port()),
                **({"HEARTWHEEL_HTTP_TOKEN": token} if token else {}),
                **variables,
            }
        )
        self.run = run
        listener = bind(self.settings)
        assert listener is not None
        self.server = serve(listener, ProcessView(self.settings, cluster or Cluster(), run))

    def get(self, path: str, **headers: str) -> HTTPResponse:
        connection = HTTPConnection("127.0.0.1", self.settings.http_port, timeout=10)
        with closing(connection):
            connection.request("GET", path, headers=headers)
            with connection.getresponse() as response:
                response.body = response.read()
        return response

    def json(self, path: str) -> object:
        return json.loads(self.get(path).body)


def restoring(number: int) -> Lane:
    """Return a lane that waits for a row of the store."""
    state = LaneState(STATE_VERSION, 2, number, T, JournalState(0, {}))
    return Lane(number, 2, SETTINGS.rules(), state)
