"""Variants of the benchmark, one after the other, and a table that compares them."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROWS = {
    "plain": "",
    "mapped": "--mapped",
    "uncompressed": "--set HEARTWHEEL_PRODUCER_COMPRESSION_TYPE=none",
    "lanes-16": "--lanes 16",
    "lanes-64": "--lanes 64",
    "processes-2": "--processes 2",
    "bad-10": "--bad 10",
    "hot-500": "--hot 500",
    "poll-http": "--poll-http",
    "stampede-50k": "--stampede 50000",
    "stampede-500k": "--stampede 500000 --seconds 40",
}
HEAD = (
    "variant", "SessionActive p50 / p99", "Heartbeat p50 / p99", "cores of flow", "cores of broker",
    "memory of flow", "bytes of a record in Kafka", "machine idle, cores of others", "differences",
    "besides",
)  # fmt: skip


def table(reports: dict[str, dict[str, Any]]) -> str:
    """Return reports as a table in Markdown; in brackets are ratios to the first row."""
    first = next(iter(reports.values()))
    rows = [HEAD, *((name, *_cells(report, first)) for name, report in reports.items())]
    head, *lines = [f"| {' | '.join(row)} |\n" for row in rows]
    return "".join([head, f"|{'---|' * len(HEAD)}\n", *lines])


def _cells(report: dict[str, Any], first: dict[str, Any]) -> tuple[str, ...]:
    return (
        _latency("SessionActive", report, first),
        _latency("Heartbeat", report, first),
        _against(report["cores"]["flow"], first["cores"]["flow"]),
        _against(report["cores"]["broker"], first["cores"]["broker"]),
        _against(report["flow_gb"], first["flow_gb"], " GB"),
        _against(_record_bytes(report), _record_bytes(first)),
        f"{report['machine_idle']:.0%}, {report['other_cores']:.2f}",
        f"{sum(report['check']['differences'].values())} of {report['check']['records']:,}",
        _besides(report),
    )


def _latency(name: str, report: dict[str, Any], first: dict[str, Any]) -> str:
    here, there = report["latency_ms"][name], first["latency_ms"][name]
    return f"{here['p50']} / {_against(here['p99'], there['p99'], ' ms')}"


def _against(value: float, first: float, unit: str = "") -> str:
    shown = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{shown}{unit} ({value / first:.2f})"


def _record_bytes(report: dict[str, Any]) -> float:
    size: float = report["output_mb"] * 1e6 / report["check"]["records"]
    return size


def _besides(report: dict[str, Any]) -> str:
    """Return what only some variants measure."""
    if asked := report.get("http_ms"):
        return f"answers p50 / p99 {asked['p50']:.1f} / {asked['p99']:.1f} ms"
    if "stampede_s" in report:
        starts = report["latency_ms"]["SessionActive of the stampede"]
        over = report["usual_again_s"]
        return (
            f"{starts['count']:,} starts in {report['stampede_s']:.1f} s: p50 / p99 "
            f"{starts['p50']:,} / {starts['p99']:,} ms, "
            + ("not as usual again" if over is None else f"as usual again after {over} s")
        )
    return ""


def run(name: str, scale: float, seconds: float, out: Path) -> int:
    """Run one variant; return its exit code."""
    print(f"{name}:", flush=True)
    asked = ("--scale", str(scale), "--seconds", str(seconds), "--out", str(out), "--name", name)
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.bench", *asked, *ROWS[name].split()], check=False
    ).returncode


def main() -> int:
    """Run variants, and print the table of every variant that has a report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="VARIANT", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--scale", type=float, default=0.1, help="share of the headline load")
    parser.add_argument("--seconds", type=float, default=20, help="length of each steady phase")
    parser.add_argument("--out", type=Path, default=Path("bench-out/rows"))
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - ROWS.keys():
        parser.error(f"no variant {', '.join(sorted(unknown))}: choose from {', '.join(ROWS)}")
    codes = [
        run(name, arguments.scale, arguments.seconds, arguments.out)
        for name in arguments.names or ROWS
    ]
    paths = {name: arguments.out / f"{name}.json" for name in ROWS}
    reports = {n: json.loads(path.read_text()) for n, path in paths.items() if path.exists()}
    if reports:
        print(table(reports), end="")
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
