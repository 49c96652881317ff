"""How fast a backlog is read: a topic full of session starts, and the flow started after them."""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.load import Plan
from benchmarks.stage import LoadProcess, stage, wait_for_records
from benchmarks.usage import cpu_s
from tests.support.cluster import Cluster

SENT_PER_S = 60_000
LIMIT_S = 300


def send(cluster: Cluster, events: int, folder: Path) -> None:
    """Send the backlog."""
    topics = [cluster.console, cluster.pc]
    seconds = events / SENT_PER_S
    load = LoadProcess(
        Plan(cluster.address, topics, events, seconds, rate=1, steady_s=1, seed=1), folder
    )
    load.result()
    load.end()


def catch_up(events: int, lanes: int, folder: Path) -> dict[str, float]:
    """Return how long the flow took from its first record out to its last, and its cores."""
    with stage(folder, lanes) as (_, cluster):
        send(cluster, events, folder)
        flow = cluster.start()
        wait_for_records(cluster, 1, 0.01, LIMIT_S)
        begin_s, begin_cpu_s, first = time.monotonic(), cpu_s(flow.pid), cluster.records_out()
        wait_for_records(cluster, events, 0.01, LIMIT_S)
        took_s, used_s = time.monotonic() - begin_s, cpu_s(flow.pid) - begin_cpu_s
        flow.terminate()
        assert flow.wait(60) == 0, cluster.errors(flow)
        print(cluster.errors(flow), end="", file=sys.stderr)
    done = events - first
    return {
        "events": done,
        "seconds": round(took_s, 2),
        "events_per_s": round(done / took_s),
        "cores": round(used_s / took_s, 2),
        "events_per_core_s": round(done / used_s),
    }


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--lanes", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="heartwheel-bench-") as folder:
        print(json.dumps(catch_up(arguments.events, arguments.lanes, Path(folder)), indent=1))


if __name__ == "__main__":
    main()
