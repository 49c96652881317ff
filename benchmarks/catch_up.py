"""How fast a backlog is read: a topic full of session starts, and the flow started after them."""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.bench import LoadProcess, Output, cpu_s
from benchmarks.load import Plan
from dataflows.settings import Settings
from dataflows.settings_sources import load_settings
from tests.support.broker import Broker
from tests.support.cluster import Cluster

SENT_PER_S = 60_000
LIMIT_S = 300


def catch_up(events: int, lanes: int, folder: Path) -> dict[str, float]:
    """Return how long the flow took from its first record out to its last, and its cores."""
    broker = Broker(folder / "kafka", heap="1g")
    broker.start()
    cluster = Cluster(
        broker.address, folder, "backlog", lanes=lanes, heartbeat_ms=Settings().heartbeat_ms
    )
    output = Output(cluster, load_settings(cluster.variables))
    topics = [cluster.console, cluster.pc]
    plan = Plan(cluster.address, topics, events, events / SENT_PER_S, rate=1, steady_s=1, seed=1)
    load = LoadProcess(plan, folder)
    try:
        load.result()
        flow = cluster.start()
        output.wait(1, 0.01, LIMIT_S)
        begin_s, begin_cpu_s, first = time.monotonic(), cpu_s(flow.pid), len(output)
        output.wait(events, 0.01, LIMIT_S)
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
    finally:
        load.process.kill()
        cluster.end()
        broker.stop()


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
