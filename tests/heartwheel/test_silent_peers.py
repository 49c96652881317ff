"""Connections to other processes get an end; nobody else's do."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from heartwheel.cluster import Cluster
from heartwheel.silent_peers import SILENCE_S, end_when_silent

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this kernel has no such option"
)


def connect(stack: ExitStack, host: str = "127.0.0.1") -> tuple[str, socket.socket, socket.socket]:
    """Return an address, and both ends of a connection to it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = stack.enter_context(socket.create_server((host, 0), family=family))
    port = listener.getsockname()[1]
    near = stack.enter_context(socket.create_connection((host, port)))
    far = stack.enter_context(listener.accept()[0])
    return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}"), near, far


def limit_ms(connection: socket.socket) -> int:
    """Return for how long what is sent may stay without an answer; 0 for as long as TCP likes."""
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


def open_files() -> int:
    """Return how many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Close what a test has opened."""
    with ExitStack() as opened:
        yield opened


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize(("own", "limited"), [(True, [True, True]), (False, [True, False])])
def test_connections_between_processes_end_when_the_other_is_silent(
    stack: ExitStack, host: str, *, own: bool, limited: list[bool]
) -> None:
    """Those to others, and those that come to the own port; no other of the process."""
    address, *ends = connect(stack, host)
    _, *others = connect(stack, host)
    addresses = (address, "127.0.0.1:1") if own else ("127.0.0.1:1", address)
    assert end_when_silent(Cluster(0, addresses)) == sum(limited)
    for end, is_limited in zip([*ends, *others], [*limited, False, False], strict=True):
        assert limit_ms(end) == (SILENCE_S * 1000 if is_limited else 0)
        assert bool(end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is is_limited
    assert ends[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) < SILENCE_S


def test_other_files_of_the_process_are_left_alone(stack: ExitStack) -> None:
    """Files, pipes, listeners and sockets of other kinds; and none stays open here."""
    address, *_ = connect(stack)
    for end in socket.socketpair():
        stack.enter_context(end)
    stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    before = open_files()
    assert end_when_silent(Cluster(0, (address, "127.0.0.1:1"))) == 2
    assert open_files() == before
