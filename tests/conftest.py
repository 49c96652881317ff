"""Fixtures for all tests: a real Kafka, and what to do where there is none."""

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.support.broker import LIBS, Broker, fetch_kafka
from tests.support.cluster import Cluster
from tests.support.missing import KAFKA, MAVEN, PREFIX, report, require

# What asks for one of them needs a real Kafka: that of KAFKA_ADDRESS, or one that is started here.
KAFKA_FIXTURES = {"address", "kafka_libs"}
_numbers = count()


def pytest_report_header() -> list[str]:
    """Say first what will be skipped, and what to install."""
    return list(report())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a real Kafka."""
    for item in items:
        if isinstance(item, pytest.Function) and KAFKA_FIXTURES & set(item.fixturenames):
            item.add_marker("kafka")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Say last how many tests were skipped because something is not installed."""
    yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if count := sum(PREFIX in str(skip.longrepr) for skip in skipped):
        reporter.write_line(f"{count} tests were skipped because something is not installed")


@pytest.fixture(scope="session")
def kafka_libs() -> Path:
    """Return the folder of Kafka's jars; without Java or Maven skip, and in CI fail."""
    require(KAFKA)
    if not LIBS.exists():
        require(MAVEN)
    return fetch_kafka()


@pytest.fixture(scope="session")
def broker(kafka_libs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Start a real Kafka."""
    assert kafka_libs.exists()
    kafka = Broker(tmp_path_factory.mktemp("kafka"))
    kafka.start()
    yield kafka
    kafka.stop()


@pytest.fixture(scope="session")
def second_broker(kafka_libs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Start a second Kafka for the tests that kill or pause one; they ask for `own_kafka`."""
    assert kafka_libs.exists()
    kafka = Broker(tmp_path_factory.mktemp("second-kafka"))
    kafka.start()
    yield kafka
    kafka.stop()


@pytest.fixture
def own_kafka(second_broker: Broker) -> Iterator[Broker]:
    """Return a Kafka that a test may kill or pause; it works again for the next test."""
    yield second_broker
    second_broker.resume()


@pytest.fixture(scope="session")
def address(request: pytest.FixtureRequest) -> str:
    """Return the address of a Kafka: KAFKA_ADDRESS, or one that is started here."""
    given = os.environ.get("KAFKA_ADDRESS")
    if given:
        return given
    kafka: Broker = request.getfixturevalue("broker")
    return kafka.address


def _topics(address: str, folder: Path) -> Iterator[Cluster]:
    made = Cluster(address, folder, f"t{os.getpid()}-{next(_numbers)}")
    yield made
    made.end()


@pytest.fixture
def cluster(address: str, tmp_path: Path) -> Iterator[Cluster]:
    """Return topics, settings and processes of a test's own."""
    yield from _topics(address, tmp_path)


@pytest.fixture
def own_cluster(own_kafka: Broker, tmp_path: Path) -> Iterator[Cluster]:
    """Return topics, settings and processes on the Kafka that may be killed."""
    yield from _topics(own_kafka.address, tmp_path)
