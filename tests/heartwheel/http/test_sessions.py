"""The listing of active sessions: what is in it, what it holds up, and when it ends."""

import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, IncompleteRead

import pytest

from dataflows.run_state import RunState
from heartwheel.http.connections import BoundedConnection
from heartwheel.http.sessions import MAX_WALKS, PIECE
from session_logic.events import Fact
from session_logic.keys import key_group_of, lane_of
from tests.support.clocks import FixedClock, T
from tests.support.serving import HOSTILE, TOKEN, Client, restoring, start
from tests.support.waiting import wait_for

ASK = b"GET /sessions HTTP/1.1\r\nHost: localhost\r\n\r\n"
# So many that no socket holds what is listed of them.
MANY = 40_000


def fill(run: RunState, count: int, prefix: str = "d") -> list[str]:
    """Start a session on each of many devices; return them."""
    devices = [f"{prefix}{number}" for number in range(count)]
    for lane in run.lanes.values():
        facts = [
            Fact(True, device, "s", "pc", T)
            for device in devices
            if lane_of(key_group_of(device), 2) == lane.lane
        ]
        lane.apply(facts, T)
    return devices


def listed(client: Client, query: str = "") -> list[dict[str, object]]:
    """Return the sessions that are listed."""
    answer = client.get(f"/sessions{query}")
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert answer.headers["heartwheel-process"] == "0 session-events"
    return [json.loads(line) for line in answer.body.splitlines()]


@contextmanager
def walking(client: Client) -> Iterator[socket.socket]:
    """Ask for a listing that is too long for the sockets, and read nothing of it yet."""
    address = "127.0.0.1", client.settings.http_port
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(ASK)
        connection.recv(1)
        yield connection


def test_listing_has_what_a_look_up_of_each_device_has(client: Client, run: RunState) -> None:
    """Any id, what is carried, and not the sessions that are over."""
    lane = start(run, HOSTILE, session=HOSTILE)
    lane.apply([Fact(True, HOSTILE, "later", "pc", T + 1, carried=b'"account":"x"')], T + 1)
    quiet = run.lanes[lane_of(key_group_of("quiet"), 2)]
    quiet.apply([Fact(True, "quiet", "s", "pc", T, idle_timeout_ms=5_000)], T)
    fill(run, 3 * PIECE + 1)
    start(run, "over")
    ended = run.lanes[lane_of(key_group_of("over"), 2)]
    ended.apply([Fact(False, "over", "s", "pc", T + 1)], T + 1)
    found = {session["device_id"]: session for session in listed(client)}
    assert found.keys() == {HOSTILE, "quiet", *(f"d{number}" for number in range(3 * PIECE + 1))}
    assert found[HOSTILE]["context"] == {"account": "x"}
    assert (found["quiet"]["last_seen_ms"], found["quiet"]["silent_ms"]) == (T, T + 5_000)
    for device in ("d7", "quiet"):
        assert found[device] == client.json(f"/devices/{device}")


@pytest.mark.parametrize(
    ("query", "devices"),
    [
        ("", {"c", "p", "q"}),
        ("?platform=console", {"c"}),
        ("?platform=pc", {"p", "q"}),
        ("?platform=pc&platform=console", {"c", "p", "q"}),
        ("?platform=", set()),
        ("?context.account=%C3%A4", {"q"}),
        ("?context.account=%C3%A4&platform=console", set()),
        ("?context.title=7", {"p", "q"}),
    ],
)
def test_listing_can_be_of_a_platform_or_of_what_is_carried(
    client: Client, run: RunState, query: str, devices: set[str]
) -> None:
    """All that is asked for must hold; of several values of a name any one."""
    for device, platform, carried in (
        ("c", "console", ""),
        ("p", "pc", '"title":7'),
        ("q", "pc", '"account":"ä","title":7'),
    ):
        lane = run.lanes[lane_of(key_group_of(device), 2)]
        lane.apply([Fact(True, device, "s", platform, T, carried=carried.encode())], T)
    assert {session["device_id"] for session in listed(client, query)} == devices


@pytest.mark.parametrize("limit", [1, PIECE, PIECE + 1, 10_000])
def test_listing_ends_at_its_limit(client: Client, run: RunState, limit: int) -> None:
    """Also between two pieces."""
    fill(run, 2 * PIECE)
    found = [session["device_id"] for session in listed(client, f"?limit={limit}")]
    assert len(found) == len(set(found)) == min(limit, 2 * PIECE)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?limits=1", "'limits': write platform=pc, or context.NAME=VALUE"),
        ("?platform=pc&Platform=pc", "limit=N bounds how many"),
        ("?context.=x", "'context.'"),
        ("?limit=0", "limit is 0: write one whole number from 1 on"),
        ("?limit=-1", "limit is -1"),
        ("?limit=%D9%A3", "write one whole number"),
        (f"?limit={'9' * 5_000}", "write one whole number"),
        ("?limit=1&limit=2", "limit is 1 and 2: write one"),
        ("?limit", "limit is : write one"),
    ],
)
def test_parameter_that_is_not_understood_is_refused(
    client: Client, query: str, words: str
) -> None:
    """One line, and nothing is listed: a typo must not look like all sessions."""
    answer = client.get(f"/sessions{query}")
    assert answer.status == 400
    assert words in json.loads(answer.body)["error"]
    assert b"\n" not in answer.body


def test_listing_waits_for_every_lane_of_the_process(client: Client, run: RunState) -> None:
    """Half of the sessions must not look like all of them."""
    run.lanes[1] = restoring(1)
    answer = client.get("/sessions")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert json.loads(answer.body) == {"error": "lane 1 is being restored"}
    del run.lanes[1]
    answer = client.get("/sessions")
    assert answer.status == 503
    assert "lane 1 has not begun" in json.loads(answer.body)["error"]


def test_listing_asks_for_the_token(client_with_token: Client) -> None:
    """As all data does."""
    assert client_with_token.get("/sessions").status == 401
    answer = client_with_token.get("/sessions", Authorization=f"Bearer {TOKEN}")
    assert (answer.status, answer.body) == (200, b"")


def test_sessions_that_stay_are_listed_once_while_others_come_and_go(
    client: Client, run: RunState
) -> None:
    """The worker changes the lanes all the while, and is never waited for."""
    staying, over = set(fill(run, 5_000)), threading.Event()

    def work() -> None:
        number = 0
        while not over.is_set():
            number += 1
            device = f"x{number % 900}"
            lane = run.lanes[lane_of(key_group_of(device), 2)]
            is_start = number % 1_800 < 900
            lane.apply([Fact(is_start, device, f"s{number // 1_800}", "pc", T + number)], T)

    switch_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(5):
            found = [session["device_id"] for session in listed(client)]
            assert len(found) == len(set(found))
            assert staying <= set(found)
    finally:
        over.set()
        worker.join()
        sys.setswitchinterval(switch_s)


def test_probes_and_look_ups_are_answered_while_clients_list(client: Client, run: RunState) -> None:
    """Whoever reads slowly holds up nobody; there is a most of such clients."""
    fill(run, MANY)
    with ExitStack() as stack:
        for _ in range(MAX_WALKS):
            stack.enter_context(walking(client))
        answers = [client.get(path).status for path in ("/livez", "/readyz", "/devices/d1")]
        assert answers == [200, 200, 200]
        answer = client.get("/sessions?limit=1")
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert f"{MAX_WALKS} listings are under way" in json.loads(answer.body)["error"]
    wait_for(lambda: client.get("/sessions?limit=1").status == 200)


def test_client_that_reads_nothing_is_cut_and_its_listing_ends(
    client: Client, run: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place is free again, and what was left is dropped."""
    monkeypatch.setattr(BoundedConnection, "patience_s", 1)
    fill(run, MANY)
    with ExitStack() as stack:
        for _ in range(MAX_WALKS):
            stack.enter_context(walking(client))
        wait_for(lambda: client.get("/sessions?limit=1").status == 200)
        wait_for(lambda: not client.server.server_state.connections)


class SlowClock(FixedClock):
    """A clock that takes its time, which each piece of a walk looks at once."""

    def now_ms(self) -> int:
        time.sleep(0.01)
        return super().now_ms()


def test_listing_may_take_longer_than_a_client_may_say_nothing(
    client: Client, run: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part has its time: the whole takes twice as long here."""
    fill(run, 200 * PIECE)
    run.clock = SlowClock()
    monkeypatch.setattr(BoundedConnection, "patience_s", 1)
    assert len(listed(client)) == 200 * PIECE


def test_listing_that_is_cut_is_no_whole_answer(client: Client, run: RunState) -> None:
    """A client is told by HTTP itself that the end is missing."""
    fill(run, MANY)
    connection = HTTPConnection("127.0.0.1", client.settings.http_port, timeout=30)
    connection.request("GET", "/sessions")
    answer = connection.getresponse()
    answer.read(1_000)
    (open_one,) = client.server.server_state.connections
    open_one.loop.call_soon_threadsafe(open_one.transport.abort)
    with pytest.raises((IncompleteRead, ConnectionError)):
        while answer.read(100_000):
            pass
    answer.close()
    connection.close()


def test_head_of_a_listing_walks_nothing(client: Client, run: RunState) -> None:
    """It has no body to be made."""
    fill(run, MANY)
    connection = HTTPConnection("127.0.0.1", client.settings.http_port, timeout=10)
    connection.request("HEAD", "/sessions")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"")
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    connection.close()
