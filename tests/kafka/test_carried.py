"""Fields of the events in the records of their sessions, on a real Kafka and through kills."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import UNSET

from tests.support import traffic
from tests.support.carrying_topics import CarryingTopics, carrying_facts
from tests.support.traffic import catch_up, check, start, start_under_load, stop, wait_for_more

KILLS = 4
QUIET = range(1_000_000, 1_001_000)  # sessions that no other event names


@pytest.fixture
def carrying(address: str, tmp_path: Path) -> Iterator[CarryingTopics]:
    """Return topics with a table each."""
    made = CarryingTopics(address, tmp_path, f"carried-{time.time_ns()}")
    made.describe()
    yield made
    made.end()


@pytest.mark.timeout(600)
def test_kills_under_load_change_nothing_of_what_sessions_carry(
    carrying: CarryingTopics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 at random moments: what was sent is found again, and what is left has its context."""
    monkeypatch.setattr(traffic, "facts", carrying_facts)
    moments = random.Random(KILLS)
    # Key groups are written whole so often that sessions come back from there as well.
    carrying.variables["HEARTWHEEL_SNAPSHOT_MS"] = "30"
    for number in QUIET:
        carrying.send("Start", f"p{number}", f"s{number}")
    flow, load = start_under_load(carrying, 2_000, rate=500)
    for _ in range(KILLS):
        wait_for_more(carrying, 1_000)
        time.sleep(moments.uniform(0, 3))
        flow.kill()
        flow.wait()
        flow = start(carrying)
    through_ms = catch_up(carrying, load)
    stop(carrying, flow)
    found = check(carrying, through_ms)
    assert found.sessions > 2_000 + len(QUIET)
    assert all(event.context is not UNSET for event in carrying.events())
