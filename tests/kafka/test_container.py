"""Heartwheel as the first process of a container, which gets no signal that it does not ask for."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.events import kinds
from tests.support.missing import NAMESPACES, missing, require

NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
# However slow the start is, each heartbeat is sent.
ALL = {"HEARTWHEEL_CATCH_UP": "all"}


@pytest.fixture
def namespace() -> list[str]:
    """Return the command that makes a process PID 1; where that is not allowed, CI fails."""
    require(NAMESPACES)
    if subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True).returncode:
        missing("no process can be made PID 1 here: that is not permitted")
    return NAMESPACE


def child_of(process: subprocess.Popen[str]) -> int:
    """Return the id of the only child, as seen from outside of its namespace."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 10
    while not (found := children.read_text().split()):
        assert time.monotonic() < deadline, "unshare has started nothing"
        time.sleep(0.05)
    return int(found[0])


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_pid_1_stops_cleanly(
    cluster: Cluster, namespace: list[str], sign: signal.Signals
) -> None:
    """The kernel drops a signal that PID 1 does not handle; a stop must come through."""
    flow = cluster.start(before=namespace, **ALL)
    first = child_of(flow)
    status = Path(f"/proc/{first}/status").read_text()
    assert next(line for line in status.splitlines() if line.startswith("NSpid:")).endswith("\t1")
    cluster.send("Start", "p1", "s")
    cluster.flush()
    cluster.wait("a heartbeat", lambda: "beat 1" in kinds(cluster.sessions().get("s", [])))
    os.kill(first, sign)
    assert flow.wait(20) == 0, cluster.errors(flow)
    before = kinds(cluster.sessions()["s"])
    again = cluster.start(**ALL)
    cluster.send("End", "p1", "s")
    cluster.flush()
    cluster.wait("the end", lambda: "end ended" in kinds(cluster.sessions()["s"]))
    after = kinds(cluster.sessions()["s"])
    assert after[: len(before)] == before
    assert len(after) == len(set(after))
    assert again.poll() is None


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_pid_1_while_it_starts_stops_it(
    cluster: Cluster, namespace: list[str], sign: signal.Signals
) -> None:
    """A stop that comes before the flow runs is not lost."""
    flow = cluster.start(before=namespace)
    first = child_of(flow)
    deadline = time.monotonic() + 10
    while not _waits_for(first, sign):
        assert time.monotonic() < deadline, "the signal is never waited for"
        time.sleep(0.01)
    os.kill(first, sign)
    assert flow.wait(20) == 0, cluster.errors(flow)


def _waits_for(pid: int, sign: signal.Signals) -> bool:
    if Path(f"/proc/{pid}/comm").read_text() == "unshare\n":
        return False  # still unshare, which blocks signals, too, while it makes its child
    status = Path(f"/proc/{pid}/status").read_text()
    blocked = next(line for line in status.splitlines() if line.startswith("SigBlk:"))
    return bool(int(blocked.split()[1], 16) & 1 << (sign - 1))
