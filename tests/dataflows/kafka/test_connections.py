"""What becomes of what a process has sent when it ends."""

import os
import resource
import socket

import pytest

from dataflows.kafka.connections import AT_ONCE, discard_unsent


def test_connection_that_must_forget_is_reset_when_it_is_closed() -> None:
    """Else the kernel would deliver what it has, in its own time; the other end sees the reset."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
        with far:
            near.sendall(b"on its way")
            discard_unsent()
            near.sendall(b", and more")  # it is still open
            near.close()
            with pytest.raises(ConnectionResetError):
                while far.recv(1 << 16):
                    pass


def test_connection_forgets_also_where_no_more_files_can_be_opened() -> None:
    """The open files cannot be listed then."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
        try:
            discard_unsent()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        linger = near.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, len(AT_ONCE))
        near.close()
    assert linger == AT_ONCE


def test_files_and_local_sockets_are_left_alone() -> None:
    """They send nothing to a broker."""
    near, far = socket.socketpair()
    with near, far:
        discard_unsent()
        near.sendall(b"as before")
        near.close()
        assert far.recv(16) == b"as before"
