"""The last minutes of rates, levels and percentiles, sampled from the metrics once a second."""

from collections import defaultdict, deque
from typing import Any

from msgspec import Struct, structs
from prometheus_client import REGISTRY, CollectorRegistry

from heartwheel.http.readings import Reading, Sample, Values, read, total

KEPT_S = 900
# What a percentile is taken over, and a rate of now.
WINDOW_S = 5


class Point(Struct, frozen=True, gc=False, kw_only=True):
    """One second: rates per second, levels, and percentiles of the last WINDOW_S in seconds."""

    time_ms: int
    active: float
    starts: float
    ends: float
    heartbeats: float
    dead_letters: float
    clock_lag_s: float
    consumer_lag: float
    cores: float
    memory_bytes: float
    event_p50_s: float | None
    event_p99_s: float | None
    heartbeat_p50_s: float | None
    heartbeat_p99_s: float | None


class History:
    """Points of the last KEPT_S seconds, and the last reading itself."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Begin with nothing; the first point comes with the second sample."""
        self._registry = registry
        self._readings: deque[tuple[int, Reading]] = deque(maxlen=WINDOW_S + 1)
        self.points: deque[Point] = deque(maxlen=KEPT_S)

    @property
    def last(self) -> Reading:
        """The newest reading."""
        return self._readings[-1][1] if self._readings else defaultdict(dict)

    def sample(self, now_ms: int) -> None:
        """Read the metrics and add a point; now_ms is later than that of the last call."""
        reading = read(self._registry)
        self._readings.append((now_ms, reading))
        if len(self._readings) == 1:
            return
        before_ms, before = self._readings[-2]

        def rate(name: Sample, *labels: str) -> float:
            passed_s = (now_ms - before_ms) / 1000
            return max(0.0, total(reading, name, *labels) - total(before, name, *labels)) / passed_s

        self.points.append(
            Point(
                time_ms=now_ms,
                active=total(reading, Sample.ACTIVE),
                starts=rate(Sample.EVENTS, "GameStart"),
                ends=rate(Sample.EVENTS, "GameEnd"),
                heartbeats=rate(Sample.HEARTBEATS),
                dead_letters=rate(Sample.DEAD_LETTERS),
                clock_lag_s=max(reading[Sample.CLOCK_LAG].values(), default=0.0),
                consumer_lag=total(reading, Sample.CONSUMER_LAG),
                cores=rate(Sample.CPU),
                memory_bytes=total(reading, Sample.MEMORY),
                event_p50_s=self.percentile(Sample.EVENT_LATENCY, 0.5),
                event_p99_s=self.percentile(Sample.EVENT_LATENCY, 0.99),
                heartbeat_p50_s=self.percentile(Sample.HEARTBEAT_LATENESS, 0.5),
                heartbeat_p99_s=self.percentile(Sample.HEARTBEAT_LATENESS, 0.99),
            )
        )

    def percentile(self, name: Sample, share: float) -> float | None:
        """Return a percentile of a histogram's last WINDOW_S in its unit; None of nothing."""
        if not self._readings:
            return None
        return percentile(self._readings[0][1][name], self._readings[-1][1][name], share)

    def columns(self, after_ms: float) -> dict[str, list[Any]]:
        """Return the points after a moment, as a list for each of their names."""
        points = [point for point in self.points if point.time_ms > after_ms]
        return {
            field.name: [getattr(point, field.name) for point in points]
            for field in structs.fields(Point)
        }


def percentile(first: Values, last: Values, share: float) -> float | None:
    """Return a percentile of what came into a histogram's buckets since the first reading.

    As with PromQL's histogram_quantile, values are taken to be spread evenly in a bucket.
    """
    counts = [(float(labels[0]), count - first.get(labels, 0.0)) for labels, count in last.items()]
    return quantile(sorted(counts), share)


def quantile(cumulative: list[tuple[float, float]], share: float) -> float | None:
    """Return a quantile of (upper bound, count up to it), in order; None if nothing was counted."""
    if not cumulative or cumulative[-1][1] <= 0:
        return None
    rank = share * cumulative[-1][1]
    low, below = 0.0, 0.0
    for bound, upto in cumulative:
        if upto >= rank and upto > below:
            if bound == float("inf"):
                return low  # more is not known than that it was over the last bound
            return low + (bound - low) * (rank - below) / (upto - below)
        low, below = bound, upto
    return low
