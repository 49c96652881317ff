"""Two processes of a cluster, each with a server: any of them answers for both."""

import json
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection, IncompleteRead
from urllib.parse import quote

import pytest

from dataflows.run_state import RunState
from dataflows.settings import Settings
from heartwheel.cluster import Cluster
from heartwheel.http import processes
from heartwheel.http.view import ProcessView
from session_logic.errors import ConfigError
from session_logic.events import Fact
from session_logic.keys import key_group_of, lane_of
from session_logic.lane import Lane
from tests.support.clocks import FixedClock, T
from tests.support.ports import free_port
from tests.support.serving import HOSTILE, SETTINGS, TOKEN, Client, restoring
from tests.support.waiting import wait_for

ADDRESSES = ("host0:9999", "host1:9999")
CLUSTERS = [Cluster(number, ADDRESSES) for number in range(2)]
# So many that no socket holds what is listed of them.
MANY = 40_000


def lane_at(number: int) -> int:
    """Return the lane that a process has."""
    (lane,) = CLUSTERS[0].lanes_of(number, range(2))
    return lane


def process(number: int) -> RunState:
    """Return the state of a process, with the lane that it has."""
    run = RunState(FixedClock())
    run.lanes[lane_at(number)] = Lane(lane_at(number), 2, SETTINGS.rules())
    return run


def begin(run: RunState, devices: list[str], platform: str = "pc") -> list[str]:
    """Start sessions on those of the devices that belong to a process; return these."""
    ((number, lane),) = run.lanes.items()
    own = [device for device in devices if lane_of(key_group_of(device), 2) == number]
    lane.apply([Fact(True, device, f"s of {device}", platform, T) for device in own], T)
    return own


class Two:
    """Both processes with their servers."""

    def __init__(self, tokens: tuple[str, str] = ("", ""), places: str = "") -> None:
        self.runs = [process(0), process(1)]
        ports = [free_port(), free_port()]
        where = places or ",".join(f"127.0.0.1:{port}" for port in ports)
        self.clients = [
            Client(
                self.runs[number],
                tokens[number],
                CLUSTERS[number],
                HEARTWHEEL_HTTP_PORT=str(ports[number]),
                HEARTWHEEL_HTTP_ADDRESSES=where,
            )
            for number in range(2)
        ]

    def stop(self) -> None:
        for client in self.clients:
            client.server.should_exit = True

    def end(self, number: int) -> None:
        """Let the server of a process be gone."""
        client = self.clients[number]
        client.server.should_exit = client.server.force_exit = True
        wait_for(lambda: not client.server.started or not answers(client))


def answers(client: Client) -> bool:
    try:
        client.get("/livez")
    except OSError:
        return False
    return True


@pytest.fixture
def two() -> Iterator[Two]:
    """Return two processes that know each other."""
    made = Two()
    yield made
    made.stop()


def of_other(number: int) -> str:
    """Return a device of the other process than this."""
    names = map("d{}".format, range(99))
    return next(name for name in names if lane_of(key_group_of(name), 2) == lane_at(1 - number))


def test_device_is_answered_by_any_process(two: Two) -> None:
    """As by the one that has its lane, whatever its id is."""
    devices = [*map("d{}".format, range(20)), HOSTILE, "a/b", "."]
    begun = [device for run in two.runs for device in begin(run, devices)]
    assert sorted(begun) == sorted(devices)
    for device in [*devices, "idle", "idle too"]:
        path = f"/devices/{quote(device, safe='')}"
        first, second = (client.get(path) for client in two.clients)
        assert (first.status, first.body) == (second.status, second.body)
        assert json.loads(first.body)["device_id"] == device
        assert first.status == (404 if device.startswith("idle") else 200)
    number = lane_at(1)
    two.runs[1].lanes[number] = restoring(number)
    answer = two.clients[0].get(f"/devices/{of_other(0)}")
    assert (answer.status, "is being restored" in answer.body.decode()) == (503, True)


def test_process_that_is_named_answers_itself_and_another_refuses(two: Two) -> None:
    """So no request goes round, and none is answered by the wrong one."""
    device, header = of_other(0), {"heartwheel-process": "0 session-events"}
    answer = two.clients[0].get(f"/devices/{device}", **header)
    assert answer.status == 421
    assert json.loads(answer.body)["owner"] == {"process": 1, "address": "host1:9999"}
    begin(two.runs[0], list(map("d{}".format, range(9))))
    begin(two.runs[1], list(map("d{}".format, range(9))))
    assert len(two.clients[0].get("/sessions").body.splitlines()) == 9
    own = two.clients[0].get("/sessions", **header).body.splitlines()
    assert {json.loads(line)["lane"] for line in own} == {lane_at(0)}
    for path in (f"/devices/{device}", "/sessions", "/status.json"):
        for name in ("1 session-events", "0 other", ""):
            refused = two.clients[0].get(path, **{"heartwheel-process": name})
            assert refused.status == 421
            assert json.loads(refused.body) == {"error": "this is process 0 session-events"}


def one_error(client: Client, path: str, **headers: str) -> str:
    """Return the line with which a request fails because of the other process."""
    answer = client.get(path, **headers)
    assert answer.status == 502, answer.body
    assert b"\n" not in answer.body
    return str(json.loads(answer.body)["error"])


def test_process_that_is_down_is_named_and_nothing_is_left_out(two: Two) -> None:
    """For a device and for all sessions."""
    two.end(1)
    for path in (f"/devices/{of_other(0)}", "/sessions", "/sessions?limit=1"):
        error = one_error(two.clients[0], path)
        assert error.startswith("process 1 (host1:9999) does not answer at 127.0.0.1:")
        assert "HEARTWHEEL_HTTP_ADDRESSES" in error
    found = json.loads(two.clients[0].get(f"/devices/{of_other(0)}").body)
    assert (found["active"], found["owner"]["process"]) == (None, 1)


def test_process_that_stands_still_is_waited_for_no_longer_than_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It takes the connection and says nothing."""
    monkeypatch.setattr(processes, "ASK_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        two = Two(places=f"127.0.0.1:1,127.0.0.1:{port}")
        for path in (f"/devices/{of_other(0)}", "/sessions"):
            assert "it takes too long" in one_error(two.clients[0], path)
        two.stop()


@pytest.mark.parametrize(
    "said", [b"SSH-2.0\r\n", b"", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"]
)
def test_other_program_at_the_address_is_not_taken_for_the_process(said: bytes) -> None:
    """Whatever it says."""
    with socket.create_server(("127.0.0.1", 0)) as other:

        def serve() -> None:
            for _ in range(2):
                connection, _ = other.accept()
                with connection:
                    connection.recv(10_000)
                    connection.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        two = Two(places=f"127.0.0.1:1,127.0.0.1:{other.getsockname()[1]}")
        for path in (f"/devices/{of_other(0)}", "/sessions"):
            assert "HEARTWHEEL_HTTP_ADDRESSES" in one_error(two.clients[0], path)
        two.stop()
        thread.join()


def test_process_that_finds_itself_at_the_address_of_another_says_so() -> None:
    """Without addresses, on one machine, the port is that of the process that asks."""
    port = free_port()
    client = Client(
        process(0), "", Cluster(0, ("127.0.0.1:1", "127.0.0.1:2")), HEARTWHEEL_HTTP_PORT=str(port)
    )
    for path in (f"/devices/{of_other(0)}", "/sessions"):
        error = one_error(client, path)
        assert f"process 1 (127.0.0.1:2) is not at 127.0.0.1:{port}" in error
        assert "set HEARTWHEEL_HTTP_ADDRESSES" in error
    client.server.should_exit = True


def test_token_is_that_of_all_processes() -> None:
    """Another one is refused with a line; the same is handed on."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    two = Two((TOKEN, "other"))
    error = one_error(two.clients[0], f"/devices/{of_other(0)}", **headers)
    assert "does not take the HEARTWHEEL_HTTP_TOKEN" in error
    two.stop()
    two = Two((TOKEN, TOKEN))
    assert two.clients[0].get(f"/devices/{of_other(0)}").status == 401
    assert two.clients[0].get(f"/devices/{of_other(0)}", **headers).status == 404
    assert two.clients[0].get("/sessions", **headers).status == 200
    two.stop()


def test_listing_has_the_sessions_of_all_processes(two: Two) -> None:
    """All, some or so many, from whichever is asked."""
    devices = list(map("d{}".format, range(500)))
    for run in two.runs:
        begin(run, devices)
        begin(run, list(map("c{}".format, range(50))), "console")
    for client in two.clients:
        for query, want in (("", 550), ("?platform=console", 50), ("?platform=pc&limit=400", 400),
                            ("?limit=3", 3), ("?platform=%26limit%3D1", 0)):  # fmt: skip
            lines = client.get(f"/sessions{query}").body.splitlines()
            found = {json.loads(line)["device_id"] for line in lines}
            assert len(lines) == len(found) == want, query
    two.runs[1].lanes[lane_at(1)] = restoring(lane_at(1))
    answer = two.clients[0].get("/sessions")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert "process 1 (host1:9999) cannot list" in json.loads(answer.body)["error"]


def test_process_that_fails_while_it_lists_is_named_in_the_last_line(two: Two) -> None:
    """And HTTP tells that the answer is not whole."""
    begin(two.runs[1], list(map("d{}".format, range(2 * MANY))))
    connection = HTTPConnection("127.0.0.1", two.clients[0].settings.http_port, timeout=30)
    connection.request("GET", "/sessions")
    answer = connection.getresponse()
    got = [answer.read(1_000)]
    server = two.clients[1].server
    (open_one,) = server.server_state.connections
    open_one.loop.call_soon_threadsafe(open_one.transport.abort)
    with pytest.raises((IncompleteRead, ConnectionError)) as cut:
        while part := answer.read(1_000_000):
            got.append(part)
    if isinstance(cut.value, IncompleteRead):
        got.append(cut.value.partial)
    last = b"".join(got).rstrip(b"\n").rpartition(b"\n")[2]
    error = json.loads(last)["error"]
    assert error.startswith("sessions are missing: process 1 (host1:9999) does not answer")
    connection.close()


def test_addresses_must_be_those_of_all_processes() -> None:
    """One for each, or none."""
    for places in ("a:1", "a:1,b:2,c:3"):
        settings = Settings(lanes=2, http_addresses=places)
        view = ProcessView(settings, CLUSTERS[0], RunState(FixedClock()))
        with pytest.raises(ConfigError, match="one for each of a cluster"):
            processes.Processes(view)
    for wrong in ("b", "b:0", "b:65536", "b:-1", "b:" + "9" * 5_000):
        with pytest.raises(ConfigError, match=f"has '{wrong}': write host:port"):
            Settings(http_addresses=f"a:1,{wrong}")
