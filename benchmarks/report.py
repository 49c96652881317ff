"""Latencies by type, in all and by second, from what the output topic says."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from msgspec import Struct, field

from benchmarks.load import HOT, STAMPEDE, device_name
from session_logic.events import OutputEvent, SessionActive, SessionEnd

Histogram = Counter[int]
# Starts of a stampede are counted apart. Ids of devices are ordered as their numbers are.
STARTS, STAMPEDING = "SessionActive", "SessionActive of the stampede"
FIRST_STAMPEDING = device_name(STAMPEDE)
# So is a device that starts and ends sessions all the while.
HOT_NAME = device_name(HOT)
CALM_S = 3  # so many seconds as usual are the end of a disturbance


class Latency(Struct):
    """Latencies in ms by type, in all and by second of the window."""

    total: defaultdict[str, Histogram] = field(default_factory=lambda: defaultdict(Counter))
    by_second: defaultdict[tuple[str, int], Histogram] = field(
        default_factory=lambda: defaultdict(Counter)
    )
    stampeded_ms: Histogram = field(default_factory=Counter)  # when Kafka had each start of one
    records: int = 0

    def measured(
        self, records: Iterable[tuple[int, OutputEvent]], window_ms: tuple[int, int]
    ) -> Iterator[OutputEvent]:
        """Yield events with a timestamp as they are, and measure those that are due in a window."""
        begin_ms, end_ms = window_ms
        for written_ms, event in records:
            if begin_ms <= event.time_ms < end_ms:
                self.records += 1
                second = (event.time_ms - begin_ms) // 1000
                name = _name(event)
                self._add(name, second, written_ms - event.time_ms)
                if name == STAMPEDING:
                    self.stampeded_ms[event.time_ms - begin_ms] += 1
                elif name == STARTS:
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

    def stampede(self) -> dict[str, object]:
        """Return how fast the starts of a stampede came, and how long it was to be felt."""
        if not self.stampeded_ms:
            return {}
        first_ms, last_ms = min(self.stampeded_ms), max(self.stampeded_ms)
        count = self.stampeded_ms.total()
        return {
            "stampede_s": round((last_ms - first_ms) / 1000, 2),
            "stampede_per_s": round(count * 1000 / max(1, last_ms - first_ms)),
            "usual_again_s": usual_again_s(self._p99_by_second(), first_ms // 1000),
        }

    def _p99_by_second(self) -> dict[int, int]:
        """Return the p99 of each second, of starts and heartbeats together."""
        both: defaultdict[int, Histogram] = defaultdict(Counter)
        for (name, second), histogram in self.by_second.items():
            if name in (STARTS, STAMPEDING, "Heartbeat"):
                both[second].update(histogram)
        return {second: percentile(both[second], 0.99) for second in sorted(both)}

    def series(self) -> dict[str, list[tuple[int, int, int]]]:
        """Return (second, p50, p99) of each type."""
        series: dict[str, list[tuple[int, int, int]]] = {}
        for (name, second), histogram in sorted(self.by_second.items()):
            point = (second, percentile(histogram, 0.5), percentile(histogram, 0.99))
            series.setdefault(name, []).append(point)
        return series


def usual_again_s(p99_ms: dict[int, int], begin: int) -> int | None:
    """Return how many seconds after its begin a disturbance was over, or None if it was not.

    That is where some seconds on end are no worse than the worst second before it.
    """
    usual_ms = max((p99 for second, p99 in p99_ms.items() if second < begin), default=0)
    for second in range(begin, max(p99_ms) - CALM_S + 2):
        if all(p99_ms.get(second + more, 0) <= usual_ms for more in range(CALM_S)):
            return second - begin
    return None


def _name(event: OutputEvent) -> str:
    if isinstance(event, SessionActive) and event.device_id >= FIRST_STAMPEDING:
        return STAMPEDING
    if event.device_id == HOT_NAME:
        return f"{type(event).__name__} of the hot device"
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
