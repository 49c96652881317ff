"""The picture of a benchmark: latency over time of both kinds, and the cores beside it."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

COLOURS = {"SessionActive": "#2a6fbb", "Heartbeat": "#c2571a"}


def draw(report: dict[str, Any], path: Path) -> None:
    """Write the picture of a report as PNG."""
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(11, 4), width_ratios=(3, 1.6), layout="constrained"
    )
    for name, colour in COLOURS.items():
        points = report["series"].get(name, [])
        seconds = [point[0] for point in points]
        left.plot(seconds, [p[2] for p in points], color=colour, label=f"{name} p99")
        left.plot(seconds, [p[1] for p in points], color=colour, ls=":", label=f"{name} p50")
    left.set(xlabel="seconds", ylabel="ms, Kafka to Kafka", title="Latency", ylim=(0, None))
    left.legend(frameon=False, ncols=2)
    for name in report["cores"]:
        right.plot([sample[name] for sample in report["core_series"]], label=name)
    right.set(xlabel="seconds", title="Cores", ylim=(0, None))
    right.legend(frameon=False)
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"{report['sessions']:,} sessions, {report['events_per_s']:,} events/s in, "
        f"{report['heartbeats_per_s']:,} heartbeats/s out"
    )
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
