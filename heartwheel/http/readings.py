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
    TIMESTAMPS = "heartwheel_timestamps_total"
    CLOCK_LAG = "heartwheel_clock_lag_seconds"
    CONSUMER_LAG = "heartwheel_consumer_lag_records"
    INPUT_SILENCE = "heartwheel_input_silence_seconds"
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


# Label values -> value.
Values = dict[tuple[str, ...], float]
# Sample name -> values.
Reading = dict[str, Values]


def read(registry: CollectorRegistry) -> Reading:
    """Return the samples that are of use here."""
    reading: defaultdict[str, Values] = defaultdict(dict)
    for family in registry.restricted_registry(list(Sample)).collect():
        for sample in family.samples:
            reading[sample.name][tuple(sample.labels.values())] = sample.value
    return reading


def total(reading: Reading, name: Sample, *labels: str) -> float:
    """Return the sum of a metric over its labels, but for the first ones if they are given."""
    values = reading[name]
    return sum(value for found, value in values.items() if found[: len(labels)] == labels)
