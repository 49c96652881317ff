"""The benchmark: real Kafka, an open-loop load, and a report read from the output topic."""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from confluent_kafka import Consumer, TopicPartition

from benchmarks.load import Plan
from benchmarks.picture import draw
from benchmarks.report import Latency, check_output, expected_sessions, percentile
from benchmarks.usage import Cores, memory_bytes, thread_cpu_s
from dataflows.settings import Settings
from dataflows.settings_sources import load_settings
from tests.support.broker import Broker
from tests.support.cluster import Cluster

HEADLINE_SESSIONS = 4_000_000
HEADLINE_RATE = 500_000 / 60
# Slow enough for one machine: starts that pile up would be heartbeats that pile up, for ever after.
RAMP_PER_S = 23_000
SETTLE_S = 5
RECONCILED = re.compile(r"records after the last snapshot +(.*)")


class Output:
    """How many records the output topic has, without reading it."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        """Connect to the broker."""
        self._consumer = Consumer(
            {"bootstrap.servers": cluster.address, "group.id": "bench", "log_level": "0"}
        )
        self._lanes = [TopicPartition(cluster.output, lane) for lane in range(settings.lanes)]

    def __len__(self) -> int:
        """Count the records."""
        return sum(self._consumer.get_watermark_offsets(lane, 10)[1] for lane in self._lanes)

    def wait(self, records: int, step_s: float, limit_s: float) -> float:
        """Wait until there are so many records, up to limit_s; return the seconds."""
        begin = time.monotonic()
        while len(self) < records and time.monotonic() - begin < limit_s:
            time.sleep(step_s)
        return time.monotonic() - begin


class LoadProcess:
    """The load as a process of its own."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        """Start it; it begins with the ramp."""
        path = folder / "plan.json"
        path.write_bytes(msgspec.json.encode(plan))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def go(self) -> None:
        """Let the steady phase begin."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def result(self) -> dict[str, int]:
        """Wait for the end of the phase; return its worst lateness."""
        assert self.process.stdout is not None
        worst: dict[str, int] = json.loads(self.process.stdout.readline())
        return worst


def plan_of(arguments: argparse.Namespace, cluster: Cluster) -> Plan:
    """Return what the load is to send."""
    sessions = round(HEADLINE_SESSIONS * arguments.scale)
    return Plan(
        bootstrap_servers=cluster.address,
        topics=[cluster.console, cluster.pc],
        sessions=sessions,
        ramp_s=max(30.0, 30.0 * -(-sessions // (30 * RAMP_PER_S))),
        rate=HEADLINE_RATE * arguments.scale,
        steady_s=arguments.seconds,
        seed=arguments.seed,
    )


def ramp(load: LoadProcess, plan: Plan, output: Output, flow_pid: int) -> dict[str, object]:
    """Wait until every session is started; return this phase's part of the report."""
    print(f"ramp: {plan.sessions} sessions in {plan.ramp_s:.0f} s", flush=True)
    cores = Cores({"flow": flow_pid})
    worst = load.result()
    mean = cores.stop()
    behind_s = output.wait(plan.sessions, 0.2, 300)
    time.sleep(SETTLE_S)
    return {
        **worst,
        "ramp_cores": round(mean["flow"], 3),
        "ramp_behind_s": round(behind_s, 1),
    }


def steady(
    load: LoadProcess, plan: Plan, pids: dict[str, int]
) -> tuple[tuple[int, int], dict[str, object]]:
    """Send the steady load; return when that was in ms, and this phase's part of the report."""
    print(f"steady: {plan.rate:.0f} events/s", flush=True)
    begin_ms = time.time_ns() // 1_000_000
    cores, threads = Cores(pids), thread_cpu_s(pids["flow"])
    load.go()
    worst = load.result()
    used = {name: s - threads.get(name, 0) for name, s in thread_cpu_s(pids["flow"]).items()}
    mean = cores.stop()
    end_ms = time.time_ns() // 1_000_000
    passed_s = (end_ms - begin_ms) / 1000
    time.sleep(1)
    return (begin_ms, end_ms), {
        **worst,
        "cores": {name: round(value, 3) for name, value in mean.items()},
        "flow_threads": {n: round(s / passed_s, 3) for n, s in used.items() if s > passed_s / 1000},
        "core_series": cores.samples,
        "flow_gb": round(memory_bytes(pids["flow"]) / 1e9, 3),
        "broker_gb": round(memory_bytes(pids["broker"]) / 1e9, 3),
    }


def stop(flow: subprocess.Popen[str]) -> dict[str, object]:
    """Stop the flow; return this phase's part of the report."""
    assert flow.poll() is None, "the flow has ended"
    begin = time.monotonic()
    flow.terminate()
    code = flow.wait(timeout=60)
    return {"stop_s": round(time.monotonic() - begin, 2), "exit_code": code}


def check(
    cluster: Cluster, settings: Settings, window_ms: tuple[int, int], stopped_ms: int
) -> dict[str, object]:
    """Compare the output with the model; return this phase's part of the report."""
    print("check: reading the topics", flush=True)
    rules = settings.rules()
    expected = expected_sessions(cluster.address, settings.input_topics, rules, stopped_ms)
    found, latency = check_output(
        cluster.address, cluster.output, expected, rules, window_ms, stopped_ms - 500
    )
    begin_ms, end_ms = window_ms
    beats = latency.total["Heartbeat"].total()
    return {
        "latency_ms": _percentiles(latency),
        "heartbeats_per_s": round(beats * 1000 / (end_ms - begin_ms)),
        "check": msgspec.to_builtins(found),
        "series": _series(latency),
    }


def bench(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Run one benchmark in a folder and return its report."""
    changes = dict(pair.split("=", 1) for pair in arguments.set)
    broker = Broker((arguments.broker_dir or folder) / "kafka", heap="1g")
    broker.start()
    assert broker.process is not None
    stamped = {"message.timestamp.type": "LogAppendTime"}
    cluster = Cluster(
        broker.address,
        folder,
        "bench",
        lanes=arguments.lanes,
        heartbeat_ms=Settings().heartbeat_ms,
        topic_config=stamped,
    )
    settings = load_settings(cluster.variables | changes)
    plan, output = plan_of(arguments, cluster), Output(cluster, settings)
    flow = cluster.start(**changes)
    time.sleep(3)
    load = LoadProcess(plan, folder)
    try:
        report = ramp(load, plan, output, flow.pid)
        pids = {"flow": flow.pid, "broker": broker.process.pid, "load": load.process.pid}
        window_ms, measured = steady(load, plan, pids)
        report |= measured
        if arguments.kill:
            flow.kill()
            flow.wait()
            before = len(output)
            flow = cluster.start(**changes)
            report["resume_first_output_s"] = round(output.wait(before + 1, 0.02, 120), 2)
            time.sleep(settings.heartbeat_ms / 1000 + SETTLE_S)  # every session has beaten
            report["reconciled"] = RECONCILED.findall(cluster.errors(flow))
        stopped_ms = time.time_ns() // 1_000_000
        report |= stop(flow)
        store = Path(settings.recovery_dir)
        return {
            "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
            "scale": arguments.scale,
            "sessions": plan.sessions,
            "events_per_s": round(plan.rate),
            "lanes": settings.lanes,
            "set": arguments.set,
            "store_mb": round(sum(f.stat().st_size for f in store.iterdir()) / 1e6, 1),
            **report,
            **check(cluster, settings, window_ms, stopped_ms),
        }
    finally:
        print(cluster.errors(flow), end="", file=sys.stderr)
        load.process.kill()
        cluster.end()
        broker.stop()


def _percentiles(latency: Latency) -> dict[str, dict[str, int]]:
    return {
        name: {
            "count": histogram.total(),
            "p50": percentile(histogram, 0.5),
            "p99": percentile(histogram, 0.99),
            "p99.9": percentile(histogram, 0.999),
            "max": max(histogram),
        }
        for name, histogram in sorted(latency.total.items())
    }


def _series(latency: Latency) -> dict[str, list[tuple[int, int, int]]]:
    series: dict[str, list[tuple[int, int, int]]] = {}
    for (name, second), histogram in sorted(latency.by_second.items()):
        point = (second, percentile(histogram, 0.5), percentile(histogram, 0.99))
        series.setdefault(name, []).append(point)
    return series


def main() -> int:
    """Run the benchmark, print the report, and write it as JSON and as a picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=0.1, help="share of the headline load")
    parser.add_argument("--seconds", type=float, default=60, help="length of the steady phase")
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--broker-dir",
        type=Path,
        help="Kafka's data, where it is not to share a disk with the recovery store",
    )
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    parser.add_argument(
        "--kill", action="store_true", help="kill -9 after the steady phase, resume"
    )
    parser.add_argument(
        "--set", action="append", default=[], help="HEARTWHEEL_X=value for the flow"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="heartwheel-bench-") as folder:
        report = bench(arguments, Path(folder))
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = f"scale-{arguments.scale:g}{'-kill' if arguments.kill else ''}"
    (arguments.out / f"{name}.json").write_text(json.dumps(report, indent=1))
    draw(report, arguments.out / f"{name}.png")
    shown = {k: v for k, v in report.items() if k not in ("series", "core_series")}
    print(json.dumps(shown, indent=1))
    check = report["check"]
    assert isinstance(check, dict)
    wrong = sum(check[kind] for kind in ("missing", "misordered", "unexpected", "duplicate"))
    return 1 if wrong or report["exit_code"] else 0


if __name__ == "__main__":
    sys.exit(main())
