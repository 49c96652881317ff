"""Which other processes are awaited, as the sockets of this process tell."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from threading import Event, Thread

import pytest

from dataflows import logs
from dataflows.run_state import RunState
from heartwheel.cluster import Cluster
from heartwheel.peers import awaited, connections, wait_for_own_name, watch_peers
from session_logic.errors import ConfigError
from tests.support.errors import one_line
from tests.support.waiting import wait_for


class Listener:
    """A process as its peers see it: it listens, and accepts what comes."""

    def __init__(self, stack: ExitStack, host: str) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._stack, self._host = stack, host
        self._socket = stack.enter_context(socket.create_server((host, 0), family=family))
        self.port = self._socket.getsockname()[1]
        self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def connect(self) -> None:
        self._stack.enter_context(socket.create_connection((self._host, self.port)))
        self._stack.enter_context(self._socket.accept()[0])


@pytest.fixture(params=["127.0.0.1", "::1"])
def listeners(request: pytest.FixtureRequest) -> Iterator[list[Listener]]:
    """Return three processes, by both kinds of address."""
    with ExitStack() as stack:
        yield [Listener(stack, request.param) for _ in range(3)]


def missing(listeners: list[Listener], number: int) -> str:
    """Return what the process with this number waits for."""
    cluster = Cluster(number, tuple(listener.address for listener in listeners))
    return awaited(cluster, list(connections()))


def test_first_process_waits_until_every_other_has_connected(listeners: list[Listener]) -> None:
    """Who has come is not known on one machine; how many are missing is."""
    both = f"processes 1 ({listeners[1].address}), 2 ({listeners[2].address})"
    assert missing(listeners, 0) == both
    listeners[0].connect()
    assert missing(listeners, 0) == f"1 of {both}"
    listeners[0].connect()
    assert missing(listeners, 0) == ""


def test_last_process_waits_for_one_after_the_other(listeners: list[Listener]) -> None:
    """It connects to them in order, so of those after the first missing one nothing is known."""
    assert missing(listeners, 2) == f"process 0 ({listeners[0].address})"
    listeners[0].connect()
    assert missing(listeners, 2) == f"process 1 ({listeners[1].address})"
    listeners[1].connect()
    assert missing(listeners, 2) == ""


def test_name_that_nobody_knows_yet_is_awaited() -> None:
    """A pod that has not started has no address."""
    cluster = Cluster(1, ("wheel-0.wheel.invalid:9999", "127.0.0.1:1"))
    assert awaited(cluster, []) == "process 0 (wheel-0.wheel.invalid:9999)"


def test_watch_tells_the_run_until_all_are_connected(listeners: list[Listener]) -> None:
    """The probes read it there; then the watch is over."""
    run = RunState()
    cluster = Cluster(0, tuple(listener.address for listener in listeners[:2]))
    thread = Thread(target=watch_peers, args=(cluster, run))
    thread.start()
    wait_for(lambda: run.awaited_processes == f"process 1 ({listeners[1].address})")
    listeners[0].connect()
    thread.join(10)
    assert not thread.is_alive()
    assert run.awaited_processes == ""


def test_name_of_the_process_that_nobody_knows_is_one_line() -> None:
    """Bytewax would say so only once it has found all others, and then in a panic."""
    with pytest.raises(ConfigError) as error:
        wait_for_own_name(Cluster(0, ("wheel-0.wheel.invalid:9999",)), 0.3, Event())
    one_line(error, "wheel-0.wheel.invalid", "not known", "DNS")


def test_name_of_the_process_that_is_awaited_is_announced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A pod that waits for DNS must not seem dead."""
    caplog.set_level("INFO")
    monkeypatch.setattr(logs, "FIRST_WAIT_S", 0.01)
    stop = Event()
    waits = Thread(
        target=wait_for_own_name, args=(Cluster(0, ("wheel-0.wheel.invalid:9999",)), 60, stop)
    )
    waits.start()
    wait_for(lambda: "waiting until DNS knows wheel-0.wheel.invalid" in caplog.text)
    stop.set()
    waits.join(10)
    assert not waits.is_alive()


@pytest.mark.parametrize("address", ["localhost:1", "127.0.0.1:1", "[::1]:1"])
def test_name_of_the_process_that_is_known_lets_it_go_on(address: str) -> None:
    """A name, or an address of either kind."""
    wait_for_own_name(Cluster(0, (address,)), 0, Event())
