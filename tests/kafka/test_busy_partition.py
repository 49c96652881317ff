"""Input that never pauses, timestamped long before it comes, beside a session on another topic."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from session_logic.codec import decode_output
from session_logic.events import Heartbeat
from tests.support.cluster import Cluster
from tests.support.command import command

EVERY_S = 0.05
# Far less than the timestamps are behind, and far more than a heartbeat takes.
LATE_MS = 2_000


@contextmanager
def busy_partition(cluster: Cluster, behind_ms: int) -> Iterator[None]:
    """Append a record to one partition every 50 ms meanwhile, timestamped so long before."""
    over = threading.Event()

    def append() -> None:
        while not over.wait(EVERY_S):
            cluster.send("End", "p-busy", "none", time.time_ns() // 1_000_000 - behind_ms)

    thread = threading.Thread(target=append)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def heartbeats(cluster: Cluster) -> list[tuple[int, int]]:
    """Return of each heartbeat its sequence and by how many ms it was sent late."""
    records = [(r.time_ms, decode_output(r.value or b"")) for r in cluster.read(cluster.output)]
    return [
        (event.sequence, time_ms - event.time_ms)
        for time_ms, event in records
        if isinstance(event, Heartbeat)
    ]


def stored_end(cluster: Cluster) -> int:
    """Return up to where the store of a run that is over knows the output."""
    folder = cluster.variables["HEARTWHEEL_RECOVERY_DIR"]
    done = command("store", "inspect", "--json", HEARTWHEEL_RECOVERY_DIR=folder)
    assert done.returncode == 0, done
    sinks = json.loads(done.stdout)["sink"]
    return max(max(sink["end_offsets"].values()) for sink in sinks.values())


@pytest.mark.parametrize("behind_ms", [3_000, pytest.param(60_000, marks=pytest.mark.slow)])
def test_heartbeats_are_on_time_beside_a_partition_that_never_pauses(
    cluster: Cluster, behind_ms: int
) -> None:
    """Before and after a kill -9, and then the stored end of the output moves on."""
    with busy_partition(cluster, behind_ms):
        flow = cluster.start()
        cluster.send("Start", "c1", "one")
        cluster.wait("heartbeats", lambda: len(heartbeats(cluster)) >= 4)
        flow.kill()
        flow.wait()
        before = len(heartbeats(cluster))
        assert all(late_ms < LATE_MS for _, late_ms in heartbeats(cluster))
        flow = cluster.start()
        cluster.wait("more heartbeats", lambda: len(heartbeats(cluster)) >= before + 6)
        flow.kill()
        flow.wait()
    # The first one after the kill may stand for those that were due while nothing ran.
    assert all(late_ms < LATE_MS for _, late_ms in heartbeats(cluster)[before + 1 :])
    assert stored_end(cluster) > before + 2
