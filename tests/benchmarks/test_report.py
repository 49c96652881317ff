"""Latencies that the output topic tells, and how long a stampede is to be felt."""

import pytest

from benchmarks.load import HOT, STAMPEDE, device_name
from benchmarks.report import Latency, usual_again_s
from session_logic.events import Heartbeat, OutputEvent, SessionActive

BEGIN_MS = 1_000_000


def active(device: int, time_ms: int, planned_ms: int = 0) -> SessionActive:
    session = f"{device:010x}-{planned_ms:013d}"
    return SessionActive(device_name(device), session, "pc", time_ms, time_ms)


def measured(*records: tuple[int, OutputEvent]) -> Latency:
    latency = Latency()
    assert [*latency.measured(records, (BEGIN_MS, BEGIN_MS + 10_000))] == [r[1] for r in records]
    return latency


def test_start_is_measured_from_its_input_and_from_its_plan() -> None:
    """Lateness of the load is seen beside that of the flow; what is outside the window is not."""
    latency = measured(
        (BEGIN_MS + 7, active(1, BEGIN_MS + 2, planned_ms=BEGIN_MS)),
        (BEGIN_MS + 1, active(2, BEGIN_MS - 1)),
    )
    found = {name: values["max"] for name, values in latency.percentiles().items()}
    assert found == {"SessionActive": 5, "SessionActive from plan": 7}
    assert latency.stampede() == {}


def test_hot_device_is_counted_apart() -> None:
    """It is its neighbours that it must not disturb."""
    latency = measured(
        (BEGIN_MS + 7, active(1, BEGIN_MS + 2, planned_ms=BEGIN_MS)),
        (BEGIN_MS + 900, active(HOT, BEGIN_MS, BEGIN_MS)),
    )
    found = {name: values["max"] for name, values in latency.percentiles().items()}
    assert found == {
        "SessionActive": 5,
        "SessionActive from plan": 7,
        "SessionActive of the hot device": 900,
    }


def test_stampede_is_counted_apart_with_its_true_rate() -> None:
    """Its starts have no plan, and the usual ones stay what they are."""
    first = measured(
        *((BEGIN_MS + at + 3, active(at, BEGIN_MS + at, BEGIN_MS)) for at in range(0, 9_000, 50)),
        *((BEGIN_MS + at + 9, active(STAMPEDE + at, BEGIN_MS + at)) for at in range(3_000, 4_001)),
    )
    found = {name: (v["count"], v["p99"]) for name, v in first.percentiles().items()}
    assert found["SessionActive"] == (180, 3)
    assert found["SessionActive of the stampede"] == (1_001, 9)
    said = first.stampede()
    assert said == {"stampede_s": 1.0, "stampede_per_s": 1_001, "usual_again_s": 2}


def test_late_heartbeats_are_part_of_what_a_stampede_disturbs() -> None:
    """Whoever reads the output waits for them as well."""
    latency = measured(
        (BEGIN_MS + 2, Heartbeat("device-1", "s", "pc", BEGIN_MS, BEGIN_MS, 1)),
        (BEGIN_MS + 1_001, active(STAMPEDE, BEGIN_MS + 1_000)),
        *(
            (at_ms + late_ms, Heartbeat("device-1", "s", "pc", BEGIN_MS, at_ms, 2))
            for second, late_ms in enumerate([9, 9, 2, 2, 1], 1)
            for at_ms in [BEGIN_MS + second * 1_000]
        ),
    )
    assert latency.stampede()["usual_again_s"] == 2


@pytest.mark.parametrize(
    ("p99_ms", "want"),
    [
        ([5, 9, 9, 9, 9, 9], 0),
        ([5, 9, 40, 12, 9, 9, 9], 2),
        ([5, 9, 40, 9, 9, 10, 8, 8, 8], 4),
        ([5, 9, 40, 9, 9], None),
    ],
    ids=["never worse", "worse for two seconds", "once more", "too short to tell"],
)
def test_disturbance_is_over_once_some_seconds_are_as_usual(
    p99_ms: list[int], want: int | None
) -> None:
    """The worst second before it says what is usual."""
    assert usual_again_s(dict(enumerate(p99_ms)), 2) == want
