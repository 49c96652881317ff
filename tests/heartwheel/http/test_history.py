"""The last minutes of a process: rates, levels and percentiles."""

from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client import Histogram as ClientHistogram

from heartwheel.http.history import WINDOW_S, History, quantile
from tests.support.clocks import T


def history(change: Callable[[int, dict[str, object]], None], samples: int) -> History:
    """Return a history of metrics that change before each sample, a second apart."""
    registry = CollectorRegistry()
    metrics = {
        "events": Counter("heartwheel_events", "", ["type", "platform"], registry=registry),
        "active": Gauge("heartwheel_active_sessions", "", ["lane", "platform"], registry=registry),
        "latency": ClientHistogram(
            "heartwheel_event_latency_seconds", "", registry=registry, buckets=(0.01, 0.02, 1.0)
        ),
    }
    made = History(registry)
    for number in range(samples):
        change(number, metrics)
        made.sample(T + number * 1_000)
    return made


def test_history_has_rates_levels_and_percentiles_of_the_last_seconds() -> None:
    """A rate is of one second, a level is summed over lanes, a percentile forgets."""

    def change(number: int, metrics: dict[str, object]) -> None:
        for platform in ("console", "pc"):
            metrics["events"].labels("GameStart", platform).inc(number * 5)
        for lane in "01":
            metrics["active"].labels(lane, "pc").set(number)
        if number == 1:
            for _ in range(100):
                metrics["latency"].observe(0.015)

    made = history(change, WINDOW_S + 3)
    columns = made.columns(0)
    assert columns["time_ms"] == [T + n * 1_000 for n in range(1, WINDOW_S + 3)]
    assert columns["starts"] == [n * 10.0 for n in range(1, WINDOW_S + 3)]
    assert columns["ends"] == [0.0] * (WINDOW_S + 2)
    assert columns["active"] == [n * 2.0 for n in range(1, WINDOW_S + 3)]
    assert columns["event_p50_s"][0] == pytest.approx(0.015)
    assert columns["event_p99_s"][WINDOW_S - 1] == pytest.approx(0.0199)
    assert columns["event_p99_s"][WINDOW_S] is None
    assert made.columns(T + 6_000)["time_ms"] == [T + n * 1_000 for n in (7,)]


def test_counter_that_begins_again_gives_no_negative_rate() -> None:
    """Lanes that are restored count from nothing."""
    made = history(lambda _n, metrics: metrics["events"].clear(), 1)
    made._readings[0][1]["heartwheel_events_total"]["GameEnd", "pc"] = 50.0
    made.sample(T + 1_000)
    assert made.columns(0)["ends"] == [0.0]


@pytest.mark.parametrize(
    ("cumulative", "share", "value"),
    [
        ([], 0.5, None),
        ([(0.01, 0), (float("inf"), 0)], 0.5, None),
        ([(0.01, 10), (float("inf"), 10)], 0.5, 0.005),
        ([(0.01, 0), (0.02, 10), (float("inf"), 10)], 0.5, 0.015),
        ([(0.01, 50), (0.02, 50), (0.05, 100), (float("inf"), 100)], 0.5, 0.01),
        ([(0.01, 50), (0.02, 50), (0.05, 100), (float("inf"), 100)], 0.99, 0.0494),
        ([(0.01, 0), (float("inf"), 5)], 0.5, 0.01),
    ],
)
def test_quantile_is_that_of_promql(
    cumulative: list[tuple[float, float]], share: float, value: float | None
) -> None:
    """Spread evenly in its bucket; the last bound for what is over it."""
    assert quantile(cumulative, share) == (None if value is None else pytest.approx(value))
