"""The phases of a benchmark; each returns its part of the report."""

import re
import time

import msgspec

from benchmarks.flow import Flow
from benchmarks.load import Plan
from benchmarks.poll import Poll
from benchmarks.report import Latency
from benchmarks.stage import LoadProcess, wait_for_records
from benchmarks.usage import Cores, Machine, cpu_s, memory_bytes, thread_cpu_s, turns
from dataflows.settings import Settings
from tests.support.check import check_output, expected
from tests.support.cluster import Cluster
from tests.support.topic import facts

SETTLE_S = 5
# What is due in the last moments of a run may be out or not: a busy machine is behind, not wrong.
# The steady phase is over by then.
LAST_MS = 3_000
RECONCILED = re.compile(r"records after the last snapshot +(.*)")
Report = dict[str, object]


def quiet(machine: Machine, ours: dict[str, float]) -> Report:
    """Return how quiet the machine was beside our own processes."""
    whole = machine.stop()
    others = whole["used_cores"] - sum(ours.values())
    return {
        "machine_idle": round(whole["idle"], 3),
        "machine_steal": round(whole["steal"], 3),
        "other_cores": round(max(0, others), 3),  # by ticks, which miss some short moments
    }


def idle(flow: Flow, seconds: float) -> Report:
    """Measure a flow that has no sessions, and each of its processes."""
    print(f"idle: {seconds:.0f} s", flush=True)
    machine, begin_s = Machine(), time.monotonic()
    before = [(cpu_s(pid), turns(pid)) for pid in flow.pids]
    time.sleep(seconds)
    passed_s = time.monotonic() - begin_s
    each = [
        ((cpu_s(pid) - used_s) / passed_s, (turns(pid) - count) / passed_s)
        for pid, (used_s, count) in zip(flow.pids, before, strict=True)
    ]
    cores = sum(used for used, _ in each)
    return {
        "cores": round(cores, 3),
        "cores_each": [round(used, 3) for used, _ in each],
        "turns_per_s_each": [round(count) for _, count in each],
        "flow_gb": round(memory_bytes(*flow.pids) / 1e9, 3),
        **quiet(machine, {"flow": cores}),
    }


def ramp(load: LoadProcess, cluster: Cluster, flow: Flow) -> Report:
    """Wait until every session is started."""
    plan = load.plan
    print(f"ramp: {plan.sessions} sessions in {plan.ramp_s:.0f} s", flush=True)
    cores = Cores({"flow": flow.pids})
    worst = load.result()
    mean = cores.stop()
    behind_s = wait_for_records(cluster, plan.sessions, 0.2, 300)
    time.sleep(SETTLE_S)
    return {
        **worst,
        "ramp_cores": round(mean["flow"], 3),
        "ramp_behind_s": round(behind_s, 1),
    }


def send(load: LoadProcess, stampede: LoadProcess | None) -> Report:
    """Send the steady load, and in the middle of it the stampede."""
    load.go()
    if stampede is None:
        return {**load.result()}
    time.sleep(load.plan.steady_s / 2)
    stampede.go()
    late_ms = stampede.result()["ramp_worst_ms"]
    return {**load.result(), "stampede_worst_ms": late_ms}


def steady(
    load: LoadProcess, flow: Flow, broker_pid: int, stampede: LoadProcess | None, poll: Poll | None
) -> tuple[tuple[int, int], Report]:
    """Send the steady load; return when that was in ms as well."""
    print(f"steady: {load.plan.rate:.0f} events/s", flush=True)
    loads = [one.process.pid for one in (load, stampede) if one is not None]
    begin_ms = time.time_ns() // 1_000_000
    cores = Cores({"flow": flow.pids, "broker": [broker_pid], "load": loads})
    machine, threads = Machine(), thread_cpu_s(*flow.pids)
    each = [cpu_s(pid) for pid in flow.pids]
    sent = send(load, stampede)
    used = {name: s - threads.get(name, 0) for name, s in thread_cpu_s(*flow.pids).items()}
    each = [cpu_s(pid) - used_s for pid, used_s in zip(flow.pids, each, strict=True)]
    mean = cores.stop()
    whole = quiet(machine, mean)
    end_ms = time.time_ns() // 1_000_000
    passed_s = (end_ms - begin_ms) / 1000
    time.sleep(LAST_MS / 1000)
    return (begin_ms, end_ms), {
        **sent,
        "cores": {name: round(value, 3) for name, value in mean.items()},
        **whole,
        "flow_threads": {n: round(s / passed_s, 3) for n, s in used.items() if s > passed_s / 1000},
        "flow_cores_each": [round(used_s / passed_s, 3) for used_s in each],
        "core_series": cores.samples,
        "flow_gb": round(memory_bytes(*flow.pids) / 1e9, 3),
        "broker_gb": round(memory_bytes(broker_pid) / 1e9, 3),
        **({} if poll is None else {"http_ms": poll.stop()}),
    }


def killed(flow: Flow, cluster: Cluster, settings: Settings) -> Report:
    """Kill the flow, one process of a cluster, and start it again."""
    flow.kill()
    before = cluster.records_out()
    flow.start()
    resume_s = wait_for_records(cluster, before + 1, 0.02, 120)
    time.sleep(settings.heartbeat_ms / 1000 + SETTLE_S)  # every session has sent a heartbeat
    return {
        "resume_first_output_s": round(resume_s, 2),
        "reconciled": RECONCILED.findall(flow.errors()),
    }


def stop(flow: Flow) -> Report:
    """Stop the flow."""
    begin = time.monotonic()
    codes = flow.stop()
    return {"stop_s": round(time.monotonic() - begin, 2), "exit_codes": codes}


def check(
    flow: Flow, settings: Settings, plan: Plan, window_ms: tuple[int, int], stopped_ms: int
) -> Report:
    """Compare the output with the model."""
    print("check: reading the topics", flush=True)
    rules, latency = settings.rules(), Latency()
    bad, tables = plan.bad > 0, settings.mappings()
    given = facts(flow.cluster.address, flow.cluster.inputs, bad=bad, tables=tables)
    want = expected(given, rules, stopped_ms)
    events = latency.measured(flow.records(), window_ms)
    found = check_output(events, want, rules, stopped_ms - LAST_MS)
    passed_s = (window_ms[1] - window_ms[0]) / 1000
    return {
        "latency_ms": latency.percentiles(),
        "heartbeats_per_s": round(latency.total["Heartbeat"].total() / passed_s),
        "records_per_s": round(latency.records / passed_s),
        **latency.stampede(),
        "check": msgspec.to_builtins(found),
        "series": latency.series(),
    }
