"""The last minutes of rates, levels and percentiles, sampled from the metrics once a second."""

from collections import defaultdict, deque
from typing import Any

from msgspec import Struct, structs
from prometheus_client import REGISTRY, CollectorRegistry

KEPT_S = 900
# What a percentile is taken over, and a rate of now.
WINDOW_S = 5
EVENT_LATENCY = "heartwheel_event_latency_seconds_bucket"
HEARTBEAT_LATENESS = "heartwheel_heartbeat_lateness_seconds_bucket"
SNAPSHOT_DURATION = "heartwheel_snapshot_duration_seconds_bucket"
# Names of samples, as they are in what is scraped.
SAMPLES = (
    "heartwheel_active_sessions",
    "heartwheel_events_total",
    "heartwheel_outcomes_total",
    "heartwheel_dead_letters_total",
    "heartwheel_heartbeats_total",
    "heartwheel_clock_lag_seconds",
    "heartwheel_consumer_lag_records",
    "heartwheel_snapshot_age_seconds",
    "heartwheel_snapshot_bytes_total",
    "heartwheel_sink_queue_records",
    "heartwheel_reconciled_records_total",
    "heartwheel_store_keys",
    "heartwheel_store_bytes",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    EVENT_LATENCY,
    HEARTBEAT_LATENESS,
    SNAPSHOT_DURATION,
)

# Sample name -> label values -> value.
Reading = dict[str, dict[tuple[str, ...], float]]


class Point(Struct, frozen=True, gc=False):
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

        def rate(name: str, *labels: str) -> float:
            passed_s = (now_ms - before_ms) / 1000
            return max(0.0, total(reading, name, *labels) - total(before, name, *labels)) / passed_s

        self.points.append(
            Point(
                now_ms,
                total(reading, "heartwheel_active_sessions"),
                rate("heartwheel_events_total", "GameStart"),
                rate("heartwheel_events_total", "GameEnd"),
                rate("heartwheel_heartbeats_total"),
                rate("heartwheel_dead_letters_total"),
                max(reading["heartwheel_clock_lag_seconds"].values(), default=0.0),
                total(reading, "heartwheel_consumer_lag_records"),
                rate("process_cpu_seconds_total"),
                total(reading, "process_resident_memory_bytes"),
                self.percentile(EVENT_LATENCY, 0.5),
                self.percentile(EVENT_LATENCY, 0.99),
                self.percentile(HEARTBEAT_LATENESS, 0.5),
                self.percentile(HEARTBEAT_LATENESS, 0.99),
            )
        )

    def percentile(self, name: str, share: float) -> float | None:
        """Return a percentile of a histogram's last WINDOW_S in its unit; None of nothing.

        As with PromQL's histogram_quantile, values are taken to be spread evenly in a bucket.
        """
        if not self._readings:
            return None
        first, last = self._readings[0][1][name], self._readings[-1][1][name]
        counts = [
            (float(labels[0]), count - first.get(labels, 0.0)) for labels, count in last.items()
        ]
        return quantile(sorted(counts), share)

    def columns(self, after_ms: float) -> dict[str, list[Any]]:
        """Return the points after a moment, as a list for each of their names."""
        points = [point for point in self.points if point.time_ms > after_ms]
        return {
            field.name: [getattr(point, field.name) for point in points]
            for field in structs.fields(Point)
        }


def read(registry: CollectorRegistry) -> Reading:
    """Return the samples that are of use here."""
    reading: defaultdict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
    for family in registry.restricted_registry(SAMPLES).collect():
        for sample in family.samples:
            reading[sample.name][tuple(sample.labels.values())] = sample.value
    return reading


def total(reading: Reading, name: str, *labels: str) -> float:
    """Return the sum of a metric over its labels, or the value at these labels."""
    values = reading[name]
    return values.get(labels, 0.0) if labels else sum(values.values())


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
