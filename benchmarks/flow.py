"""The flow as one process, as a cluster of them, or as shards; they start and stop together."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from heartwheel.cluster import Cluster as Members
from session_logic.events import OutputEvent
from session_logic.keys import key_group_of, lane_of
from tests.support.cluster import Cluster
from tests.support.ports import free_port
from tests.support.topic import outputs

STOP_S = CONNECT_S = 60
RUNNING = "] running "  # in the log, of a process that has something to do


class Flow:
    """The processes of a run; after a kill or a stop it can be started again."""

    def __init__(
        self, cluster: Cluster, processes: int, changes: dict[str, str], *, http: bool = False
    ) -> None:
        """Let `start` start so many processes, with settings that differ from the cluster's."""
        self.cluster = cluster
        self._changes = changes
        self._members = Members()
        if processes > 1:
            addresses = tuple(f"127.0.0.1:{free_port()}" for _ in range(processes))
            self._members = Members(0, addresses)
        self._http_ports = [free_port() for _ in range(processes)] if http else []
        self._processes: list[subprocess.Popen[str]] = []

    def start(self) -> None:
        """Start them all."""
        self._processes = [self._start(n) for n in range(max(1, len(self._members.addresses)))]

    def wait_until_connected(self) -> None:
        """Wait until the processes of a cluster are connected: none of them runs before that."""
        if self._members.addresses:
            self.cluster.wait("a cluster that runs", lambda: RUNNING in self.errors(), CONNECT_S)

    def _start(self, number: int) -> subprocess.Popen[str]:
        changes = dict(self._changes)
        if self._http_ports:
            changes["HEARTWHEEL_HTTP_PORT"] = str(self._http_ports[number])
        member = ("-i", str(number), "-a", ";".join(self._members.addresses))
        return self.cluster.start("run", *(member if self._members.addresses else ()), **changes)

    def records(self) -> Iterator[tuple[int, OutputEvent]]:
        """Yield every record of the output with the moment from which it may be read, in ms."""
        return outputs(self.cluster.address, self.cluster.output)

    @property
    def pids(self) -> list[int]:
        """Return the ids of the processes."""
        return [process.pid for process in self._processes]

    def http_port(self, device: str, lanes: int) -> int:
        """Return the port of the process that has a device."""
        return self._http_ports[self._members.owner(lane_of(key_group_of(device), lanes))]

    def errors(self) -> str:
        """Return what the processes have written to standard error."""
        return "".join(self.cluster.errors(process) for process in self._processes)

    def stop(self) -> list[int]:
        """Stop them all; return their exit codes."""
        assert all(process.poll() is None for process in self._processes), "the flow has ended"
        for process in self._processes:
            process.terminate()
        return [process.wait(STOP_S) for process in self._processes]

    def kill(self) -> None:
        """Kill one process with SIGKILL; the others of a cluster end by themselves."""
        self._processes[-1].kill()
        for process in self._processes:
            process.wait(STOP_S)


class Shards(Flow):
    """The shards of a run, each a process that knows nothing of the others."""

    def __init__(
        self, cluster: Cluster, processes: int, changes: dict[str, str], *, http: bool = False
    ) -> None:
        """Let `start` start so many shards."""
        assert not http
        super().__init__(cluster, 1, changes)
        self._shards = processes

    @property
    def shards(self) -> int:
        """How many there are."""
        return self._shards

    def start(self) -> None:
        """Start them all."""
        self._processes = [self._start(number) for number in range(self._shards)]

    def wait_until_connected(self) -> None:
        """Wait until each has its lease and runs."""
        for process in self._processes:
            self.cluster.wait(
                "a shard that runs",
                lambda process=process: RUNNING in self.cluster.errors(process),
                CONNECT_S,
            )

    def restart_one(self) -> int:
        """Kill the last one with SIGKILL and start it again; return the moment in ms."""
        killed_ms = time.time_ns() // 1_000_000
        self._processes[-1].kill()
        self._processes[-1].wait(STOP_S)
        self._processes[-1] = self._start(self._shards - 1)
        return killed_ms

    def _start(self, number: int) -> subprocess.Popen[str]:
        store = Path(self.cluster.variables["HEARTWHEEL_RECOVERY_DIR"]) / f"shard-{number}"
        return self.cluster.start(
            "run",
            **self._changes,
            HEARTWHEEL_ROUTE="partition",
            HEARTWHEEL_SHARD=f"{number}/{self._shards}",
            HEARTWHEEL_RECOVERY_DIR=str(store),
        )
