"""The TCP connections of this process, and what the kernel does with what they have not sent.

After a process has ended, the kernel goes on sending what it had accepted, for minutes, and a
network that comes back delivers it. librdkafka has no option against that.
"""

import os
import socket
import struct
from pathlib import Path

OPEN_FILES = Path("/proc/self/fd")
# On, for no time at all: a close is a reset.
AT_ONCE = struct.pack("ii", 1, 0)


def discard_unsent() -> None:
    """Let each connection that is open now forget what it has not sent once it is closed.

    Where the kernel does not list open files, as outside of Linux, nothing is changed.
    """
    if not OPEN_FILES.exists():
        return
    for file in OPEN_FILES.iterdir():
        try:
            with socket.socket(fileno=os.dup(int(file.name))) as same:
                if same.type == socket.SOCK_STREAM and same.family != socket.AF_UNIX:
                    same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        except OSError:  # closed meanwhile, or no socket
            continue
