"""The benchmark: real Kafka, an open-loop load, and a report read from the output topic."""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import msgspec
from confluent_kafka import Consumer, TopicPartition

from benchmarks.picture import draw
from benchmarks.report import Latency, check_output, expected_sessions, percentile
from dataflows.settings import Settings
from tests.broker import Broker, create_topics, environment

HEADLINE_SESSIONS = 4_000_000
HEADLINE_RATE = 500_000 / 60
RAMP_PER_S = 45_000
SETTLE_S = 5
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used, from the scheduler's own count."""
    total_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
            total_ns += int((task / "schedstat").read_text().split()[0])
    return total_ns / 1e9


def memory_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


class Cores:
    """Samples the cores that processes use, once a second."""

    def __init__(self, pids: dict[str, int]) -> None:
        """Begin to sample in a thread."""
        self.samples: list[dict[str, float]] = []
        self._pids = pids
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        last, last_s = {name: cpu_s(pid) for name, pid in self._pids.items()}, time.monotonic()
        while not self._over.wait(1):
            now, now_s = {name: cpu_s(pid) for name, pid in self._pids.items()}, time.monotonic()
            self.samples.append({k: (now[k] - last[k]) / (now_s - last_s) for k in now})
            last, last_s = now, now_s

    def stop(self) -> dict[str, float]:
        """Return the mean of every process."""
        self._over.set()
        self._thread.join()
        count = max(1, len(self.samples))
        return {n: sum(s[n] for s in self.samples) / count for n in self._pids}


def wait_for_backlog(address: str, settings: Settings, sessions: int) -> float:
    """Wait until the output holds a SessionActive for every session; return the seconds."""
    begin = time.monotonic()
    consumer = Consumer({"bootstrap.servers": address, "group.id": "heartwheel-bench"})
    while time.monotonic() - begin < 300:
        if output_ends(consumer, settings) >= sessions:
            break
        time.sleep(0.2)
    consumer.close()
    return time.monotonic() - begin


def output_ends(consumer: Consumer, settings: Settings) -> int:
    """Return how many records the output topic has."""
    lanes = [TopicPartition(settings.output_topic, lane) for lane in range(settings.lanes)]
    return sum(consumer.get_watermark_offsets(lane, 10)[1] for lane in lanes)


def resume(
    address: str, settings: Settings, variables: dict[str, str]
) -> tuple[subprocess.Popen[bytes], dict[str, float]]:
    """Start the flow again after a kill; return it, and when output came."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "heartwheel-bench"})
    before, begin = output_ends(consumer, settings), time.monotonic()
    flow = subprocess.Popen([sys.executable, "-m", "dataflows.cli", "run"], env=variables)
    while output_ends(consumer, settings) == before and time.monotonic() - begin < 120:
        time.sleep(0.02)
    first_s = time.monotonic() - begin
    time.sleep(10)
    consumer.close()
    return flow, {"resume_first_output_s": round(first_s, 2)}


def bench(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Run one benchmark in a folder and return its report."""
    sessions = round(HEADLINE_SESSIONS * arguments.scale)
    ramp_s = max(30.0, 30.0 * -(-sessions // (30 * RAMP_PER_S)))
    settings = Settings(lanes=arguments.lanes)
    broker = Broker(folder / "kafka", heap="1g")
    broker.start()
    assert broker.process is not None
    stamped = {"message.timestamp.type": "LogAppendTime"}
    create_topics(
        broker.admin(),
        {**dict.fromkeys(settings.input_topics, 2), settings.dead_letter_topic: 1},
        **stamped,
    )
    create_topics(broker.admin(), {settings.output_topic: settings.lanes}, **stamped)
    plan = folder / "plan.json"
    plan.write_text(
        json.dumps(
            {
                "bootstrap_servers": broker.address,
                "sessions": sessions,
                "ramp_s": ramp_s,
                "rate": HEADLINE_RATE * arguments.scale,
                "steady_s": arguments.seconds,
                "seed": arguments.seed,
            }
        )
    )
    store = folder / "recovery"
    variables = environment() | {
        "HEARTWHEEL_BOOTSTRAP_SERVERS": broker.address,
        "HEARTWHEEL_LANES": str(settings.lanes),
        "HEARTWHEEL_RECOVERY_DIR": str(store),
        **dict(pair.split("=", 1) for pair in arguments.set),
    }
    flow = subprocess.Popen([sys.executable, "-m", "dataflows.cli", "run"], env=variables)
    time.sleep(3)
    load = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load", str(plan)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert load.stdin is not None
    assert load.stdout is not None
    try:
        idle = Cores({"flow": flow.pid})
        print(f"ramp: {sessions} sessions in {ramp_s:.0f} s", flush=True)
        worst = json.loads(load.stdout.readline())
        ramp_cores = idle.stop()
        behind_s = wait_for_backlog(broker.address, settings, sessions)
        time.sleep(SETTLE_S)
        print(f"steady: {HEADLINE_RATE * arguments.scale:.0f} events/s", flush=True)
        begin_ms = time.time_ns() // 1_000_000
        cores = Cores({"flow": flow.pid, "broker": broker.process.pid, "load": load.pid})
        load.stdin.write("go\n")
        load.stdin.flush()
        worst |= json.loads(load.stdout.readline())
        mean_cores = cores.stop()
        end_ms = time.time_ns() // 1_000_000
        time.sleep(1)
        flow_bytes = memory_bytes(flow.pid)
        broker_bytes = memory_bytes(broker.process.pid)
        resumed: dict[str, float] = {}
        if arguments.kill:
            flow.kill()
            flow.wait()
            flow, resumed = resume(broker.address, settings, variables)
        stopped_ms = time.time_ns() // 1_000_000
        assert flow.poll() is None, "the flow has ended"
        stop_begin = time.monotonic()
        flow.terminate()
        code = flow.wait(timeout=60)
        stop_s = time.monotonic() - stop_begin
        print("check: reading the topics", flush=True)
        rules = settings.rules()
        expected = expected_sessions(broker.address, settings.input_topics, rules, stopped_ms)
        check, latency = check_output(
            broker.address,
            settings.output_topic,
            expected,
            rules,
            (begin_ms, end_ms),
            stopped_ms - 500,
        )
        return {
            "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
            "scale": arguments.scale,
            "sessions": sessions,
            "events_per_s": round(HEADLINE_RATE * arguments.scale),
            "lanes": settings.lanes,
            "set": arguments.set,
            "latency_ms": _percentiles(latency),
            "heartbeats_per_s": round(
                latency.total["Heartbeat"].total() * 1000 / (end_ms - begin_ms)
            ),
            "cores": {name: round(value, 3) for name, value in mean_cores.items()},
            "ramp_cores": round(ramp_cores["flow"], 3),
            "ramp_behind_s": round(behind_s, 1),
            "flow_gb": round(flow_bytes / 1e9, 3),
            "broker_gb": round(broker_bytes / 1e9, 3),
            "store_mb": round(sum(f.stat().st_size for f in store.iterdir()) / 1e6, 1),
            "stop_s": round(stop_s, 2),
            "exit_code": code,
            **worst,
            **resumed,
            "check": msgspec.to_builtins(check),
            "series": _series(latency),
            "core_series": cores.samples,
        }
    finally:
        for process in (load, flow):
            if process.poll() is None:
                process.kill()
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
    kinds = ["missing", "misordered", "unexpected"]
    if not arguments.kill:  # what was written after the last snapshot is written again
        kinds.append("duplicate")
    wrong = sum(check[kind] for kind in kinds)
    return 1 if wrong or report["exit_code"] else 0


if __name__ == "__main__":
    sys.exit(main())
