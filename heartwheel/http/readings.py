"""What the status page reads of the metrics of its own process: the samples, by their names."""

from collections import defaultdict
from enum import StrEnum

from prometheus_client import CollectorRegistry


class Sample(StrEnum):
    """The names of the samples that are read, as they are in what is scraped."""

    ACTIVE = "heartwheel_active_sessions"
    EVENTS = "heartwheel_events_total"
    OUTCOMES = "heartwheel_outcomes_total"
    DEAD_LETTERS = "heartwheel_dead_letters_total"
    HEARTBEATS = "heartwheel_heartbeats_total"
    CLOCK_LAG = "heartwheel_clock_lag_seconds"
    CONSUMER_LAG = "heartwheel_consumer_lag_records"
    SNAPSHOT_AGE = "heartwheel_snapshot_age_seconds"
    SNAPSHOT_BYTES = "heartwheel_snapshot_bytes_total"
    SNAPSHOT_DURATION = "heartwheel_snapshot_duration_seconds_bucket"
    SINK_QUEUE = "heartwheel_sink_queue_records"
    RECONCILED = "heartwheel_reconciled_records_total"
    STORE_KEYS = "heartwheel_store_keys"
    STORE_BYTES = "heartwheel_store_bytes"
    EVENT_LATENCY = "heartwheel_event_latency_seconds_bucket"
    HEARTBEAT_LATENESS = "heartwheel_heartbeat_lateness_seconds_bucket"
    MEMORY = "process_resident_memory_bytes"
    CPU = "process_cpu_seconds_total"


# Sample name -> label values -> value.
Reading = dict[str, dict[tuple[str, ...], float]]


def read(registry: CollectorRegistry) -> Reading:
    """Return the samples that are of use here."""
    reading: defaultdict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
    for family in registry.restricted_registry(list(Sample)).collect():
        for sample in family.samples:
            reading[sample.name][tuple(sample.labels.values())] = sample.value
    return reading


def total(reading: Reading, name: Sample, *labels: str) -> float:
    """Return the sum of a metric over its labels, or the value at these labels."""
    values = reading[name]
    return values.get(labels, 0.0) if labels else sum(values.values())
