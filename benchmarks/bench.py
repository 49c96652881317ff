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

from benchmarks.load import TABLE, Plan
from benchmarks.picture import draw
from benchmarks.report import Latency
from benchmarks.stage import LoadProcess, stage, wait_for_records
from benchmarks.usage import Cores, Machine, memory_bytes, thread_cpu_s
from dataflows.settings import Settings
from dataflows.settings_sources import load_settings
from tests.support.broker import Broker
from tests.support.check import check_output, expected
from tests.support.cluster import Cluster
from tests.support.topic import facts, outputs

HEADLINE_SESSIONS = 4_000_000
HEADLINE_RATE = 500_000 / 60
# Slow enough for one machine: starts that pile up would be heartbeats that pile up, for ever after.
RAMP_PER_S = 23_000
START_S = 3
SETTLE_S = 5
# What is due in the last moment of a run may be out or not.
LAST_MS = 500
RECONCILED = re.compile(r"records after the last snapshot +(.*)")


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
        bad=arguments.bad,
        field_bytes=arguments.field_bytes if arguments.mapped else 0,
    )


def give_tables(cluster: Cluster) -> None:
    """Let a cluster's input topics be read by tables."""
    tables = [TABLE.format(topic=topic, platform=name) for topic, name in cluster.inputs.items()]
    config = cluster.folder / "heartwheel.toml"
    config.write_text("".join(tables))
    del cluster.variables["HEARTWHEEL_INPUT_TOPICS"]
    cluster.variables["HEARTWHEEL_CONFIG"] = str(config)


def ramp(load: LoadProcess, plan: Plan, cluster: Cluster, flow_pid: int) -> dict[str, object]:
    """Wait until every session is started; return this phase's part of the report."""
    print(f"ramp: {plan.sessions} sessions in {plan.ramp_s:.0f} s", flush=True)
    cores = Cores({"flow": flow_pid})
    worst = load.result()
    mean = cores.stop()
    behind_s = wait_for_records(cluster, plan.sessions, 0.2, 300)
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
    cores, machine, threads = Cores(pids), Machine(), thread_cpu_s(pids["flow"])
    load.go()
    worst = load.result()
    used = {name: s - threads.get(name, 0) for name, s in thread_cpu_s(pids["flow"]).items()}
    mean, whole = cores.stop(), machine.stop()
    end_ms = time.time_ns() // 1_000_000
    passed_s = (end_ms - begin_ms) / 1000
    time.sleep(1)
    return (begin_ms, end_ms), {
        **worst,
        "cores": {name: round(value, 3) for name, value in mean.items()},
        "machine_idle": round(whole["idle"], 3),
        "machine_steal": round(whole["steal"], 3),
        "other_cores": round(whole["used_cores"] - sum(mean.values()), 3),
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


def killed(
    flow: subprocess.Popen[str], cluster: Cluster, settings: Settings, changes: dict[str, str]
) -> tuple[subprocess.Popen[str], dict[str, object]]:
    """Kill the flow and start it again; return it, and this phase's part of the report."""
    flow.kill()
    flow.wait()
    before = cluster.records_out()
    flow = cluster.start(**changes)
    resume_s = wait_for_records(cluster, before + 1, 0.02, 120)
    time.sleep(settings.heartbeat_ms / 1000 + SETTLE_S)  # every session has sent a heartbeat
    return flow, {
        "resume_first_output_s": round(resume_s, 2),
        "reconciled": RECONCILED.findall(cluster.errors(flow)),
    }


def check(
    cluster: Cluster,
    settings: Settings,
    window_ms: tuple[int, int],
    stopped_ms: int,
    *,
    bad: bool,
) -> dict[str, object]:
    """Compare the output with the model; return this phase's part of the report."""
    print("check: reading the topics", flush=True)
    rules, latency = settings.rules(), Latency()
    given = facts(cluster.address, cluster.inputs, bad=bad, tables=settings.mappings())
    want = expected(given, rules, stopped_ms)
    events = latency.measured(outputs(cluster.address, cluster.output), window_ms)
    found = check_output(events, want, rules, stopped_ms - LAST_MS)
    begin_ms, end_ms = window_ms
    beats = latency.total["Heartbeat"].total()
    return {
        "latency_ms": latency.percentiles(),
        "heartbeats_per_s": round(beats * 1000 / (end_ms - begin_ms)),
        "check": msgspec.to_builtins(found),
        "series": latency.series(),
    }


def measure(
    arguments: argparse.Namespace, broker: Broker, cluster: Cluster, folder: Path
) -> dict[str, object]:
    """Run the flow through all phases and return what each has measured."""
    changes = dict(pair.split("=", 1) for pair in arguments.set)
    settings = load_settings(cluster.variables | changes)
    plan = plan_of(arguments, cluster)
    flow = cluster.start(**changes)
    time.sleep(START_S)
    load = LoadProcess(plan, folder)
    try:
        report = ramp(load, plan, cluster, flow.pid)
        assert broker.process is not None
        pids = {"flow": flow.pid, "broker": broker.process.pid, "load": load.process.pid}
        window_ms, measured = steady(load, plan, pids)
        report |= measured
        if arguments.kill:
            flow, resumed = killed(flow, cluster, settings, changes)
            report |= resumed
        stopped_ms = time.time_ns() // 1_000_000
        report |= stop(flow)
    finally:
        print(cluster.errors(flow), end="", file=sys.stderr)
        load.end()
    store = settings.recovery_path()
    report["store_mb"] = round(sum(f.stat().st_size for f in store.iterdir()) / 1e6, 1)
    return report | check(cluster, settings, window_ms, stopped_ms, bad=plan.bad > 0)


def bench(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Run one benchmark in a folder and return its report."""
    with stage(folder, arguments.lanes, arguments.broker_dir) as (broker, cluster):
        if arguments.mapped:
            give_tables(cluster)
        plan = plan_of(arguments, cluster)
        return {
            "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
            "scale": arguments.scale,
            "sessions": plan.sessions,
            "events_per_s": round(plan.rate),
            "lanes": arguments.lanes,
            "bad": arguments.bad,
            "field_bytes": plan.field_bytes,
            "set": arguments.set,
            **measure(arguments, broker, cluster, folder),
        }


def main() -> int:
    """Run the benchmark, print the report, and write it as JSON and as a picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=0.1, help="share of the headline load")
    parser.add_argument("--seconds", type=float, default=60, help="length of the steady phase")
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--bad", type=int, default=0, help="records that are no events, for each hundred events"
    )
    parser.add_argument(
        "--mapped",
        action="store_true",
        help="events with ten more fields, read by input tables that carry two of them",
    )
    parser.add_argument("--field-bytes", type=int, default=200, help="size of each such field")
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
    kinds = [kind for kind in ("mapped", "kill") if getattr(arguments, kind)]
    name = "-".join((f"scale-{arguments.scale:g}", *kinds))
    (arguments.out / f"{name}.json").write_text(json.dumps(report, indent=1))
    draw(report, arguments.out / f"{name}.png")
    shown = {k: v for k, v in report.items() if k not in ("series", "core_series")}
    print(json.dumps(shown, indent=1))
    check = report["check"]
    assert isinstance(check, dict)
    return 1 if check["differences"] or report["exit_code"] else 0


if __name__ == "__main__":
    sys.exit(main())
