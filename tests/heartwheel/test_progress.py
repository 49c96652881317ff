"""The line of the log that tells how a process is doing."""

import logging
from collections import defaultdict

import pytest

from dataflows.run_state import RunState
from heartwheel.http.readings import Reading, Sample
from heartwheel.progress import progress, report_progress
from tests.support.serving import start


def reading(**values: dict[tuple[str, ...], float]) -> Reading:
    """Return what a scrape has of some samples."""
    made: Reading = defaultdict(dict)
    return made | {Sample[name]: found for name, found in values.items()}


def test_progress_is_what_has_happened_since_the_last_line() -> None:
    """Counters and percentiles of the time between, and levels of now."""
    before = reading(
        TIMESTAMPS={("in_time",): 100, ("long_past",): 0},
        HEARTBEATS={("0",): 10, ("1",): 20},
        OUTCOMES={("timed_out", "pc"): 3, ("started", "pc"): 9},
        EVENT_LATENCY={("0.01",): 1_000, ("0.02",): 1_000, ("+Inf",): 1_000},
    )
    after = reading(
        ACTIVE={("0", "pc"): 5, ("1", "console"): 6},
        TIMESTAMPS={("in_time",): 130, ("long_past",): 2},
        HEARTBEATS={("0",): 50, ("1",): 21},
        OUTCOMES={
            ("timed_out", "pc"): 4,
            ("timed_out", "console"): 1,
            ("went_silent", "pc"): 5,
            ("started", "pc"): 99,
        },
        EVENT_LATENCY={("0.01",): 1_000, ("0.02",): 1_010, ("+Inf",): 1_010},
        CLOCK_LAG={("0",): 0.002, ("1",): 7.0},
        CONSUMER_LAG={("pc-events", "0"): 3, ("pc-events", "1"): 4},
    )
    assert progress(before, after) == {
        "input_rows": 32,
        "sessions": 11,
        "timers_fired": 41 + 2 + 5,
        "event_p50_ms": 15.0,
        "event_p99_ms": 19.9,
        "heartbeat_p50_ms": None,
        "heartbeat_p99_ms": None,
        "clock_lag_s": 7.0,
        "records_to_read": 7,
        "snapshot_p99_ms": None,
    }


def test_progress_of_lanes_that_are_restored_is_never_negative() -> None:
    """Their counters begin anew."""
    found = progress(reading(HEARTBEATS={("0",): 10}), reading(HEARTBEATS={("0",): 4}))
    assert found["timers_fired"] == 0
    assert found["clock_lag_s"] is None


def test_progress_is_logged_until_the_run_is_stopped(
    measured: RunState, caplog: pytest.LogCaptureFixture
) -> None:
    """With the timers of all lanes: one for each session, and for each that is remembered."""
    caplog.set_level(logging.INFO)
    waited: list[float] = []

    def wait(seconds: float) -> bool:
        waited.append(seconds)
        if len(waited) == 2:
            start(measured, "d")
            start(measured, "d", session="next")
        return len(waited) > 2

    measured.stop.wait = wait
    report_progress(measured, 60)
    assert waited == [60, 60, 60]
    first, second = [record.msg for record in caplog.records]
    assert {first["event"], second["event"]} == {"progress"}
    assert (first["sessions"], first["timers"]) == (0, 0)
    assert (second["sessions"], second["timers"]) == (1, 2)
