"""What a benchmark tells of a shard that was killed."""

from benchmarks.killed_shard import told
from session_logic.events import Heartbeat, SessionActive

KILLED_MS = 10_000


def beat(due_ms: int) -> Heartbeat:
    """Return a heartbeat that was due at a moment."""
    return Heartbeat("d", "s", "pc", 0, due_ms, 1)


def test_pause_is_that_of_the_killed_shard_and_latencies_are_those_of_the_others() -> None:
    """The last of the shards is the one that was killed; what was on its way is no end of it."""
    start = SessionActive("d", "s", "pc", 9_000, 9_000)
    report = told(
        [
            (0, 9_004, start),
            (0, 9_506, beat(9_500)),
            (2, 10_507, beat(10_500)),
            (1, 9_900, beat(9_890)),
            (1, 10_002, beat(9_995)),
            (3, 12_500, beat(10_100)),
            (1, 13_000, beat(11_900)),
            (1, 13_010, beat(13_001)),
            (1, 20_500, beat(20_400)),  # after the end
        ],
        2,
        (8_000, KILLED_MS, 20_000),
    )
    assert report["first_heartbeat_s"] == 2.5
    assert report["last_late_heartbeat_s"] == 3.0
    measured = report["others_ms"]
    assert isinstance(measured, dict)
    assert measured["SessionActive"]["before"] == {"count": 1, "p50": 4, "p99": 4, "max": 4}
    assert measured["Heartbeat"]["before"] == {"count": 1, "p50": 6, "p99": 6, "max": 6}
    assert measured["Heartbeat"]["after"] == {"count": 1, "p50": 7, "p99": 7, "max": 7}
    assert measured["SessionActive"]["after"]["count"] == 0
