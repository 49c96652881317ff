"""A shard that is killed under load: what its devices feel of it, and those of the others."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise

from benchmarks.flow import Shards
from benchmarks.phases import LAST_MS, Report
from benchmarks.report import STARTS, Histogram, percentile
from benchmarks.stage import LoadProcess
from session_logic.events import Heartbeat, OutputEvent, SessionActive
from tests.support.topic import messages, output_of

MEASURED = (SessionActive, Heartbeat)
# A record that is later than this was not sent when it was due.
LATE_MS = 1_000
Sent = tuple[int, int, OutputEvent]  # partition, when it was written in ms, and the record


def steady_with_a_kill(load: LoadProcess, flow: Shards) -> tuple[tuple[int, int], Report]:
    """Send the steady load, and kill the last shard in its middle; return when that was as well."""
    print(f"steady: {load.plan.rate:.0f} events/s, and one of {flow.shards} is killed", flush=True)
    begin_ms = time.time_ns() // 1_000_000
    load.go()
    time.sleep(load.plan.steady_s / 2)
    killed_ms = flow.restart_one()
    sent = load.result()
    end_ms = time.time_ns() // 1_000_000
    time.sleep(LAST_MS / 1000)
    records = (
        (message.partition(), message.timestamp()[1], output_of(message))
        for message in messages(flow.cluster.address, flow.cluster.output)
    )
    return (begin_ms, end_ms), {
        **sent,
        "killed_shard": told(records, flow.shards, (begin_ms, killed_ms, end_ms)),
    }


def told(records: Iterable[Sent], shards: int, moments_ms: tuple[int, int, int]) -> Report:
    """Return the latencies of the other shards before and after a kill, in ms, and the pause.

    The moments are the begin, the kill and the end. The pause of the shard that was killed is told
    in s from the kill on, until its first heartbeat, and until the last one that was late.
    """
    begin_ms, killed_ms, end_ms = moments_ms
    others: defaultdict[tuple[str, str], Histogram] = defaultdict(Counter)
    beats_ms: list[int] = []
    late_ms: list[int] = []
    for partition, written_ms, event in records:
        if not (begin_ms <= event.time_ms < end_ms and isinstance(event, MEASURED)):
            continue
        if partition % shards != shards - 1:
            when = "before" if event.time_ms < killed_ms else "after"
            others[type(event).__name__, when][written_ms - event.time_ms] += 1
        elif isinstance(event, Heartbeat) and written_ms > killed_ms:
            beats_ms.append(written_ms)
            if written_ms - event.time_ms > LATE_MS:
                late_ms.append(written_ms)
    return {
        "others_ms": {
            name: {
                when: {
                    "count": others[name, when].total(),
                    "p50": percentile(others[name, when], 0.5),
                    "p99": percentile(others[name, when], 0.99),
                    "max": max(others[name, when], default=0),
                }
                for when in ("before", "after")
            }
            for name in (STARTS, "Heartbeat")
        },
        "first_heartbeat_s": _since(killed_ms, _end_of_pause(killed_ms, beats_ms)),
        "last_late_heartbeat_s": _since(killed_ms, max(late_ms, default=killed_ms)),
    }


def _end_of_pause(killed_ms: int, beats_ms: list[int]) -> int:
    """Return when the longest time without a record ended; some are on their way at the kill."""
    _, end_ms = max(
        ((until - since, until) for since, until in pairwise([killed_ms, *sorted(beats_ms)])),
        default=(0, killed_ms),
    )
    return end_ms


def _since(begin_ms: int, end_ms: int) -> float:
    return round((end_ms - begin_ms) / 1000, 2)
