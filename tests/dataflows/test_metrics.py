"""The parts of the metrics that need no broker."""

import math
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dataflows.decode import Decode
from dataflows.lanes import lane_builder
from dataflows.messages import PartitionBatch
from dataflows.metrics import OUTCOMES, Histogram, LaneCollector, read_from
from dataflows.run_state import RunState
from dataflows.settings import Settings
from session_logic import journal
from session_logic.counts import MAX_FOUND, OTHER
from session_logic.events import Fact
from session_logic.keys import key_group_of, lane_of
from session_logic.lane import Lane
from tests.support.clocks import FixedClock
from tests.support.lanes import DEVICES, LANE, LANES, RULES, T, give, resumed, start, stored


def scraped(name: str) -> dict[tuple[str, ...], float]:
    """Return the values of a sample by label values, in the order of the labels' names."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(generate_latest().decode())
        for sample in family.samples
        if sample.name == name
    }


@pytest.fixture
def histogram() -> Iterator[Histogram]:
    """Return a histogram that is gone after the test."""
    made = Histogram("test_seconds", "A test.")
    yield made
    REGISTRY.unregister(made)


def test_many_observations_at_once_fall_into_the_buckets_of_one_by_one(
    histogram: Histogram,
) -> None:
    """A bound belongs to its bucket; what is later than all is in the last one."""
    moments = [(99_999, 3), (99_998, 1), (99_965, 4), (80_000, 2), (100_001, 1)]
    histogram.observe_since(moments, 100_000)
    histogram.observe(0.002, 5)
    counts = scraped("test_seconds_bucket")
    assert counts["0.001",] == 4
    assert counts["0.002",] == 10
    assert counts["0.02",] == 10
    assert counts["0.035",] == 14
    assert counts["10.0",] == 14
    assert counts["+Inf",] == scraped("test_seconds_count")[()] == 16
    total_s = (3 * 1 + 2 + 4 * 35 + 2 * 20_000 - 1) / 1000 + 5 * 0.002
    assert scraped("test_seconds_sum")[()] == pytest.approx(total_s)


def test_gauge_has_no_value_once_what_it_is_read_from_is_gone() -> None:
    """A run that is over is not kept in memory for its metrics."""

    class Part:
        def seven(self) -> int:
            return 7

    gauge, part = Gauge("test_part", "A test.", registry=None), Part()
    read_from(gauge, part.seven)
    assert [sample.value for metric in gauge.collect() for sample in metric.samples] == [7]
    del part
    (value,) = [sample.value for metric in gauge.collect() for sample in metric.samples]
    assert math.isnan(value)


@pytest.fixture
def run() -> Iterator[RunState]:
    """Return the state of a run, whose lanes are collected during the test."""
    made = RunState()
    collector = LaneCollector(made)
    REGISTRY.register(collector)
    yield made
    REGISTRY.unregister(collector)


def test_lane_counts_nothing_twice_while_it_is_restored(
    run: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows still missing are shown; what the journal repeats has been counted before."""
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 1)
    store = stored(20)
    lane = resumed(store)
    run.lanes[LANE] = lane
    rows = list(store.rows.values())
    missing = scraped("heartwheel_restore_rows_missing")[str(LANE),]
    assert missing == len(lane.missing_rows()) > 5
    give(lane, rows[:-1])
    give(lane, rows[-1:])
    assert scraped("heartwheel_restore_rows_missing")[str(LANE),] == 0
    assert scraped("heartwheel_active_sessions")[str(LANE), "pc"] == lane.table.active > 5
    assert scraped("heartwheel_outcomes_total") == scraped("heartwheel_events_total") == {}
    lane.apply([start(0)], T + RULES.heartbeat_ms)
    assert scraped("heartwheel_events_total")["pc", "GameStart"] == 1


def test_timestamps_ahead_of_the_clock_are_counted_by_how_far() -> None:
    """Those that are rejected for it, too; what is not ahead is not there."""
    before = scraped("heartwheel_timestamp_lead_seconds_bucket")
    decode = Decode(1, 60_000, RunState(FixedClock(T)))
    value = b'{"type":"GameStart","device_id":"d","session_id":"s"}'
    leads_ms = [-5, 0, 1, 1_000, 61_000, 90_000_000]
    messages = [(n, T + ms, b"d", value, True) for n, ms in enumerate(leads_ms)]
    items = decode([PartitionBatch("t", 0, "pc", messages, None)])
    assert len(items) == 2 + 1  # dead letters, and what a lane gets
    after = scraped("heartwheel_timestamp_lead_seconds_bucket")
    counts = {bound: after[bound] - before[bound] for bound in after}
    assert (counts["0.1",], counts["1.0",], counts["60.0",]) == (1, 2, 2)
    assert (counts["120.0",], counts["86400.0",], counts["+Inf",]) == (3, 3, 4)


def test_hot_devices_are_named_and_only_the_worst(run: RunState) -> None:
    """Five labels at most, whatever the devices are called."""
    lane = Lane(LANE, LANES, RULES)
    run.lanes[LANE] = lane
    names = [*DEVICES[:6], 'd"\n\x00\\']
    for number, device in enumerate(names):
        for _ in range(number + 1):
            lane.table.crowded.note(device)
    shown = scraped("heartwheel_hot_device_sessions_total")
    assert len(shown) == 5
    assert sorted(shown.values()) == [3, 4, 5, 6, 7]
    assert all(label.isprintable() for (label,) in shown)
    assert shown[DEVICES[5],] == 6


def test_outcomes_of_a_platform_are_there_before_its_first_event(run: RunState) -> None:
    """So that the first event is an increase; one that events bring comes with them."""
    lane_builder(Settings(lanes=1, input_topics={"in": "console"}), run)
    assert set(scraped("heartwheel_outcomes_total")) == {(name, "console") for name in OUTCOMES}
    assert set(scraped("heartwheel_events_total").values()) == {0}
    lane = run.lanes[0] = Lane(0, 1, RULES, platforms=run.platforms)
    lane.apply([Fact(True, "d", "s", "vr", T)], T)
    assert scraped("heartwheel_outcomes_total")["started", "vr"] == 1
    assert scraped("heartwheel_events_total")["console", "GameStart"] == 0


def test_events_are_summed_over_lanes_and_have_few_platforms_that_can_be_shown(
    run: RunState,
) -> None:
    """Whatever a field has for a platform: two that look alike are one, the many are `other`."""
    devices = {lane_of(key_group_of(f"d{n}"), 2): f"d{n}" for n in range(20)}
    names = ["a\n", "a\\n", "\x1b[2J", *map(str, range(500))]
    for number in range(2):
        lane = run.lanes[number] = Lane(number, 2, RULES, platforms=run.platforms)
        for name in names:
            lane.apply([Fact(True, devices[number], name, name, T)], T)
    events = scraped("heartwheel_events_total")
    assert sum(events.values()) == 2 * len(names)
    assert events[r"a\n", "GameStart"] == 4
    assert events[OTHER, "GameStart"] == 2 * (len(names) - MAX_FOUND)
    platforms = {platform for platform, _ in events}
    assert len(platforms) == MAX_FOUND
    assert all(platform.isprintable() for platform in platforms)
    active = scraped("heartwheel_active_sessions")
    assert sum(active.values()) == 2
    assert {platform for _, platform in active} == platforms


def test_silence_counts_from_the_newest_record_of_a_topic(run: RunState) -> None:
    """Read when it is asked for, so it grows while nothing turns; a topic need have no platform."""
    run.elapsed_ms = lambda: 100_000
    run.heard_ms = {("console-events", "console"): 99_500, ("mapped", ""): 40_000}
    assert scraped("heartwheel_input_silence_seconds") == {
        ("console", "console-events"): 0.5,
        ("", "mapped"): 60,
    }
