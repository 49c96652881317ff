"""Ends the connections to a process that has gone without a word.

A process that is killed closes its connections, and the others end. A machine that loses power, or
its network, closes nothing. Then TCP would send again for a quarter of an hour, or wait for ever
where nothing is sent, and the lanes would stand still all that time.

What is guaranteed: a connection between processes of a cluster ends SILENCE_S after the last sign
of the other side. Bytewax then ends this process as if the other one had been killed. Where nothing
is sent, the kernel asks the other side after IDLE_S (keepalive). Where something is, it must be
acknowledged (TCP_USER_TIMEOUT). The other side's kernel answers, so a process that is busy, or
paused, is no silent one, but for one that is paused and takes nothing for SILENCE_S.

How. Bytewax's sockets are made in Rust, without these options. So they are looked for among the
files of this process, and set there: they are those of the connection, whoever made it.

What would break it: a connection that is made after all were (Bytewax makes no second one); a
kernel without these options, such as that of macOS: there nothing is set.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any

from heartwheel.cluster import Cluster
from heartwheel.peers import Address, resolved

IDLE_S, ASK_EVERY_S, ASKED = 10, 5, 3
SILENCE_S = IDLE_S + ASK_EVERY_S * ASKED


def end_when_silent(cluster: Cluster) -> int:
    """Let the connections to other processes end when these are silent; return how many."""
    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        return 0
    own_port = int(cluster.addresses[cluster.number].rpartition(":")[2])
    others = {place for address in cluster.addresses for place in resolved(address)}
    count = 0
    for connection in _connections():
        with connection, suppress(OSError):  # it may have ended meanwhile
            near, far = connection.getsockname(), connection.getpeername()
            if near[1] == own_port or _plain(far) in others:
                _set_options(connection)
                count += 1
    return count


def _set_options(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, IDLE_S),
        (socket.TCP_KEEPINTVL, ASK_EVERY_S),
        (socket.TCP_KEEPCNT, ASKED),
        (socket.TCP_USER_TIMEOUT, SILENCE_S * 1000),
    ):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _connections() -> Iterator[socket.socket]:
    """Yield a copy of each TCP socket of this process, to be closed by the caller."""
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if not str(entry.readlink()).startswith("socket:"):
                continue
            copy = os.dup(int(entry.name))
        except OSError:  # it was closed meanwhile
            continue
        try:
            found = socket.socket(fileno=copy)
        except OSError:  # another file has its number by now
            os.close(copy)
            continue
        if found.family in (socket.AF_INET, socket.AF_INET6) and found.type == socket.SOCK_STREAM:
            yield found
        else:
            found.close()


def _plain(name: tuple[Any, ...]) -> Address:
    """Return the address of a socket as `resolved` has it."""
    address = ip_address(name[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address, name[1]
