"""The processes of a run, and which of them has which lane."""

import os
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from dataflows.messages import MAX_WORKERS, lane_key
from dataflows.settings import is_port
from dataflows.text import whole_number
from session_logic.errors import ConfigError

_MASK = (1 << 64) - 1


class Cluster(Struct, frozen=True):
    """Which process of how many this is; one alone has neither id nor addresses."""

    process_id: int | None = None
    addresses: tuple[str, ...] = ()
    workers: int = 1

    @property
    def number(self) -> int:
        """Return the number of this process, from 0."""
        return self.process_id or 0

    @property
    def has_main_thread(self) -> bool:
        """Whether Bytewax runs the dataflow in other threads, and the main one only waits."""
        return self.process_id is not None or self.workers > 1

    def owner(self, lane: int) -> int:
        """Return the number of the process that has a lane.

        Bytewax deals out keys by their hash over all workers, process by process.
        """
        workers = self.workers * max(1, len(self.addresses))
        return _hash(lane_key(lane)) % workers // self.workers

    def lanes_of(self, number: int, lanes: Iterable[int]) -> list[int]:
        """Return which of the lanes of a run a process has."""
        return [lane for lane in lanes if self.owner(lane) == number]


def cluster_of(process_id: int | None, addresses: str | None, workers: int) -> Cluster:
    """Return the cluster that options and BYTEWAX_* variables describe, as Bytewax reads them.

    In a StatefulSet the number is taken from the pod's name, the addresses from a host file.
    """
    pod, name = os.environ.get("BYTEWAX_POD_NAME"), os.environ.get("BYTEWAX_STATEFULSET_NAME")
    if process_id is None and pod and name:
        process_id = whole_number(pod.removeprefix(f"{name}-"))
        if process_id is None:
            msg = f"BYTEWAX_POD_NAME is {pod!r}: it must be {name}- and a number"
            raise ConfigError(msg)
    hostfile = os.environ.get("BYTEWAX_HOSTFILE_PATH")
    if process_id is not None and addresses is None and hostfile:
        addresses = ";".join(_lines(hostfile))
    hosts = tuple(host.strip() for host in (addresses or "").split(";") if host.strip())
    if process_id is None and hosts:
        msg = "--addresses (or BYTEWAX_ADDRESSES) is given without --process-id: give both"
        raise ConfigError(msg)
    wrong = [host for host in hosts if not is_port(host.rpartition(":")[2])]
    if wrong:
        msg = f"address {wrong[0]!r} is not host:port; correct --addresses or its variable"
        raise ConfigError(msg)
    if process_id is not None and not 0 <= process_id < len(hosts):
        msg = (
            f"process {process_id} has no address among {len(hosts)}: give --addresses (or "
            "BYTEWAX_ADDRESSES, or BYTEWAX_HOSTFILE_PATH) with one for every process"
        )
        raise ConfigError(msg)
    if (count := workers * max(1, len(hosts))) > MAX_WORKERS:
        msg = (
            f"{count} workers ({max(1, len(hosts))} processes of {workers}) are more than "
            f"{MAX_WORKERS}, the most that a run can have: give fewer --addresses or fewer "
            "--workers-per-process"
        )
        raise ConfigError(msg)
    return Cluster(process_id, hosts, workers)


def _lines(hostfile: str) -> list[str]:
    try:
        return Path(hostfile).read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        msg = (
            f"BYTEWAX_HOSTFILE_PATH: the file {hostfile} cannot be read: {error}; it must have a "
            "line host:port for every process"
        )
        raise ConfigError(msg) from None


def _hash(key: str) -> int:
    """Return what Rust's DefaultHasher makes of a string: SipHash-1-3 with keys of zero."""
    data = key.encode() + b"\xff"
    v = [0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573]
    whole = len(data) & ~7
    words = [int.from_bytes(data[at : at + 8], "little") for at in range(0, whole, 8)]
    for word in [*words, (len(data) & 0xFF) << 56 | int.from_bytes(data[whole:], "little")]:
        v[3] ^= word
        _round(v)
        v[0] ^= word
    v[2] ^= 0xFF
    for _ in range(3):
        _round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def _round(v: list[int]) -> None:
    def turned(x: int, bits: int) -> int:
        return (x << bits | x >> (64 - bits)) & _MASK

    a, b, c, d = v
    a = (a + b) & _MASK
    c = (c + d) & _MASK
    b, d, a = turned(b, 13) ^ a, turned(d, 16) ^ c, turned(a, 32)
    a = (a + d) & _MASK
    c = (c + b) & _MASK
    v[:] = [a, turned(b, 17) ^ c, turned(c, 32), turned(d, 21) ^ a]
