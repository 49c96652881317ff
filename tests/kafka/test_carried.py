"""Fields of the events in the records of their sessions, on a real Kafka and through kills."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import UNSET

from tests.support import traffic
from tests.support.carrying_topics import CarryingTopics, carrying_facts
from tests.support.traffic import kill_under_load

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
    # Key groups are written whole so often that sessions come back from there as well.
    carrying.variables["HEARTWHEEL_SNAPSHOT_MS"] = "30"
    for number in QUIET:
        carrying.send("Start", f"p{number}", f"s{number}")
    found = kill_under_load(carrying, 2_000, rate=500, more=1_000, pause_s=3)
    assert found.sessions > 2_000 + len(QUIET)
    assert all(event.context is not UNSET for event in carrying.events())
