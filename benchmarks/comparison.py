"""Ours beside the same job on Kafka Streams: one after the other, under the same load."""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.bench import HEADLINE_SESSIONS, bench, is_good, parse
from benchmarks.flow import Flow
from benchmarks.peer import Peer, Tuning
from tests.support.check import Difference
from tests.support.kafka_streams import EXACTLY_ONCE, build
from tests.support.missing import JAVAC, absent

OURS, THEIRS = "Heartwheel", "Kafka Streams"
ALL = "all"  # in the place of a name: the sum of what is there
# Sessions take 0.5 KB each in the peer's heap; more than twice that leaves the collector room.
HEAP_MB, HEAP_KB_A_SESSION = 256, 1.2
# What is compared, by where it stands in a report; what neither has is left out.
MEASURED = {
    **{
        f"{kind} {share}, ms": ("latency_ms", kind, share)
        for kind in ("SessionActive", "SessionEnd", "Heartbeat")
        for share in ("p50", "p99", "max")
    },
    "cores of the job": ("cores", "flow"),
    "cores of the broker": ("cores", "broker"),
    "memory of the job, GB": ("flow_gb",),
    "records out, per s": ("records_per_s",),
    "stampede, starts per s": ("stampede_per_s",),
    "usual again after the stampede, s": ("usual_again_s",),
    "first output after kill -9, s": ("resume_first_output_s",),
    "cores of the idle job": ("idle", "cores"),
}
COUNTED = {
    "records compared with the model": ("check", "records"),
    "differences from it": ("check", "differences", ALL),
    **{str(name): ("check", "differences", str(name)) for name in Difference},
    "heartbeats sent before an earlier end was read": ("check", "raced"),
}
CONDITIONS = {
    "idle share of the machine": ("machine_idle",),
    "idle share of the machine, before any load": ("idle", "machine_idle"),
    "share taken by the host": ("machine_steal",),
    "cores used by others": ("other_cores",),
}
KINDS = ("exactly_once", "kill", "check", "idle")
Report = dict[str, Any]


class Row(msgspec.Struct):
    """One line of the table; ratio is theirs to ours, where that says something."""

    what: str
    ours: float | None
    theirs: float | None
    ratio: float | None = None


def found(report: Report, path: tuple[str, ...]) -> float | None:
    """Return a number of a report, or None if it is not there."""
    *outer, last = path
    for name in outer:
        if name not in report:
            return None
        report = report[name]
    number: float | None = sum(report.values()) if last == ALL else report.get(last)
    return number


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """Return theirs to ours."""
    return round(theirs / ours, 2) if ours and theirs is not None else None


def table(ours: Report, theirs: Report) -> Iterator[Row]:
    """Yield what was measured, what differs from the model, and how quiet the machine was."""
    for what, path in (MEASURED | COUNTED | CONDITIONS).items():
        row = Row(what, found(ours, path), found(theirs, path))
        if row.ours is None and row.theirs is None:
            continue
        if what in MEASURED:
            row.ratio = ratio(row.ours, row.theirs)
        yield row


def text(rows: list[Row]) -> str:
    """Return a table as Markdown."""
    lines = [f"| | {OURS} | {THEIRS} | ratio |", "|---|---|---|---|"]
    for row in rows:
        cells = ("" if cell is None else f"{cell:,}" for cell in (row.ours, row.theirs, row.ratio))
        lines.append(f"| {row.what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def options(words: list[str] | None = None) -> argparse.Namespace:
    """Return the options: those of the benchmark, and the peer's own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--exactly-once", action="store_true", help="let the peer write in transactions"
    )
    parser.add_argument("--heap", type=int, metavar="MB", help="of the peer; else by the scale")
    parser.add_argument(
        "--peer-set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of Kafka Streams for the peer",
    )
    arguments = parse(words, parser)
    if arguments.mapped or arguments.poll_http or arguments.processes > 1 or arguments.shards:
        parser.error("the peer is one process without input tables and HTTP")
    if arguments.exactly_once:
        arguments.peer_set.append(EXACTLY_ONCE)
    sessions = HEADLINE_SESSIONS * arguments.scale
    arguments.heap = arguments.heap or round(HEAP_MB + HEAP_KB_A_SESSION * sessions / 1000)
    return arguments


def run(arguments: argparse.Namespace, name: str, make_flow: Callable[..., Flow]) -> Report:
    """Return the report of one of the two."""
    print(name, flush=True)
    with tempfile.TemporaryDirectory(prefix="heartwheel-bench-") as folder:
        return bench(arguments, Path(folder), make_flow)


def main() -> int:
    """Run both, print the table, and write it as JSON; only ours has to be without a fault."""
    arguments = options()
    if programs := absent(JAVAC):
        sys.exit(f"there is no {' and no '.join(programs)}: install {JAVAC.install}")
    build()
    ours = run(arguments, OURS, Flow)
    peer = partial(Peer, Tuning(arguments.peer_set, arguments.heap))
    theirs = run(arguments, THEIRS, peer)
    rows = list(table(ours, theirs))
    arguments.out.mkdir(parents=True, exist_ok=True)
    kinds = [kind for kind in KINDS if getattr(arguments, kind)]
    parts = ("beside-kafka-streams", f"scale-{arguments.scale:g}", *kinds)
    name = arguments.name or "-".join(parts).replace("_", "-")
    whole = {
        "heap_mb": arguments.heap,
        "peer_set": arguments.peer_set,
        "table": msgspec.to_builtins(rows),
        OURS: ours,
        THEIRS: theirs,
    }
    (arguments.out / f"{name}.json").write_text(json.dumps(whole, indent=1))
    print(text(rows))
    return 0 if is_good(ours) else 1


if __name__ == "__main__":
    sys.exit(main())
