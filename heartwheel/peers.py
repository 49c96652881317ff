"""The other processes of a cluster: which of them this one still waits for.

Bytewax connects each process to those with lower numbers, one after the other, and accepts a
connection from each with a higher number. It says nothing while it waits, and it has no hook. A
connection of our own to a peer would be taken for one of Bytewax's. So this module only looks: the
kernel lists the sockets of this process, and a connection that is established is one to a lower
peer if its far end is that peer's address, or one from a higher peer if its near end is our own
port. Which of the higher peers a connection is from cannot be told on one machine.
"""

import socket
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from threading import Event

from dataflows.logs import announced, log
from dataflows.run_state import RunState
from heartwheel.cluster import Cluster
from session_logic.errors import ConfigError

WATCH_S = 0.2
# A cluster that starts together needs a moment; what takes longer is logged.
SAY_AFTER_S = 2.0
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_ESTABLISHED = "01"

Address = tuple[IPv4Address | IPv6Address, int]  # with the port
Connection = tuple[Address, Address]  # this end, that end


def watch_peers(
    cluster: Cluster, run: RunState, on_look: Callable[[], object] = lambda: None
) -> None:
    """Tell the log and the probes which processes are awaited, until all are connected.

    on_look is called each time. Where the kernel lists no sockets, as outside
    of Linux, nothing is told.
    """
    if not _TABLES[0].exists():
        return
    began_s, said = time.monotonic(), ""
    while not run.stop.is_set():
        run.awaited_processes = awaited(cluster, list(connections()))
        on_look()
        if not run.awaited_processes:
            if said:
                log.info("all processes are connected")
            return
        if run.awaited_processes != said and time.monotonic() - began_s >= SAY_AFTER_S:
            said = run.awaited_processes
            log.warning(f"waiting for {said}")
        run.stop.wait(WATCH_S)


def awaited(cluster: Cluster, found: list[Connection]) -> str:
    """Return the processes that are not connected yet, by number and address; "" if all are."""
    number, addresses = cluster.number, cluster.addresses
    far_ends = {far for _, far in found}
    for lower in range(number):
        if not far_ends & set(resolved(addresses[lower])):
            return _named(cluster, [lower])  # those after it have not been tried yet
    port = int(addresses[number].rpartition(":")[2])
    connected = sum(near[1] == port for near, _ in found)
    higher = list(range(number + 1, len(addresses)))
    missing = len(higher) - connected
    if missing <= 0:
        return ""
    return f"{missing} of " * (connected > 0) + _named(cluster, higher)


def _named(cluster: Cluster, numbers: list[int]) -> str:
    names = ", ".join(f"{number} ({cluster.addresses[number]})" for number in numbers)
    return f"process{'es' * (len(numbers) > 1)} {names}"


def resolved(address: str) -> Iterator[Address]:
    """Yield what the name of a process stands for; nothing if it is not known (yet)."""
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError:
        return
    for *_, where in found:
        yield ip_address(where[0]), int(port)


def connections() -> Iterator[Connection]:
    """Yield the established TCP connections of this process."""
    own = set(_own_sockets())
    for table in _TABLES:
        lines = table.read_text().splitlines()[1:] if table.exists() else []
        for fields in map(str.split, lines):
            if fields[3] == _ESTABLISHED and fields[9] in own:
                yield _address(fields[1]), _address(fields[2])


def _own_sockets() -> Iterator[str]:
    """Yield the inode of each socket that this process has open."""
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:  # closed meanwhile
            continue
        if target.startswith("socket:["):
            yield target[8:-1]


def _address(text: str) -> Address:
    """Return an address as the kernel writes it: words of four bytes, in the machine's order."""
    host, _, port = text.partition(":")
    words = [bytes.fromhex(host[at : at + 8])[::-1] for at in range(0, len(host), 8)]
    address = ip_address(b"".join(words))
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address, int(port, 16)


def wait_for_own_name(cluster: Cluster, timeout_s: float, stop: Event) -> None:
    """Return once the name of this process has an address; says so while it waits.

    Raises ConfigError after timeout_s.

    A pod starts before others can find it by its name, and Bytewax tries its own name only once.
    """
    host = cluster.addresses[cluster.number].rpartition(":")[0].strip("[]")
    deadline_s = time.monotonic() + timeout_s
    with announced(f"waiting until DNS knows {host}, the name of this process"):
        while not stop.is_set():
            try:
                socket.getaddrinfo(host, None)
            except OSError as error:
                if time.monotonic() > deadline_s:
                    msg = (
                        f"{host}, the name of this process among the addresses of the cluster, is "
                        f"not known ({error}); correct it, or wait until DNS has it"
                    )
                    raise ConfigError(msg) from None
                stop.wait(0.2)
            else:
                return
