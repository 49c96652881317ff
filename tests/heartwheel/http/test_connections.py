"""Connections that say nothing or read nothing: how many there may be, and for how long."""

import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from threading import Event, Thread

import pytest

from heartwheel.http import connections
from heartwheel.http.connections import MAX_CONNECTIONS, BoundedConnection
from heartwheel.http.quiet_log import LINE_S, Quiet
from tests.support.serving import Client
from tests.support.waiting import wait_for

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """Close what a test has opened."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server wait for a moment only."""
    monkeypatch.setattr(BoundedConnection, "patience_s", 0.2)


def connect(client: Client, opened: ExitStack) -> socket.socket:
    """Open a connection that says nothing yet."""
    address = "127.0.0.1", client.settings.http_port
    return opened.enter_context(socket.create_connection(address, timeout=10))


def count(client: Client) -> int:
    """Return how many connections the server has."""
    return len(client.server.server_state.connections)


def asked(connection: socket.socket) -> bool:
    """Ask on a connection; say whether there is an answer."""
    connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = b""
    while not answer.endswith(b"ok\n"):
        part = connection.recv(10_000)
        if not part:
            return False
        answer += part
    return True


def test_silent_connections_beyond_the_limit_leave_the_probes_alone(
    client: Client, opened: ExitStack
) -> None:
    """The oldest of them makes room; there are never more than the limit."""
    before = connections.HTTP_CROWDED_OUT._value.get()
    first = connect(client, opened)
    for _ in range(MAX_CONNECTIONS):
        connect(client, opened)
    assert [client.get(path).status for path in ("/livez", "/readyz")] == [200, 200]
    assert first.recv(1) == b""
    assert count(client) <= MAX_CONNECTIONS
    assert connections.HTTP_CROWDED_OUT._value.get() > before


def test_connection_in_use_outlives_silent_ones_that_came_later(
    client: Client, opened: ExitStack
) -> None:
    """A scrape that keeps its connection finds it again."""
    kept = connect(client, opened)
    for _ in range(MAX_CONNECTIONS - 1):
        connect(client, opened)
    assert asked(kept)
    wait_for(lambda: count(client) == MAX_CONNECTIONS)
    for _ in range(10):
        connect(client, opened)
    assert client.get("/livez").status == 200
    assert asked(kept)


def test_probes_are_answered_while_connections_come_without_end(
    client: Client, opened: ExitStack
) -> None:
    """Whoever asks is served before it could be the oldest."""
    over = Event()
    opened.callback(over.set)

    def flood() -> None:
        with ExitStack() as held:
            while not over.is_set():
                connect(client, held)
                if len(held._exit_callbacks) > MAX_CONNECTIONS:
                    held.pop_all().close()

    flooding = Thread(target=flood)
    flooding.start()
    opened.callback(flooding.join)
    opened.callback(over.set)
    assert {client.get("/livez").status for _ in range(100)} == {200}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET /livez HT",
        REQUEST,
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n",
    ],
    ids=["nothing", "half a request", "a request, then nothing", "half a body"],
)
def test_silent_connection_is_closed(client: Client, opened: ExitStack, said: bytes) -> None:
    """Before, in and after a request."""
    silent = connect(client, opened)
    silent.sendall(said)
    while silent.recv(1_000_000):
        pass
    wait_for(lambda: count(client) == 0)


@pytest.mark.usefixtures("impatient")
def test_byte_now_and_then_does_not_keep_a_connection(client: Client, opened: ExitStack) -> None:
    """Its time is that of the whole request."""
    slow = connect(client, opened)
    slow.settimeout(0.02)
    slow.sendall(b"GET / HTTP/1.1\r\nx: ")
    for _ in range(500):
        try:
            slow.sendall(b"x")
            if slow.recv(1) == b"":
                break
        except TimeoutError:
            continue
        except OSError:  # cut while a byte was on its way
            break
    else:
        pytest.fail("it is still open")


@pytest.mark.usefixtures("impatient")
def test_connection_that_reads_nothing_is_cut(client: Client, opened: ExitStack) -> None:
    """What is left to send to it is dropped."""
    deaf = connect(client, opened)
    deaf.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            deaf.sendall(100 * REQUEST)
    wait_for(lambda: count(client) == 0)


def test_request_for_a_websocket_is_answered_and_not_logged(
    client: Client, opened: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever asks could fill the log otherwise, with advice to install what is of no use here."""
    connection = connect(client, opened)
    connection.sendall(
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    assert connection.recv(10_000).startswith(b"HTTP/1.1 200")
    assert not caplog.records


CHUNKED = b"GET /%s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


def rest(connection: socket.socket) -> bytes:
    """Return what comes until the connection ends."""
    return b"".join(iter(lambda: connection.recv(65_536), b""))


@pytest.mark.parametrize(
    "said", [b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\r\n\r\n", CHUNKED % b"livez" + b"zz\r\n"]
)
def test_what_is_no_http_is_refused_without_a_traceback(
    client: Client, opened: ExitStack, caplog: pytest.LogCaptureFixture, said: bytes
) -> None:
    """Also where the request before it is being answered."""
    connection = connect(client, opened)
    connection.sendall(said)
    assert rest(connection).startswith(b"HTTP/1.1 400 ")
    assert client.get("/livez").status == 200
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("path", [b"livez", b"sessions"])
def test_body_that_goes_wrong_after_the_answer_ends_the_connection(
    client: Client, opened: ExitStack, caplog: pytest.LogCaptureFixture, path: bytes
) -> None:
    """There is no second answer, and no traceback in the log."""
    connection = connect(client, opened)
    connection.sendall(CHUNKED % path)
    assert connection.recv(1) == b"H"
    connection.sendall(b"zz\r\n")
    assert b" 400 " not in rest(connection)
    wait_for(lambda: count(client) == 0)
    assert not any(record.exc_info for record in caplog.records)


def test_log_says_the_same_words_once_in_a_while_with_how_often(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever can connect could fill the disk otherwise."""
    log = logging.getLogger("the server of a test")
    log.addFilter(Quiet())

    def say(created_s: float, text: str) -> None:
        record = log.makeRecord(log.name, logging.WARNING, "", 0, text, (), None)
        record.created = created_s
        log.handle(record)

    for created_s in range(20):
        say(created_s, "no HTTP")
    say(20, "other words")
    say(LINE_S, "no HTTP")
    say(1, "no HTTP")  # the clock was set back
    assert caplog.messages == [
        "no HTTP",
        "other words",
        "no HTTP (19 times more since it was last said here)",
        "no HTTP",
    ]


def test_many_requests_that_are_no_http_are_one_line(
    client: Client, opened: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    """Or none, if there was one a moment ago."""
    for _ in range(20):
        connection = connect(client, opened)
        connection.sendall(b"hello\r\n\r\n")
        rest(connection)
    assert len(caplog.records) <= 2
