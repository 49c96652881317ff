"""Fixtures for all tests: a real Kafka, and what to do where there is none."""

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.support.broker import Broker, BrokerUnavailableError
from tests.support.cluster import Cluster

_numbers = count()


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Start a real Kafka; without Java or Maven fail in CI, and skip with a word elsewhere."""
    try:
        kafka = Broker(tmp_path_factory.mktemp("kafka"))
    except BrokerUnavailableError as error:
        if os.environ.get("CI"):
            pytest.fail(f"no Kafka: {error}")
        pytest.skip(f"not run, as there is no Kafka: {error}")
    kafka.start()
    yield kafka
    kafka.stop()


@pytest.fixture(scope="session")
def address(request: pytest.FixtureRequest) -> str:
    """Return the address of a Kafka: KAFKA_ADDRESS, or one that is started here."""
    given = os.environ.get("KAFKA_ADDRESS")
    if given:
        return given
    kafka: Broker = request.getfixturevalue("broker")
    return kafka.address


@pytest.fixture
def cluster(address: str, tmp_path: Path) -> Iterator[Cluster]:
    """Return topics, settings and processes of a test's own."""
    own = Cluster(address, tmp_path, f"t{os.getpid()}-{next(_numbers)}")
    yield own
    own.end()
