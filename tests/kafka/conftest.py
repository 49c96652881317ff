"""A Kafka behind a proxy, for tests of what a network does."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.missing import KAFKA, MAVEN, require
from tests.support.proxy import ProxiedBroker
from tests.support.registry import FOLDER, RealRegistry

_numbers = count()


@pytest.fixture(scope="session")
def far_broker(
    kafka_libs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProxiedBroker]:
    """Start a Kafka with a proxy in front of it."""
    assert kafka_libs.exists()
    kafka = ProxiedBroker(tmp_path_factory.mktemp("proxied"))
    kafka.start()
    yield kafka
    kafka.proxy.close()
    kafka.stop()


@pytest.fixture
def proxied(far_broker: ProxiedBroker) -> Iterator[ProxiedBroker]:
    """Return a Kafka behind a proxy that a test may kill; it works again for the next test."""
    yield far_broker
    far_broker.resume()


@pytest.fixture
def far_cluster(proxied: ProxiedBroker, tmp_path: Path) -> Iterator[Cluster]:
    """Return topics; runs reach them through the proxy, and the test does directly."""
    own = Cluster(proxied.address, tmp_path, f"p{next(_numbers)}")
    own.variables["HEARTWHEEL_BOOTSTRAP_SERVERS"] = proxied.proxy.address
    yield own
    own.end()


@pytest.fixture(scope="session")
def started_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    """Start a real schema registry."""
    require(KAFKA)  # the same Java
    if not FOLDER.exists():
        require(MAVEN)
    registry = RealRegistry(tmp_path_factory.mktemp("registry"))
    try:
        registry.start()
        yield registry
    finally:
        registry.kill()


@pytest.fixture
def registry(started_registry: RealRegistry) -> Iterator[RealRegistry]:
    """Return a registry that a test may kill; it works again for the next test."""
    yield started_registry
    started_registry.resume()
