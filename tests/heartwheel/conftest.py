"""Fixtures of the program: the lanes of a process, and HTTP servers of its own."""

from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY

from dataflows.metrics import start_metrics
from dataflows.run_state import RunState
from session_logic.clock import PartitionProgress
from session_logic.lane import Lane
from tests.support.clocks import FixedClock
from tests.support.serving import SETTINGS, TOKEN, Client


@pytest.fixture
def run() -> RunState:
    """Return the state of a run with two lanes, which know that all input is read."""
    made = RunState(FixedClock())
    for number in range(2):
        made.lanes[number] = Lane(number, 2, SETTINGS.rules())
        made.lanes[number].update(PartitionProgress("t/0", 1, None))
    return made


@pytest.fixture
def measured(run: RunState) -> Iterator[RunState]:
    """Return the run while its lanes are in the metrics."""
    collector = start_metrics(run)
    yield run
    REGISTRY.unregister(collector)


@pytest.fixture
def client(run: RunState) -> Iterator[Client]:
    """Return a server without a token."""
    made = Client(run)
    yield made
    made.server.should_exit = True


@pytest.fixture
def client_with_token(run: RunState) -> Iterator[Client]:
    """Return a server with a token."""
    made = Client(run, TOKEN)
    yield made
    made.server.should_exit = True
