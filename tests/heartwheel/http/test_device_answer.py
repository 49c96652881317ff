"""Another shard, or what is at its address, answers as no shard should: it is named, as one that is
down is, and nothing of its answer is believed.
"""

import json
from http.client import IncompleteRead

import pytest

from dataflows.run_state import RunState
from heartwheel.http.processes import MOST_BYTES
from session_logic.events import Fact
from session_logic.lane import Lane
from tests.support.answering import answering
from tests.support.clocks import FixedClock, T
from tests.support.ports import free_port
from tests.support.serving import SETTINGS, Client

NAME = b"heartwheel-process: 1 session-events\r\n"
SESSION = {
    "device_id": "d1",
    "lane": 1,
    "active": True,
    "session_id": "s1",
    "platform": "pc",
    "started_ms": T,
    "next_heartbeat_ms": T + 1,
    "timeout_ms": T + 2,
    "as_of_ms": T,
}
IDLE = {"device_id": "d1", "lane": None, "active": False, "error": "no session is active"}
LISTED = b"content-type: application/x-ndjson\r\n"


def http(
    body: bytes | dict[str, object],
    status: int = 200,
    headers: bytes = NAME,
    length: int | None = None,
) -> bytes:
    """Return an answer; its length is that of the body, or another one."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    size = len(data) if length is None else length
    head = b"HTTP/1.1 %d X\r\n%bcontent-length: %d\r\n\r\n" % (status, headers, size)
    return head + data


def without(name: str) -> dict[str, object]:
    """Return a session without one of what it has."""
    return {key: value for key, value in SESSION.items() if key != name}


def ask(path: str, answer: bytes) -> tuple[int, bytes]:
    """Return what shard 0 says to a request while this is at the address of shard 1."""
    with answering(answer) as other:
        run, port = RunState(FixedClock()), free_port()
        run.lanes[0] = Lane(0, 2, SETTINGS.rules())
        run.lanes[0].apply([Fact(True, "d0", "s0", "pc", T)], T)
        client = Client(
            run,
            HEARTWHEEL_ROUTE="partition",
            HEARTWHEEL_SHARD="0/2",
            HEARTWHEEL_HTTP_PORT=str(port),
            HEARTWHEEL_HTTP_ADDRESSES=f"127.0.0.1:{port},127.0.0.1:{other}",
        )
        try:
            found = client.get(path)
        finally:
            client.server.should_exit = True
        return found.status, found.body


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (http(b"<html>Bad Gateway</html>", 502, b""), "another program answers there"),
        (http(b"", 302, b"location: http://127.0.0.1:1/\r\n"), "another program answers there"),
        (http(b"", 302, NAME + b"location: /login\r\n"), "it answers 302"),
        (http(b"Internal Server Error", 500), "it answers 500"),
        (http({**IDLE, "owner": {"process": 0}}, 421), "it answers 421"),
        (http(b"<html>Sign in</html>"), "JSON is malformed"),
        (http(b"<html>Not found</html>", 404), "JSON is malformed"),
        (http(b""), "Input data was truncated"),
        (http(b"", 503), "Input data was truncated"),
        (http(SESSION, length=999), "without sending complete message body"),
        (http(json.dumps(SESSION).encode()[:50]), "Input data was truncated"),
        (b"HTTP/1.1 200 OK\r\n%b\r\n{}" % NAME, "it may be cut off"),
        (http(b'"%b"' % (b"x" * MOST_BYTES)), f"longer than {MOST_BYTES} bytes"),
        (http(b"[" * 100_000), "does not answer as one of Heartwheel"),
        (http(b'{"x":' + b"[" * 100_000 + b"}"), "nested too deep"),
        (http(b'{"device_id":"\xff"}'), "invalid start byte"),
        (http(b"[]"), "Expected `object`"),
        (http(without("lane")), "missing required field `lane`"),
        (http({**SESSION, "started_ms": "soon"}), "`$.started_ms`"),
        (http({**SESSION, "also_in_lanes": [None]}), "`$.also_in_lanes[0]`"),
        (http({**SESSION, "device_id": "d2"}), "about another device"),
        (http({"error": "ask again"}, 503), "missing required field `device_id`"),
        (http({**IDLE, "device_id": "d2"}, 404), "about another device"),
        (http(b"", headers=b"x: %b\r\n" % (b"x" * 200_000)), "does not answer"),
        (b"HTTP/1.1 200 OK\r\nx: \x1b[31m\x00\r\n\r\n", "does not answer"),
    ],
)
def test_answer_that_is_none_is_named_and_a_session_elsewhere_is_found(
    answer: bytes, why: str
) -> None:
    """A proxy, a cut, a limit, another version: one line, and no idle device by mistake."""
    status, body = ask("/devices/d1", answer)
    said = json.loads(body)
    assert (status, said["active"]) == (502, None)
    assert said["error"].startswith("shard 1/2 ")
    assert "HEARTWHEEL_HTTP_ADDRESSES" in said["error"]
    assert why in said["error"]
    assert said["error"].isprintable()
    assert ask("/devices/d0", answer)[0] == 200


@pytest.mark.parametrize("context", [None, {"also_in_lanes": "x"}])
def test_answer_of_a_newer_version_with_more_in_it_is_understood(
    context: dict[str, str] | None,
) -> None:
    """What a session carries is no word of ours; an answer without a session is passed on whole."""
    more = {"since": {"version": [2]}} | ({"context": context} if context else {})
    status, body = ask("/devices/d1", http({**SESSION, **more}))
    found = json.loads(body)
    assert (status, found["session_id"], found.get("context")) == (200, "s1", context)
    assert "also_in_lanes" not in found
    status, body = ask("/devices/d1", http({**IDLE, "why": "new"}, 404))
    assert status == 404
    status, body = ask("/devices/d1", http({**IDLE, "active": None, "why": "new"}, 503))
    assert (status, json.loads(body)["why"]) == (503, "new")


def line(device: str) -> bytes:
    """Return a line of a listing."""
    return json.dumps({**SESSION, "device_id": device}).encode() + b"\n"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (http(b"<html></html>", headers=NAME + b"content-type: text/html\r\n"), "lists text/html"),
        (http(line("d1")), "it lists None"),
        (http(line("d1") + b'{"de', headers=NAME + LISTED), "its last line is cut off"),
        (http(line("d1") + b'{"de', headers=NAME + LISTED, length=999), "complete message body"),
        (b"HTTP/1.1 200 OK\r\n%b%b\r\n%b" % (NAME, LISTED, line("d1")), "it may be cut off"),
        (http(b"x" * (MOST_BYTES + 70_000), headers=NAME + LISTED), "is longer than"),
    ],
)
def test_listing_that_is_none_or_not_whole_ends_with_a_line_that_names_it(
    answer: bytes, why: str
) -> None:
    """Every line before that is whole."""
    with pytest.raises(IncompleteRead) as broken:
        ask("/sessions", answer)
    *lines, last = broken.value.partial.splitlines()
    assert [json.loads(one)["device_id"] for one in lines] in (["d0"], ["d0", "d1"])
    error = json.loads(last)["error"]
    assert error.startswith("sessions are missing: shard 1/2 does not answer")
    assert why in error


def test_listing_goes_on_after_a_shard_that_has_nothing_and_ends_at_its_limit() -> None:
    """One that lists more than it was asked for is of another version."""
    assert len(ask("/sessions", http(b"", headers=NAME + LISTED))[1].splitlines()) == 1
    assert ask("/sessions?limit=2", http(line("d1") * 3, headers=NAME + LISTED))[0] == 200
