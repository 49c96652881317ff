"""The benchmark: real Kafka, an open-loop load, and a report read from the output topic."""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from benchmarks.flow import Flow, Shards
from benchmarks.killed_shard import steady_with_a_kill
from benchmarks.load import STAMPEDE, TABLE, Plan
from benchmarks.phases import Report, check, idle, killed, ramp, steady, stop
from benchmarks.picture import draw
from benchmarks.poll import Poll
from benchmarks.stage import LoadProcess, stage
from dataflows.settings import Settings
from dataflows.settings_sources import load_settings
from tests.support.broker import Broker
from tests.support.cluster import INPUT_PARTITIONS, Cluster

HEADLINE_SESSIONS = 4_000_000
HEADLINE_RATE = 500_000 / 60
# Slow enough for one machine: starts that pile up would be heartbeats that pile up, for ever after.
RAMP_PER_S = 23_000
STAMPEDE_S = 2.0
START_S = 3  # for each process: they share the cores
IDLE_S = 10
STEADY_S, CHECK_S = 60.0, 10.0
# Heartbeats that come within a short check; so short is its ramp as well.
CHECK_CHANGES = ("HEARTWHEEL_HEARTBEAT_MS=5000",)
# While the processes of a run start again, heartbeats become due: every one of them is checked.
KILL_CHANGES = ("HEARTWHEEL_CATCH_UP=all",)


def plan_of(arguments: argparse.Namespace, cluster: Cluster, settings: Settings) -> Plan:
    """Return what the load is to send; its ramp is as long as some heartbeats, so they spread."""
    sessions = round(HEADLINE_SESSIONS * arguments.scale)
    heartbeat_s = settings.heartbeat_ms / 1000
    return Plan(
        bootstrap_servers=cluster.address,
        topics=[cluster.console, cluster.pc],
        sessions=sessions,
        ramp_s=heartbeat_s * max(1, -(-sessions // (heartbeat_s * RAMP_PER_S))),
        rate=HEADLINE_RATE * arguments.scale,
        steady_s=arguments.seconds,
        seed=arguments.seed,
        bad=arguments.bad,
        hot=arguments.hot,
        field_bytes=arguments.field_bytes if arguments.mapped else 0,
    )


def stampede_of(plan: Plan, sessions: int) -> Plan:
    """Return starts on devices of their own, all at once."""
    return replace(plan, sessions=sessions, ramp_s=STAMPEDE_S, first=STAMPEDE, prepared=True)


def give_tables(cluster: Cluster) -> None:
    """Let a cluster's input topics be read by tables."""
    tables = [TABLE.format(topic=topic, platform=name) for topic, name in cluster.inputs.items()]
    config = cluster.folder / "heartwheel.toml"
    config.write_text("".join(tables))
    del cluster.variables["HEARTWHEEL_INPUT_TOPICS"]
    cluster.variables["HEARTWHEEL_CONFIG"] = str(config)


def changes_of(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the settings of the flow that differ from the usual ones."""
    pairs = [*CHECK_CHANGES] if arguments.check else []
    pairs += [*KILL_CHANGES] if arguments.kill else []
    return dict(pair.split("=", 1) for pair in [*pairs, *arguments.set])


def measure(
    arguments: argparse.Namespace,
    make_flow: Callable[..., Flow],
    broker: Broker,
    cluster: Cluster,
    folder: Path,
) -> Report:
    """Run the flow through all phases and return what each has measured."""
    changes = changes_of(arguments)
    settings = load_settings(cluster.variables | changes)
    plan = plan_of(arguments, cluster, settings)
    flow = make_flow(cluster, arguments.processes, changes, http=arguments.poll_http)
    flow.start()
    flow.wait_until_connected()
    time.sleep(START_S * arguments.processes)
    loads: list[LoadProcess] = []
    report: Report = {"sessions": plan.sessions, "events_per_s": round(plan.rate)}
    try:
        if not arguments.check:
            report["idle"] = idle(flow, arguments.idle or IDLE_S)
        if arguments.idle:
            return report | stop(flow)
        load, stampede = LoadProcess(plan, folder), None
        loads.append(load)
        if arguments.stampede:
            stampede = LoadProcess(stampede_of(plan, arguments.stampede), folder, "stampede")
            loads.append(stampede)
        report |= ramp(load, cluster, flow)
        poll = Poll(flow, plan.sessions, arguments.lanes) if arguments.poll_http else None
        assert broker.process is not None
        if arguments.kill and isinstance(flow, Shards):
            window_ms, measured = steady_with_a_kill(load, flow)
        else:
            window_ms, measured = steady(load, flow, broker.process.pid, stampede, poll)
        report |= measured
        if arguments.kill and not arguments.shards:
            report |= killed(flow, cluster, settings)
        stopped_ms = time.time_ns() // 1_000_000
        report |= stop(flow)
    finally:
        print(flow.errors(), end="", file=sys.stderr)
        for load in loads:
            load.end()
    store = settings.recovery_path()
    report["store_mb"] = round(sum(f.stat().st_size for f in store.rglob("*.sqlite3*")) / 1e6, 1)
    report["output_mb"] = round(broker.topic_bytes(cluster.output) / 1e6, 1)
    return report | check(flow, settings, plan, window_ms, stopped_ms)


def bench(
    arguments: argparse.Namespace, folder: Path, make_flow: Callable[..., Flow] = Flow
) -> dict[str, Any]:
    """Run one benchmark in a folder and return its report."""
    with stage(
        folder,
        arguments.lanes,
        arguments.broker_dir,
        input_partitions=arguments.lanes if arguments.shards else INPUT_PARTITIONS,
    ) as (broker, cluster):
        if arguments.mapped:
            give_tables(cluster)
        return {
            "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
            **{name: value for name, value in vars(arguments).items() if name in CONDITIONS},
            **measure(
                arguments, Shards if arguments.shards else make_flow, broker, cluster, folder
            ),
        }


CONDITIONS = {
    "scale", "seconds", "lanes", "processes", "shards", "bad", "hot", "mapped", "field_bytes",
    "stampede", "poll_http", "kill", "set",
}  # fmt: skip


def parse(
    words: list[str] | None = None, parser: argparse.ArgumentParser | None = None
) -> argparse.Namespace:
    """Return the options, beside those that a parser has already."""
    parser = parser or argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=0.1, help="share of the headline load")
    parser.add_argument(
        "--seconds",
        type=float,
        help=f"length of the steady phase ({STEADY_S:g}; with --check {CHECK_S:g})",
    )
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--processes", type=int, default=1, help="of the flow, as one cluster")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--bad", type=int, default=0, help="records that are no events, for each hundred events"
    )
    parser.add_argument(
        "--hot", type=int, default=0, help="sessions a second that one device starts and ends"
    )
    parser.add_argument(
        "--mapped",
        action="store_true",
        help="events with ten more fields, read by input tables that carry two of them",
    )
    parser.add_argument("--field-bytes", type=int, default=200, help="size of each such field")
    parser.add_argument(
        "--stampede",
        type=int,
        default=0,
        metavar="COUNT",
        help=f"so many more starts within {STAMPEDE_S:g} s, in the middle of the steady phase",
    )
    parser.add_argument(
        "--poll-http",
        action="store_true",
        help="a client that asks for a random device 10 times a second in the steady phase",
    )
    parser.add_argument(
        "--broker-dir",
        type=Path,
        help="Kafka's data, where it is not to share a disk with the recovery store",
    )
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    parser.add_argument("--name", help="of the report; else it says scale and kind")
    parser.add_argument(
        "--kill",
        action="store_true",
        help="kill -9 of one process after the steady phase, resume; of one shard in its middle",
    )
    parser.add_argument(
        "--set", action="append", default=[], help="HEARTWHEEL_X=value for the flow"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="correctness alone: short, with a heartbeat every 5 s",
    )
    parser.add_argument(
        "--idle",
        type=float,
        default=0,
        metavar="SECONDS",
        help=f"a flow without sessions, which is measured for {IDLE_S} s before any load, alone",
    )
    parser.add_argument(
        "--shards", type=int, default=0, help="of the flow, with an input partition for each lane"
    )
    arguments = parser.parse_args(words)
    if arguments.shards:
        if arguments.processes > 1 or arguments.poll_http:
            parser.error("shards are no cluster, and they are not polled here")
        if arguments.kill and (arguments.shards == 1 or arguments.stampede):
            parser.error("--kill wants shards that go on, and no stampede")
        arguments.processes = arguments.shards
    arguments.seconds = arguments.seconds or (CHECK_S if arguments.check else STEADY_S)
    return arguments


def is_good(report: dict[str, Any]) -> bool:
    """Say whether every process has ended well, and the output is as the model says."""
    return not any(report["exit_codes"]) and not report.get("check", {}).get("differences")


def main() -> int:
    """Run the benchmark, print the report, and write it as JSON and as a picture."""
    arguments = parse()
    with tempfile.TemporaryDirectory(prefix="heartwheel-bench-") as folder:
        report = bench(arguments, Path(folder))
    arguments.out.mkdir(parents=True, exist_ok=True)
    kinds = [kind for kind in ("mapped", "kill", "check", "idle") if getattr(arguments, kind)]
    name = arguments.name or "-".join((f"scale-{arguments.scale:g}", *kinds))
    (arguments.out / f"{name}.json").write_text(json.dumps(report, indent=1))
    if "core_series" in report:
        draw(report, arguments.out / f"{name}.png")
    shown = {k: v for k, v in report.items() if k not in ("series", "core_series")}
    print(json.dumps(shown, indent=1))
    return 0 if is_good(report) else 1


if __name__ == "__main__":
    sys.exit(main())
