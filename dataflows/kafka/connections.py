"""The TCP connections of this process, and what the kernel does with what they have not sent.

After a process has ended, the kernel goes on sending what it had accepted, for minutes, and a
network that comes back delivers it. librdkafka has no option against that.
"""

import resource
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

OPEN_FILES = Path("/proc/self/fd")
# On, for no time at all: a close is a reset.
AT_ONCE = struct.pack("ii", 1, 0)


def discard_unsent() -> None:
    """Let each connection that is open now forget what it has not sent once it is closed.

    Where the kernel does not list open files, as outside of Linux, nothing is changed.
    """
    for number in _open_files():
        try:
            connection = socket.socket(fileno=number)
        except OSError:  # closed meanwhile, or no socket
            continue
        try:
            if connection.type == socket.SOCK_STREAM and connection.family != socket.AF_UNIX:
                with suppress(OSError):  # closed meanwhile
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        finally:
            connection.detach()


def _open_files() -> Iterable[int]:
    """Return the numbers of the open files; all there may be, if there are so many already."""
    if not OPEN_FILES.exists():
        return ()
    try:
        return [int(file.name) for file in OPEN_FILES.iterdir()]
    except OSError:
        return range(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
