"""Latencies by type, in all and by second, from what the output topic says."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from msgspec import Struct, field

from session_logic.events import OutputEvent, SessionActive, SessionEnd

Histogram = Counter[int]


class Latency(Struct):
    """Latencies in ms by type, in all and by second of the window."""

    total: defaultdict[str, Histogram] = field(default_factory=lambda: defaultdict(Counter))
    by_second: defaultdict[tuple[str, int], Histogram] = field(
        default_factory=lambda: defaultdict(Counter)
    )

    def measured(
        self, records: Iterable[tuple[int, OutputEvent]], window_ms: tuple[int, int]
    ) -> Iterator[OutputEvent]:
        """Yield events with a timestamp as they are, and measure those that are due in a window."""
        begin_ms, end_ms = window_ms
        for written_ms, event in records:
            if begin_ms <= event.time_ms < end_ms:
                second = (event.time_ms - begin_ms) // 1000
                self._add(_name(event), second, written_ms - event.time_ms)
                if isinstance(event, SessionActive):
                    planned_ms = int(event.session_id[-13:])
                    self._add("SessionActive from plan", second, written_ms - planned_ms)
            yield event

    def _add(self, name: str, second: int, latency_ms: int) -> None:
        self.total[name][latency_ms] += 1
        self.by_second[name, second][latency_ms] += 1

    def percentiles(self) -> dict[str, dict[str, int]]:
        """Return the usual percentiles of each type, in ms."""
        return {
            name: {
                "count": histogram.total(),
                "p50": percentile(histogram, 0.5),
                "p99": percentile(histogram, 0.99),
                "p99.9": percentile(histogram, 0.999),
                "max": max(histogram),
            }
            for name, histogram in sorted(self.total.items())
        }

    def series(self) -> dict[str, list[tuple[int, int, int]]]:
        """Return (second, p50, p99) of each type."""
        series: dict[str, list[tuple[int, int, int]]] = {}
        for (name, second), histogram in sorted(self.by_second.items()):
            point = (second, percentile(histogram, 0.5), percentile(histogram, 0.99))
            series.setdefault(name, []).append(point)
        return series


def _name(event: OutputEvent) -> str:
    if isinstance(event, SessionEnd) and event.reason == "timed_out":
        return "TimedOut"
    return type(event).__name__


def percentile(histogram: Histogram, share: float) -> int:
    """Return the smallest latency that at least this share of the records keeps within."""
    wanted = share * histogram.total()
    counted = 0
    for latency_ms in sorted(histogram):
        counted += histogram[latency_ms]
        if counted >= wanted:
            return latency_ms
    return 0
