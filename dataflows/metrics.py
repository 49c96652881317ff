"""Every metric of a run, in prometheus_client's default registry; docs/metrics.md explains them.

Events are counted batch by batch. Levels are read from the running parts when somebody asks: plain
attributes only, so that nothing waits for a scrape and nothing is spent between scrapes. Counters
belong to the process, as Prometheus wants it; only the lanes belong to a run.
"""

import time
from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, chain
from threading import Lock
from typing import get_args
from weakref import WeakMethod

from prometheus_client import REGISTRY, Counter, Gauge, Info, disable_created_metrics
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from dataflows.memory import limit_bytes
from dataflows.run_state import RunState
from dataflows.shard import Shard
from dataflows.text import printable
from dataflows.timestamps import KINDS
from dataflows.version import program_version
from session_logic.counts import Counts as LaneCounts
from session_logic.events import RejectReason
from session_logic.output import OutputBatch

disable_created_metrics()  # type: ignore[no-untyped-call]

# Upper bounds in seconds.
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
LEAD_BUCKETS = (0.1, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0)
# What can become of an event of each type; every one has exactly one of these outcomes.
EVENT_OUTCOMES = {
    "GameStart": ("started", "duplicate_start", "late_duplicate_start", "late_start"),
    "GameEnd": ("ended", "unknown_end", "stale_end"),
    "GamePing": ("ping", "unknown_ping"),
}
# What becomes of sessions besides.
SESSION_OUTCOMES = ("replaced", "timed_out", "went_silent", "ended_early")
OUTCOMES = (*chain.from_iterable(EVENT_OUTCOMES.values()), *SESSION_OUTCOMES)
REASONS: tuple[RejectReason, ...] = get_args(RejectReason)
# So many devices have a label at a time.
MAX_HOT_DEVICES = 5
# What can be wrong with where an event is: see dataflows.placement.
MISPLACED_CAUSES = ("key", "partition")
NAN = float("nan")
ALL = Shard()  # a run that is no shard has everything


class Histogram(Collector):
    """A histogram without labels that takes in many observations of one value at once."""

    def __init__(self, name: str, documentation: str, bounds: Sequence[float] = BUCKETS) -> None:
        """Register it, with nothing observed; the bounds are the upper ones, in seconds."""
        self._name, self._documentation = name, documentation
        self._bounds = bounds
        self._bounds_ms = [bound * 1000 for bound in bounds]
        self._lock = Lock()  # worker threads share it
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        REGISTRY.register(self)

    def observe(self, seconds: float, count: int = 1) -> None:
        """Add an observation, count times."""
        with self._lock:
            self._counts[bisect_left(self._bounds, seconds)] += count
            self._sum += seconds * count

    def observe_all_ms(self, values_ms: list[int]) -> None:
        """Add an observation for each value, in milliseconds."""
        with self._lock:
            for value_ms in values_ms:
                self._counts[bisect_left(self._bounds_ms, value_ms)] += 1
            self._sum += sum(values_ms) / 1000

    def observe_since(self, moments_ms: list[tuple[int, int]], now_ms: float) -> None:
        """Add the time from each moment to now; moments_ms has (moment, how often)."""
        counts, bounds_ms, total_ms = self._counts, self._bounds_ms, 0.0
        with self._lock:
            for moment_ms, count in moments_ms:
                took_ms = now_ms - moment_ms
                counts[bisect_left(bounds_ms, took_ms)] += count
                total_ms += took_ms * count
            self._sum += total_ms / 1000

    def collect(self) -> Iterator[Metric]:
        """Return the metric as it is now."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        bounds = [*map(str, self._bounds), "+Inf"]
        buckets = list(zip(bounds, accumulate(counts), strict=True))
        yield HistogramMetricFamily(self._name, self._documentation, buckets, total)


class LaneCollector(Collector):
    """What a run and its lanes in this process know of themselves, read at each scrape."""

    def __init__(self, run: RunState) -> None:
        """Collect from the lanes that have begun; see `start_metrics` for how it is registered."""
        self._run = run

    def collect(self) -> Iterable[Metric]:
        """Return the metrics as they are now."""
        active = GaugeMetricFamily(
            "heartwheel_active_sessions", "Active sessions.", labels=["lane", "platform"]
        )
        heartbeats = CounterMetricFamily(
            "heartwheel_heartbeats", "Heartbeats that have come due.", labels=["lane"]
        )
        clock_lag = GaugeMetricFamily(
            "heartwheel_clock_lag_seconds", "Wall clock minus lane time.", labels=["lane"]
        )
        missing = GaugeMetricFamily(
            "heartwheel_restore_rows_missing",
            "Rows of the store that a lane still waits for.",
            labels=["lane"],
        )
        hot = CounterMetricFamily(
            "heartwheel_hot_device_sessions",
            "Ended sessions that were forgotten early, of the devices with the most.",
            labels=["device"],
        )
        crowded: dict[str, int] = {}
        now_ms = int(time.time() * 1000)
        total: Counts[tuple[str, str]] = Counts()
        for lane in self._run.running_lanes():
            label = [str(lane.lane)]
            for platform, count in _shown(lane.table.platforms).items():
                active.add_metric([*label, platform], count)
            # While a lane is restored, its table counts what has been counted before.
            counts = LaneCounts() if lane.restoring else lane.table.counts
            heartbeats.add_metric(label, counts.heartbeats)
            for (outcome, platform), count in counts.outcomes.copy().items():
                total[outcome, printable(platform)] += count
            if (lag_ms := lane.lag_ms(now_ms)) is not None:
                clock_lag.add_metric(label, lag_ms / 1000)
            missing.add_metric(label, len(lane.missing_rows()))
            worst = lane.table.crowded.worst(MAX_HOT_DEVICES)
            crowded |= {printable(device): count for device, count in worst}
        for device, count in Counts(crowded).most_common(MAX_HOT_DEVICES):
            hot.add_metric([device], count)
        timestamps = CounterMetricFamily(
            "heartwheel_timestamps", "Records read, by how their timestamps fit.", labels=["fit"]
        )
        for kind in KINDS:
            timestamps.add_metric([kind], self._run.timestamps.totals[kind])
        levels = (active, heartbeats, clock_lag, missing, hot, timestamps, self._silence())
        return *levels, *self._by_platform(total)

    def _by_platform(self, total: Counts[tuple[str, str]]) -> tuple[Metric, Metric]:
        """Return the events and the outcomes of all lanes, for every platform that is known."""
        events = CounterMetricFamily(
            "heartwheel_events", "Events acted on.", labels=["type", "platform"]
        )
        outcomes = CounterMetricFamily(
            "heartwheel_outcomes",
            "What has become of events and sessions.",
            labels=["outcome", "platform"],
        )
        known = map(printable, self._run.platforms.copy())
        for platform in sorted({*known, *(counted for _, counted in total)}):
            for type_, ways in EVENT_OUTCOMES.items():
                count = sum(total[outcome, platform] for outcome in ways)
                events.add_metric([type_, platform], count)
            for outcome in OUTCOMES:
                outcomes.add_metric([outcome, platform], total[outcome, platform])
        return events, outcomes

    def _silence(self) -> Metric:
        """Return for how long nothing has come of each input topic that is read here."""
        silence = GaugeMetricFamily(
            "heartwheel_input_silence_seconds",
            "Time since the newest record of an input topic came; at first since the start.",
            labels=["topic", "platform"],
        )
        now_ms = self._run.elapsed_ms()
        for (topic, platform), heard_ms in self._run.heard_ms.copy().items():
            silence.add_metric([topic, printable(platform)], (now_ms - heard_ms) / 1000)
        return silence


def _shown(platforms: dict[str, int]) -> Counts[str]:
    """Return counts by what can be shown of the platforms."""
    shown: Counts[str] = Counts()
    for platform, count in platforms.copy().items():
        shown[printable(platform)] += count
    return shown


def read_from(gauge: Gauge, method: Callable[[], float]) -> None:
    """Read a gauge off a method at each scrape, for as long as the method's object lives."""
    reference = WeakMethod(method)

    def read() -> float:
        found = reference()
        return NAN if found is None else found()

    gauge.set_function(read)


def observe_acknowledged(records: OutputBatch) -> None:
    """Observe how late records were, now that Kafka has acknowledged them."""
    now_ms = time.time() * 1000
    EVENT_LATENCY.observe_since(records.input_ms, now_ms)
    HEARTBEAT_LATENESS.observe_since(records.due_ms, now_ms)


def start_metrics(run: RunState, shard: Shard = ALL) -> LaneCollector:
    """Show the lanes of a run, and what is known of this process before anything happens.

    Returns what REGISTRY can unregister when the run is over and the process goes on.
    """
    BUILD.info({"version": program_version()})
    MEMORY_LIMIT.set(limit_bytes())
    SHARDS.labels(shard.number).set(shard.shards)
    for reason in REASONS:
        DEAD_LETTERS.labels(reason)
    for cause in MISPLACED_CAUSES:
        MISPLACED.labels(cause)
    collector = LaneCollector(run)
    REGISTRY.register(collector)
    return collector


DEAD_LETTERS = Counter("heartwheel_dead_letters", "Records sent to the dead letters.", ["reason"])
DEAD_LETTERS_DROPPED = Counter(
    "heartwheel_dropped_dead_letters",
    "Records that are no events and were not sent, because the dead-letter topic took none.",
)
PROGRESS_DROPPED = Counter(
    "heartwheel_dropped_progress_records", "Progress records that Kafka did not take in time."
)
SKIPPED = Counter(
    "heartwheel_skipped_records",
    "Records of topics with a table that are neither a start nor an end.",
    ["topic", "kind"],
)
LATE_EVENTS = Counter(
    "heartwheel_late_events",
    "Events whose field has a time too long before the record's timestamp, which was taken.",
    ["topic"],
)
MISPLACED = Counter(
    "heartwheel_misplaced_events",
    "Events whose key is not their device id, or whose device was in another partition before.",
    ["cause"],
)
SPLIT_DEVICES = Counter(
    "heartwheel_split_devices",
    "Look-ups of a device that was active in two lanes, because it comes in two input partitions.",
)
TIMESTAMP_LEAD = Histogram(
    "heartwheel_timestamp_lead_seconds",
    "How far ahead of the clock the timestamps of events were that were ahead of it.",
    LEAD_BUCKETS,
)
RECONCILED = Counter(
    "heartwheel_reconciled_records", "Records found in the output topic, and not sent again."
)
EVENT_LATENCY = Histogram(
    "heartwheel_event_latency_seconds",
    "From the timestamp of an input record to the acknowledgement of an output record of it.",
)
HEARTBEAT_LATENESS = Histogram(
    "heartwheel_heartbeat_lateness_seconds",
    "From the moment when a heartbeat or timeout was due to its acknowledgement.",
)
CONSUMER_LAG = Gauge(
    "heartwheel_consumer_lag_records",
    "Records of an input partition that have not been taken in.",
    ["topic", "partition"],
)
LEADERLESS_PARTITIONS = Gauge(
    "heartwheel_leaderless_partitions",
    "Input partitions of which Kafka says that they have no leader.",
    ["topic"],
)
UNREAD_PARTITIONS = Gauge(
    "heartwheel_unread_partitions",
    "Partitions that were added to an input topic and are read from the next start on.",
    ["topic"],
)
AWAITED_SCHEMAS = Gauge(
    "heartwheel_awaited_schemas", "Schemas that records wait for, of a registry that is away."
)
REGISTRY_FAILURES = Counter(
    "heartwheel_registry_failures", "Times that the schema registry has not given an answer."
)
SINK_QUEUE = Gauge("heartwheel_sink_queue_records", "Records sent and not acknowledged yet.")
SNAPSHOT_AGE = Gauge("heartwheel_snapshot_age_seconds", "Age of the last complete snapshot.")
SNAPSHOT_DURATION = Histogram(
    "heartwheel_snapshot_duration_seconds", "From the end of an epoch until all of it is stored."
)
SNAPSHOT_BYTES = Counter("heartwheel_snapshot_bytes", "Bytes given to the recovery store.")
MERGE_DURATION = Histogram(
    "heartwheel_merge_duration_seconds", "Time that writing the base of a group took."
)
HEARTBEAT_INTERVAL = Gauge(
    "heartwheel_heartbeat_interval_seconds", "Time between heartbeats of new sessions; 0 for none."
)
STORE_KEYS = Gauge("heartwheel_store_keys", "Rows that the store holds.")
STORE_BYTES = Gauge("heartwheel_store_bytes", "Bytes in the rows that the store holds.")
HTTP_CROWDED_OUT = Counter(
    "heartwheel_http_crowded_out_connections",
    "HTTP connections that were cut because too many were open.",
)
MEMORY_LIMIT = Gauge("heartwheel_memory_limit_bytes", "Memory that this process may use.")
SHARDS = Gauge("heartwheel_shards", "Shards that there are, told by each; 1 for none.", ["shard"])
BUILD = Info("heartwheel_build", "The version that runs.")
