"""The TCP connections of this process, and what the kernel does with what they have not sent.

After a connection is closed, or its process has ended, the kernel goes on sending what it had
accepted, for minutes, and a network that comes back delivers it. librdkafka has no option against
that, and it closes a connection by itself when a request has had no answer for too long. So its
sockets are looked for among the files of this process, and set to be reset when they are closed:
then the kernel forgets.
"""

import resource
import socket
import struct
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path

OPEN_FILES = Path("/proc/self/fd")
# On, for no time at all: a close is a reset.
AT_ONCE = struct.pack("ii", 1, 0)
# librdkafka leaves a connection that is cut after 10 s.
LOOK_S = 1.0


class BrokerConnections:
    """The connections of this process to Kafka, none of which sends anything once it is closed.

    A connection is known by the port at its far end. One that was opened less than LOOK_S ago, or
    to a port that is none of these, may still be one of those that do.
    """

    def __init__(self, ports: Callable[[], Collection[int]]) -> None:
        """Ask for the ports of the brokers at each look."""
        self._ports = ports
        self._looked_s = float("-inf")

    def look(self) -> None:
        """Take in those that are open now; does nothing within LOOK_S of the last look."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            discard_unsent(self._ports())


def discard_unsent(ports: Collection[int] | None = None) -> None:
    """Let each connection that is open now forget what it has not sent once it is closed.

    With ports, those whose far end has one of them. Where the kernel does not list open files, as
    outside of Linux, nothing is changed.
    """
    for number in _open_files(all_there_may_be=ports is None):
        try:
            connection = socket.socket(fileno=number)
        except OSError:  # closed meanwhile, or no socket
            continue
        try:
            if connection.type == socket.SOCK_STREAM and connection.family != socket.AF_UNIX:
                with suppress(OSError):  # closed meanwhile, or not connected
                    if ports is None or connection.getpeername()[1] in ports:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        finally:
            connection.detach()


def _open_files(*, all_there_may_be: bool) -> Iterable[int]:
    """Return the numbers of the open files.

    If there are so many that no more can be opened, return all there may be, or none.
    """
    if not OPEN_FILES.exists():
        return ()
    try:
        return [int(file.name) for file in OPEN_FILES.iterdir()]
    except OSError:
        return range(resource.getrlimit(resource.RLIMIT_NOFILE)[0] if all_there_may_be else 0)
