"""The HTTP server with lanes of its own: health, look-ups, who may ask, and what is measured."""

import base64
import hashlib
import json
import re
import socket
from typing import Any
from urllib.parse import quote

import pytest

from dataflows.messages import DeadLetter
from dataflows.run_state import MAX_RECENT_DEAD_LETTERS, RunState
from heartwheel.cluster import Cluster
from heartwheel.http.devices import Devices
from heartwheel.http.processes import Processes
from heartwheel.http.view import ProcessView
from session_logic.events import Fact
from session_logic.keys import key_group_of, lane_of
from tests.support.clocks import T
from tests.support.serving import (
    HOSTILE,
    SETTINGS,
    TOKEN,
    Client,
    restoring,
    start,
)
from tests.support.waiting import wait_for


@pytest.mark.parametrize("device", ["d", "a/b", HOSTILE, "x" * 128, "\u00e4\u00f6", " ", "."])
def test_device_is_found_by_any_id_there_can_be(client: Client, run: RunState, device: str) -> None:
    """Slashes, line breaks, markup: an id is any text of up to 128 characters."""
    path = f"/devices/{quote(device, safe='')}"
    answer = client.get(path)
    assert (answer.status, json.loads(answer.body)["active"]) == (404, False)
    lane = start(run, device, session=HOSTILE)
    lane.advance(T + 1_500)
    answer = client.get(path)
    assert (answer.status, json.loads(answer.body)) == (
        200,
        {
            "device_id": device,
            "lane": lane.lane,
            "active": True,
            "session_id": HOSTILE,
            "platform": "pc",
            "started_ms": T,
            "next_heartbeat_ms": T + 2_000,
            "timeout_ms": T + SETTINGS.max_session_ms,
            "as_of_ms": T,
        },
    )
    lane.apply([Fact(False, device, HOSTILE, "pc", T + 1_600)], T + 1_600)
    assert client.get(path).status == 404


def test_device_shows_what_its_session_carries(client: Client, run: RunState) -> None:
    """As it came: consumers see the same in the records."""
    lane = start(run, "d")
    carried = b'"account":"\\u00e4","title":1.50'
    lane.apply([Fact(True, "d", "carrying", "pc", T + 1, carried=carried)], T + 1)
    assert client.get("/devices/d").body.endswith(b'"context":{"account":"\\u00e4","title":1.50}}')


def test_bytes_that_are_no_text_are_refused(client: Client, run: RunState) -> None:
    """They are not taken for the replacement character, which an id may have."""
    start(run, "d\ufffd")
    paths = ("/devices/d%ff", "/devices/%ed%a0%80", "/sessions?platform=%ff")
    for path in paths:
        answer = client.get(path)
        assert answer.status == 400
        assert "no UTF-8" in json.loads(answer.body)["error"]
    assert client.get("/devices/d%ef%bf%bd").status == 200
    assert client.get("/devices/%00").status == 404


@pytest.mark.parametrize("version", ["x.y", "\xff", "1.x", ""])
def test_metrics_in_a_version_that_is_no_number_come_as_text(client: Client, version: str) -> None:
    """A scraper with a wrong header gets what anyone gets, and no line in the log."""
    answer = client.get("/metrics", accept=f"application/openmetrics-text;version={version}")
    assert answer.status == 200
    assert b"# TYPE python_info gauge" in answer.body


def test_lane_that_is_restored_or_elsewhere_is_not_taken_for_idle(run: RunState) -> None:
    """503 until it is known, and the owner for a lane of another process."""
    cluster = Cluster(0, ("host0:9999", "host1:9999"))
    view = ProcessView(SETTINGS, cluster, run)
    devices = Devices(view, Processes(view))
    mine = next(lane for lane in range(2) if cluster.owner(lane) == 0)
    by_lane = {lane_of(key_group_of(f"d{n}"), 2): f"d{n}" for n in range(20)}
    waiting = run.lanes[mine] = restoring(mine)
    assert devices.look_up(by_lane[mine])[0] == 503
    assert waiting.restoring
    run.lanes.clear()
    assert devices.look_up(by_lane[mine])[0] == 503
    status, answer = devices.look_up(by_lane[1 - mine])
    assert (status, answer["active"]) == (421, None)
    assert answer["owner"] == {"process": 1, "address": "host1:9999"}


DATA = ("/", "/metrics", "/status.json", "/devices/d", "/nothing")


@pytest.mark.parametrize("path", DATA)
@pytest.mark.parametrize("given", ["", "Bearer wrong", f"bearer {TOKEN}", TOKEN, "Bearer \xff"])
def test_without_the_token_nothing_but_the_probes_answers(
    client_with_token: Client, path: str, given: str
) -> None:
    """401 with no data in it; the page asks for the token."""
    answer = client_with_token.get(path, **({"Authorization": given} if given else {}))
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert (b"<form" in answer.body) is (path == "/")
    assert [client_with_token.get(probe).status for probe in ("/livez", "/readyz")] == [200, 200]


def test_with_the_token_everything_answers(client_with_token: Client) -> None:
    """The same header for a browser's script and for Prometheus."""
    codes = {
        path: client_with_token.get(path, Authorization=f"Bearer {TOKEN}").status for path in DATA
    }
    assert codes == {
        "/": 200,
        "/metrics": 200,
        "/status.json": 200,
        "/devices/d": 404,
        "/nothing": 404,
    }


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:1", 200),
        ("localhost", 200),
        ("[::1]:8080", 200),
        ("10.0.0.1:8080", 200),
        ("evil.example", 421),
        ("localhost.evil.example:8080", 421),
        ("", 421),
    ],
)
def test_without_a_token_only_an_address_or_localhost_is_answered(
    client: Client, host: str, status: int
) -> None:
    """A foreign page cannot point its own name at this machine and read."""
    assert client.get("/status.json", Host=host).status == status
    assert client.get("/livez", Host=host).status == 200


def test_page_holds_everything_and_allows_nothing_else(client: Client) -> None:
    """The policy names the hashes of the style and script in it; no address is asked for."""
    answer = client.get("/")
    page, policy = answer.body.decode(), answer.headers["content-security-policy"]
    for tag in ("style", "script"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert len(text) > 1_000
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert set(re.findall(r"https?://[^\"' ]+", page)) == {"http://www.w3.org/2000/svg"}
    for path in ("/metrics", "/status.json", "/livez", "/nothing"):
        headers = client.get(path).headers
        assert headers["content-security-policy"] == policy
        assert (headers["x-content-type-options"], headers["cache-control"]) == (
            "nosniff",
            "no-store",
        )


def test_status_has_the_last_dead_letters_newest_first_and_cut(client: Client) -> None:
    """Twenty of them, whatever is in them, with no more than is shown of a large one."""
    for offset in range(MAX_RECENT_DEAD_LETTERS + 5):
        message = (offset, T, b"\xff<b>", b"\x00" * 1_000_000 if offset else None, True)
        client.run.recent_dead_letters.append(DeadLetter("t", 3, message, "not_json", "x" * 10_000))
    letters = client.json("/status.json")["dead_letters"]
    assert [letter["offset"] for letter in letters] == list(
        range(MAX_RECENT_DEAD_LETTERS + 4, 4, -1)
    )
    assert letters[0]["key"] == "\\xff<b>"
    assert len(client.get("/status.json").body) < 200_000


def test_status_tells_platforms_apart_and_sums_over_them(
    client: Client, measured: RunState
) -> None:
    """Lanes are summed over, and a platform is there before its first event."""
    measured.platforms.know(["console"])
    measured.elapsed_ms = lambda: 90_000
    measured.heard_ms = {("pc-events", "pc"): 30_000}
    for number in range(8):
        start(measured, f"d{number}")
    start(measured, "d0")

    def status() -> dict[str, Any]:
        found: dict[str, Any] = client.json("/status.json")
        return found

    wait_for(lambda: status()["events"].get("GameStart") == 9)
    found = status()
    assert (found["active"], found["input_silence"]) == ({"pc": 8}, {"pc-events": 60})
    assert {name: n for name, n in found["outcomes"].items() if n} == {
        "started": 8,
        "duplicate_start": 1,
    }
    console, pc = found["platforms"]
    assert (console["platform"], console["active"], set(console["outcomes"].values())) == (
        "console",
        0,
        {0},
    )
    assert (pc["platform"], pc["active"], pc["events"]) == (
        "pc",
        8,
        {"GameStart": 9, "GameEnd": 0, "GamePing": 0},
    )
    assert pc["outcomes"]["duplicate_start"] == 1


@pytest.mark.parametrize("after", ["", "-1", "x", "9" * 5_000, "nan", "1e999", "\u0663"])
def test_garbage_in_a_query_is_no_error(client: Client, after: str) -> None:
    """The whole history, or none of it."""
    assert client.get(f"/status.json?after={quote(after)}").status == 200


def test_metrics_are_those_of_the_process(client: Client, measured: RunState) -> None:
    """In the format that is asked for."""
    start(measured, "d")
    text = client.get("/metrics").body.decode()
    assert re.search(
        r'^heartwheel_active_sessions\{lane="\d",platform="pc"\} 1\.0$', text, re.MULTILINE
    )
    answer = client.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")


def test_other_method_is_refused(client: Client) -> None:
    """Nothing can be changed over HTTP."""
    with socket.create_connection(("127.0.0.1", client.settings.http_port)) as connection:
        connection.sendall(b"DELETE /devices/d HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 405 ")
