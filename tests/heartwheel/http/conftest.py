"""Fixtures for all tests of the HTTP server: the lanes of a process, and servers of its own."""

from collections.abc import Iterator

import pytest

from dataflows.metrics import LANES
from session_logic.clock import PartitionProgress
from session_logic.lane import Lane
from tests.support.serving import SETTINGS, TOKEN, Client


@pytest.fixture(autouse=True)
def lanes() -> Iterator[list[Lane]]:
    """Return the lanes of a process, which have heard that all input is read."""
    made = [Lane(number, 2, SETTINGS.rules()) for number in range(2)]
    for lane in made:
        lane.hear(PartitionProgress("t/0", 1, None))
    LANES.running.clear()
    LANES.running.update({lane.lane: lane for lane in made})
    yield made
    LANES.running.clear()


@pytest.fixture
def client() -> Iterator[Client]:
    """Return a server without a token."""
    made = Client()
    yield made
    made.server.should_exit = True


@pytest.fixture
def guarded() -> Iterator[Client]:
    """Return a server with a token."""
    made = Client(TOKEN)
    yield made
    made.server.should_exit = True
