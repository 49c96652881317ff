"""The programs of examples/ on the output of a real run, one of them with a real PostgreSQL."""

import json
import subprocess
import sys
import time

import pytest

from dataflows.settings_sources import environment
from tests.support.broker import ROOT, create_topics
from tests.support.cluster import Cluster
from tests.support.missing import POSTGRES, require
from tests.support.pages import Page
from tests.support.postgres import Postgres, program

TABLE = """
[inputs.{topic}]
platform = "pc"
type = "kind"
start = "on"
end = "off"
device = "device"
session = "session"
time = "at"
time_unit = "ms"
carry = {{account = "account", title = "title"}}
"""
HOUR_MS, MINUTE_MS = 3_600_000, 60_000


def run(name: str, arguments: tuple[str, ...], address: str) -> subprocess.CompletedProcess[str]:
    """Run an example to its end on the broker at an address."""
    return subprocess.run(
        [sys.executable, f"examples/{name}.py", *arguments],
        env=environment() | {"HEARTWHEEL_BOOTSTRAP_SERVERS": address},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def example(cluster: Cluster, name: str, *arguments: str) -> list[str]:
    """Run an example; return the lines that it prints."""
    done = run(name, arguments, cluster.address)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def failed(name: str, *arguments: str, address: str) -> str:
    """Run an example that must fail; return its one line."""
    done = run(name, arguments, address)
    assert done.returncode == 1, done
    (line,) = done.stderr.splitlines()
    return line


@pytest.fixture
def played(cluster: Cluster) -> int:
    """Return the full minute at which sessions began: two that have ended, and two that go on."""
    summaries, table = f"{cluster.output}-summaries", f"{cluster.output}-table"
    create_topics(cluster.admin, {summaries: 4})
    create_topics(cluster.admin, {table: 4}, **{"cleanup.policy": "compact"})
    config = cluster.folder / "heartwheel.toml"
    config.write_text(TABLE.format(topic=cluster.pc))
    cluster.start(
        HEARTWHEEL_INPUT_TOPICS=f"{cluster.console}=console",
        HEARTWHEEL_CONFIG=str(config),
        HEARTWHEEL_SUMMARY_TOPIC=summaries,
        HEARTWHEEL_TABLE_TOPIC=table,
        HEARTWHEEL_HEARTBEAT_MS="60000",
    )
    begun_ms = int(time.time() * 1000) // MINUTE_MS * MINUTE_MS - 2 * HOUR_MS
    cluster.variables |= {"summaries": summaries, "table": table}
    for kind, device, account, title, after_ms in (
        ("on", "d1", "ann", "Astro", 0),
        ("on", "d2", "ben", "Astro", 1),
        ("on", "d3", "ann", "Chess", 2),
        ("off", "d1", "ann", "Astro", HOUR_MS),
        ("on", "d1", "cat", "Chess", HOUR_MS + MINUTE_MS),
        ("off", "d2", "ben", "Astro", HOUR_MS // 2 + 1),
    ):
        event = {"kind": kind, "device": device, "session": f"{device}-{account}",
                 "account": account, "title": title, "at": begun_ms + after_ms}  # fmt: skip
        cluster.send_raw(json.dumps(event).encode(), device)
        cluster.flush()
    cluster.wait("the summaries", lambda: len(cluster.read(summaries)) == 2)
    cluster.wait("the last start", lambda: "d1-cat" in cluster.sessions())
    return begun_ms


def test_examples_say_what_was_played(cluster: Cluster, played: int) -> None:
    """Hours by title from summaries, who plays now from the table, players by minute."""
    summaries, table = cluster.variables["summaries"], cluster.variables["table"]
    assert [line.split() for line in example(cluster, "hours_played", summaries)] == [
        ["title", "platform", "sessions", "hours"],
        ["Astro", "pc", "2", "1.50"],
    ]
    (now,) = example(cluster, "now_playing", "ann", table)
    assert now.startswith("ann plays Chess on d3 (pc) since ")
    assert example(cluster, "now_playing", "ben", table) == ["ben is not playing"]
    minutes = [line[6:] for line in example(cluster, "players_by_minute", cluster.output)]
    assert minutes == [
        "Astro 2  Chess 1",
        "Astro 1  Chess 1",
        "Astro 0  Chess 1",
        "Astro 0  Chess 2",
    ]
    lines = example(cluster, "latency", cluster.output)
    assert {line.split()[0] for line in lines[1:]} >= {"SessionActive", "SessionEnd"}
    assert time.time() * 1000 - played > 2 * HOUR_MS


def test_active_sessions_are_upserted_into_postgres(cluster: Cluster, played: int) -> None:
    """Twice gives the same rows; a session that ends is deleted."""
    require(POSTGRES)
    server, table = Postgres(), cluster.variables["table"]
    query = "SELECT device_id, session_id, context->>'title' FROM active_sessions ORDER BY 1"

    def rows() -> list[str]:
        asked = [program("psql"), server.address, "-Atc", query]
        return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.splitlines()

    try:
        for _ in range(2):
            printed = example(cluster, "active_in_postgres", server.address, table)
            assert printed == ["2 upserted, 1 deleted"]
            assert rows() == ["d1|d1-cat|Chess", "d3|d3-ann|Chess"]
        event = {"kind": "off", "device": "d3", "session": "d3-ann", "at": played + HOUR_MS}
        cluster.send_raw(json.dumps(event).encode(), "d3")
        cluster.flush()
        cluster.wait("its row", lambda: None in {r.value for r in cluster.read(table)
                                                 if r.key == b"d3"})  # fmt: skip
        assert example(cluster, "active_in_postgres", server.address, table) == [
            "1 upserted, 2 deleted"
        ]
        assert rows() == ["d1|d1-cat|Chess"]
    finally:
        server.stop()


def test_topic_is_read_to_its_end_while_it_is_written_to(cluster: Cluster) -> None:
    """Kafka tells the end of a partition again whenever more has come."""
    cluster.start(HEARTWHEEL_HEARTBEAT_MS="200")
    for number in range(200):
        cluster.send("Start", f"d{number}", f"s{number}")
    cluster.wait("heartbeats", lambda: cluster.records_out() > 1_000)
    for _ in range(3):
        (beats,) = [line.split() for line in example(cluster, "latency", cluster.output)
                    if line.startswith("Heartbeat")]  # fmt: skip
        assert int(beats[1]) > 800
    missing = failed("latency", "no-such-topic", address=cluster.address)
    assert missing.startswith("no-such-topic: ")
    assert "Unknown topic" in missing
    nobody = failed("latency", address="127.0.0.1:1")
    assert nobody.startswith("no Kafka at 127.0.0.1:1")
    assert failed("now_playing", address=cluster.address).startswith("which account?")


def test_examples_are_short_and_named_in_their_readme() -> None:
    """Each is under 60 lines."""
    text = Page(ROOT / "examples" / "README.md").text
    for path in sorted((ROOT / "examples").glob("*.py")):
        assert len(path.read_text().splitlines()) < 60, path
        assert f"`{path.name}" in text or path.stem == "topic"
