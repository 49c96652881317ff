"""A Kafka with authentication: the whole run through TLS, and one line where it lets nobody in."""

import signal
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from session_logic.events import SessionEnd
from tests.support.cluster import Cluster
from tests.support.command import command, one_line, python
from tests.support.secure import PASSWORD, SecureBroker

pytestmark = pytest.mark.usefixtures("kafka_libs")
_numbers = count()
WRONG_PASSWORD = "battery-horse-correct"  # noqa: S105  # of nobody
# A consumer as that of the source, with all that it logs.
DEBUG_LOG = """
import logging
from dataflows.kafka.consumer import SharedConsumer
from dataflows.run_state import RunState
from dataflows.settings_sources import load_settings
logging.basicConfig(level=logging.DEBUG)
consumer = SharedConsumer(load_settings(), RunState()).open()
for _ in range(30):
    consumer.poll(0.1)
"""


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    """Start a Kafka with listeners for SCRAM over TLS and for certificates, and with ACLs."""
    kafka = SecureBroker(tmp_path_factory.mktemp("secure"))
    kafka.start()
    yield kafka
    kafka.stop()


@pytest.fixture
def closed_cluster(secure: SecureBroker, tmp_path: Path) -> Iterator[Cluster]:
    """Return topics, made by the test's own user; no other may do anything with them yet."""
    own = Cluster(secure.address, tmp_path, f"s{next(_numbers)}", heartbeat_ms=500)
    yield own
    own.end()


def ways(secure: SecureBroker) -> dict[str, dict[str, str]]:
    """Return the settings for each way in."""
    return {"scram": secure.scram_variables(), "mtls": secure.mtls_variables()}


@pytest.mark.parametrize("way", ["scram", pytest.param("mtls", marks=pytest.mark.slow)])
def test_run_through_tls_with_the_least_rights_does_its_whole_job(
    secure: SecureBroker, closed_cluster: Cluster, way: str
) -> None:
    """Start, beat, end, dead letter, stop and resume; its secrets are in files, and not shown."""
    secure.allow_run(closed_cluster)
    variables = ways(secure)[way]
    flow = closed_cluster.start(**variables)
    closed_cluster.send("Start", "c1", "first")
    closed_cluster.send_raw(b"no json", "c2")
    closed_cluster.flush()
    closed_cluster.wait("a heartbeat", lambda: len(closed_cluster.sessions().get("first", [])) > 1)
    closed_cluster.wait("the dead letter", lambda: closed_cluster.read(closed_cluster.letters))
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(30) == 0, closed_cluster.errors(flow)
    again = closed_cluster.start(**variables)
    closed_cluster.send("End", "c1", "first")
    closed_cluster.flush()
    closed_cluster.wait(
        "the end", lambda: isinstance(closed_cluster.sessions()["first"][-1], SessionEnd)
    )
    again.send_signal(signal.SIGTERM)
    assert again.wait(30) == 0, closed_cluster.errors(again)
    for process in (flow, again):
        assert PASSWORD not in closed_cluster.errors(process)


def test_run_without_rights_is_one_line(secure: SecureBroker, closed_cluster: Cluster) -> None:
    """Kafka hides topics from those who may not see them."""
    flow = closed_cluster.start(**secure.scram_variables())
    assert flow.wait(40) == 2
    (line,) = closed_cluster.errors(flow).splitlines()
    assert closed_cluster.console in line


@pytest.mark.parametrize(
    ("arguments", "way", "changes", "words"),
    [
        (
            ("run",),
            "scram",
            {"HEARTWHEEL_KAFKA_SASL_PASSWORD": WRONG_PASSWORD},
            ("invalid credentials", "HEARTWHEEL_KAFKA_SASL_PASSWORD"),
        ),
        (
            ("topics", "check"),
            "scram",
            {"HEARTWHEEL_KAFKA_SASL_PASSWORD": WRONG_PASSWORD},
            ("invalid credentials", "HEARTWHEEL_KAFKA_SASL_PASSWORD"),
        ),
        (
            ("run",),
            "scram",
            {"HEARTWHEEL_KAFKA_SSL_CA_LOCATION": "other-ca.pem"},
            ("certificate verify failed", "HEARTWHEEL_KAFKA_SSL_CA_LOCATION"),
        ),
        (
            ("run",),
            "mtls",
            {"HEARTWHEEL_KAFKA_SSL_CERTIFICATE_LOCATION": "", "HEARTWHEEL_KAFKA_SSL_KEY_PEM": ""},
            ("no TLS connection", "the certificate"),
        ),
        (
            ("run",),
            "scram",
            {"HEARTWHEEL_KAFKA_SASL_MECHANISMS": "PLAIN"},
            ("Unsupported SASL mechanism", "HEARTWHEEL_KAFKA_SASL_MECHANISMS"),
        ),
        (
            ("config", "check"),
            "scram",
            {"HEARTWHEEL_KAFKA_SSL_CA_LOCATION": "missing.pem"},
            ("ssl.ca.location", "missing.pem"),
        ),
        (
            ("config", "check"),
            "mtls",
            {"HEARTWHEEL_KAFKA_SSL_KEY_PEM": WRONG_PASSWORD},
            ("ssl.key.pem failed",),
        ),
    ],
)
def test_refused_connection_is_one_line_without_the_secret(
    secure: SecureBroker,
    tmp_path: Path,
    arguments: tuple[str, ...],
    way: str,
    changes: dict[str, str],
    words: tuple[str, ...],
) -> None:
    """The exit code is 2, the line says what to correct, and no secret is in it."""
    variables = ways(secure)[way] | {"HEARTWHEEL_RECOVERY_DIR": str(tmp_path)}
    for name, value in changes.items():
        variables.pop(f"{name}_FILE", None)
        variables.pop(name, None)
        if value:
            variables[name] = str(secure.folder / value) if value.endswith(".pem") else value
    done = command(*arguments, **variables)
    one_line(done, 2, *words)
    assert PASSWORD not in done.stdout + done.stderr
    assert WRONG_PASSWORD not in done.stdout + done.stderr


def test_secret_is_in_no_output_with_all_logs_and_tracebacks_on(secure: SecureBroker) -> None:
    """Neither librdkafka's debug log nor a traceback nor `config show` shows a password or key."""
    noisy = {"HEARTWHEEL_KAFKA_DEBUG": "all", "HEARTWHEEL_TRACEBACK": "1"}
    key = (secure.folder / "client.key").read_text().splitlines()[1]
    other = {"HEARTWHEEL_KAFKA_SSL_CA_LOCATION": str(secure.folder / "other-ca.pem")}
    for variables in (secure.scram_variables() | noisy, secure.mtls_variables() | noisy):
        shown = command("config", "show", **variables)
        failed = command("topics", "check", **variables | other)
        logged = python("-c", DEBUG_LOG, **variables)
        assert "***" in shown.stdout
        assert "Traceback" in failed.stderr
        assert "connected" in logged.stderr
        for done in (shown, failed, logged):
            assert PASSWORD not in done.stdout + done.stderr
            assert key not in done.stdout + done.stderr
