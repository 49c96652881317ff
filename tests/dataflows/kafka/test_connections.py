"""What becomes of what a process has sent when it ends."""

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dataflows.kafka import connections
from dataflows.kafka.connections import AT_ONCE, BrokerConnections, discard_unsent

AS_EVER = bytes(len(AT_ONCE))


@contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket, int]]:
    """Yield the ends of a connection, the one that was accepted last, and the port of that."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with socket.create_connection(address) as near:
            far, _ = listener.accept()
            with far:
                yield near, far, address[1]


def linger(connection: socket.socket) -> bytes:
    """Return what a close does."""
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, len(AT_ONCE))


def test_connection_that_must_forget_is_reset_when_it_is_closed() -> None:
    """Else the kernel would deliver what it has, in its own time; the other end sees the reset."""
    with connected() as (near, far, _):
        near.sendall(b"on its way")
        discard_unsent()
        near.sendall(b", and more")  # it is still open
        near.close()
        with pytest.raises(ConnectionResetError):
            while far.recv(1 << 16):
                pass


def test_connections_to_brokers_forget_and_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that reads an answer slowly gets all of it, though this process has closed it."""
    with connected() as (to_broker, from_client, port), connected() as (to_peer, *_):
        kafka = BrokerConnections(lambda: {port})
        kafka.look()
        assert linger(to_broker) == AT_ONCE
        assert linger(from_client) == linger(to_peer) == AS_EVER
        with socket.create_connection(("127.0.0.1", port)) as later:
            kafka.look()
            assert linger(later) == AS_EVER
            monkeypatch.setattr(connections, "LOOK_S", 0)
            kafka.look()
            assert linger(later) == AT_ONCE


def test_connection_forgets_also_where_no_more_files_can_be_opened() -> None:
    """The open files cannot be listed then."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with connected() as (near, _, port):
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
        try:
            discard_unsent({port})  # which is looked for again and again
            assert linger(near) == AS_EVER
            discard_unsent()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert linger(near) == AT_ONCE


def test_files_and_local_sockets_are_left_alone() -> None:
    """They send nothing to a broker, and neither does what listens or is not connected."""
    near, far = socket.socketpair()
    with near, far, socket.create_server(("127.0.0.1", 0)) as listener:
        discard_unsent({listener.getsockname()[1]})
        assert linger(listener) == AS_EVER
        discard_unsent()
        near.sendall(b"as before")
        near.close()
        assert far.recv(16) == b"as before"
