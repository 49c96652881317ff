"""A line in the log once in a while that tells how a process is doing, for who reads logs alone."""

from contextlib import suppress

from prometheus_client import REGISTRY

from dataflows.logs import log
from dataflows.run_state import RunState
from heartwheel.http.history import percentile
from heartwheel.http.readings import Reading, Sample, read, total
from heartwheel.progress_topic import ProgressTopic


def report_progress(run: RunState, every_s: int, topic: ProgressTopic | None = None) -> None:
    """Log how the run is doing every so many seconds, until it is stopped; send it as well."""
    before = read(REGISTRY)
    while not run.stop.wait(every_s):
        with suppress(RuntimeError):  # a lane was added while the lanes were gone through
            after = read(REGISTRY)
            timers = sum(len(lane.table.wheel) for lane in run.running_lanes())
            values = {**progress(before, after), "timers": timers}
            log.info("progress", **values)
            if topic is not None:
                topic.send(run.clock.now_ms(), values)
            before = after


def progress(before: Reading, after: Reading) -> dict[str, float | None]:
    """Return what has happened between two readings, and what there is at the second."""

    def increase(name: Sample, *labels: str) -> int:
        return round(max(0.0, total(after, name, *labels) - total(before, name, *labels)))

    def ms(name: Sample, share: float) -> float | None:
        found = percentile(before[name], after[name], share)
        return None if found is None else round(found * 1000, 1)

    return {
        "input_rows": increase(Sample.TIMESTAMPS),
        "sessions": round(total(after, Sample.ACTIVE)),
        "timers_fired": increase(Sample.HEARTBEATS)
        + increase(Sample.OUTCOMES, "timed_out")
        + increase(Sample.OUTCOMES, "went_silent"),
        "event_p50_ms": ms(Sample.EVENT_LATENCY, 0.5),
        "event_p99_ms": ms(Sample.EVENT_LATENCY, 0.99),
        "heartbeat_p50_ms": ms(Sample.HEARTBEAT_LATENESS, 0.5),
        "heartbeat_p99_ms": ms(Sample.HEARTBEAT_LATENESS, 0.99),
        "clock_lag_s": max(after[Sample.CLOCK_LAG].values(), default=None),
        "records_to_read": round(total(after, Sample.CONSUMER_LAG)),
        "snapshot_p99_ms": ms(Sample.SNAPSHOT_DURATION, 0.99),
    }
