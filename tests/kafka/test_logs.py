"""What a run says of itself."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.broker import create_topics
from tests.support.cluster import Cluster


def lines_of(cluster: Cluster, flow: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Return the log; fails where a line is no JSON."""
    return [json.loads(line) for line in cluster.errors(flow).splitlines()]


def stop(flow: subprocess.Popen[str]) -> None:
    """Stop a run cleanly."""
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(20) == 0


def test_log_of_a_run_is_json_with_its_place_in_fields(cluster: Cluster) -> None:
    """Every line of a run and of one that resumes: time, level, message, and where."""
    place = {"HEARTWHEEL_LOG_FORMAT": "auto"}
    first = cluster.start("run", "-w", "2", **place)
    for number in range(40):
        cluster.send("Start", f"c{number}", f"s{number}")
    cluster.flush()
    cluster.wait("sessions", lambda: len(cluster.sessions()) == 40)
    stop(first)
    second = cluster.start("run", "-w", "2", **place)
    cluster.wait("lanes", lambda: cluster.errors(second).count('"restored"') == 4)
    cluster.wait("a line that says so", lambda: '"running"' in cluster.errors(second))
    stop(second)
    for flow in (first, second):
        lines = lines_of(cluster, flow)
        assert all(line.keys() >= {"timestamp", "level", "logger", "message"} for line in lines)
        assert {line["process"] for line in lines} == {0}
        reading = [line for line in lines if line["message"] == "reading"]
        assert {(line["topic"], line["partition"]) for line in reading} == {
            (topic, partition) for topic in (cluster.console, cluster.pc) for partition in (0, 1)
        }
        assert {line["worker"] for line in reading} == {0, 1}
        assert [line["message"] for line in lines if "worker" not in line] == [
            "starting", "running", "stopping", "stopped"
        ]  # fmt: skip
    restored = [line for line in lines_of(cluster, second) if line["message"] == "restored"]
    assert sorted(line["lane"] for line in restored) == [0, 1, 2, 3]
    assert sum(line["sessions"] for line in restored) == 40


def test_progress_is_logged_as_often_as_the_settings_say(cluster: Cluster) -> None:
    """One line for a span of time: what was read, what is active, what fell due."""
    flow = cluster.start(HEARTWHEEL_LOG_FORMAT="json", HEARTWHEEL_PROGRESS_S="1")
    for number in range(30):
        cluster.send("Start", f"c{number}", f"s{number}")
    cluster.flush()
    cluster.wait("heartbeats", lambda: cluster.records_out() >= 30 * 4)
    stop(flow)
    lines = [line for line in lines_of(cluster, flow) if line["message"] == "progress"]
    assert sum(line["input_rows"] for line in lines) == 30
    assert sum(line["timers_fired"] for line in lines) > 30
    assert (lines[-1]["sessions"], lines[-1]["timers"]) == (30, 30)
    assert all(0 < line["snapshot_p99_ms"] < 30_000 for line in lines[2:])
    assert any(line["heartbeat_p99_ms"] is not None for line in lines)


def test_progress_is_sent_to_a_topic_as_well(cluster: Cluster) -> None:
    """Each line is a record there; a topic that is not there holds up nothing."""
    topic = f"{cluster.output}-progress"
    create_topics(cluster.admin, {topic: 1})
    variables = {"HEARTWHEEL_LOG_FORMAT": "json", "HEARTWHEEL_PROGRESS_S": "1"}
    flow = cluster.start("run", "--progress-topic", topic, **variables)
    cluster.send("Start", "c1", "s1")
    cluster.flush()
    cluster.wait("records", lambda: len(cluster.read(topic)) > 2)
    stop(flow)
    sent = [json.loads(record.value or b"") for record in cluster.read(topic)]
    logged = [line for line in lines_of(cluster, flow) if line["message"] == "progress"]
    shared = [name for name in sent[0] if name not in ("time_ms", "output_topic")]
    assert "timers" in shared
    for record, line in zip(sent, logged, strict=False):
        assert {name: record[name] for name in shared} == {name: line[name] for name in shared}
        assert record["output_topic"] == cluster.output
    assert [record.key for record in cluster.read(topic)] == [b"0"] * len(sent)
    flow = cluster.start(**variables, HEARTWHEEL_PROGRESS_TOPIC=f"{topic}-absent")
    before = cluster.records_out()
    cluster.wait("heartbeats", lambda: cluster.records_out() > before + 3)
    stop(flow)


@pytest.mark.slow
def test_what_ends_a_run_is_the_last_line_of_its_log(cluster: Cluster) -> None:
    """One JSON line that says what to do, with the cause."""
    flow = cluster.start(HEARTWHEEL_LOG_FORMAT="json", HEARTWHEEL_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert flow.wait(40) == 2
    waiting, last = lines_of(cluster, flow)
    assert waiting["message"].startswith("waiting for Kafka at 127.0.0.1:1: ")
    assert last["level"] == "critical"
    assert "no answer from Kafka at 127.0.0.1:1" in last["message"]
    assert "Connection refused" in last["message"]


def test_bytewax_lines_come_with_the_level_debug(cluster: Cluster) -> None:
    """They are JSON as well, and nothing is left on standard output."""
    flow = cluster.start(
        "run", "-w", "2", HEARTWHEEL_LOG_FORMAT="json", HEARTWHEEL_LOG_LEVEL="debug"
    )
    cluster.wait("a start", lambda: "Timely dataflow start" in cluster.errors(flow))
    stop(flow)
    lines = [line for line in lines_of(cluster, flow) if line["logger"] == "bytewax"]
    starts = [line for line in lines if line["message"].startswith("Worker start")]
    assert {line["worker"] for line in starts} == {0, 1}
    assert {line["module"] for line in starts} == {"bytewax::worker"}


def test_log_is_quiet_from_the_level_warning_on(cluster: Cluster) -> None:
    """A run without trouble says nothing."""
    flow = cluster.start(HEARTWHEEL_LOG_LEVEL="warning")
    cluster.send("Start", "c1", "one")
    cluster.flush()
    cluster.wait("a session", cluster.events)
    stop(flow)
    assert cluster.errors(flow) == ""


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("command", ["heartwheel.cli", "bytewax.run"])
def test_run_that_fails_ends_with_one_line_and_shows_no_place_in_any_code(
    cluster: Cluster, tmp_path: Path, command: str, workers: str
) -> None:
    """Kafka refuses its output for good; whoever has set RUST_BACKTRACE has done so for others."""
    cluster.configure(cluster.output, "max.message.bytes", "10")
    recovery = tmp_path / "recovery"
    arguments = {
        "heartwheel.cli": ("run",),
        "bytewax.run": ("dataflows.sessions:flow", "-s", "1", "-b", "0", "-r", str(recovery)),
    }[command]
    flow = cluster.start(*arguments, "-w", workers, command=command, RUST_BACKTRACE="full")
    cluster.send("Start", "p1", "s")
    cluster.flush()
    assert flow.wait(60) == 1
    said = cluster.errors(flow)
    assert [word for word in ("backtrace:", "Traceback", "bytewax::") if word in said] == [], said
    assert said.splitlines()[-1].startswith("heartwheel: output to")
    assert "each start fails as well until max.message.bytes of the topic" in said


def test_progress_goes_on_though_its_topic_is_gone_and_is_sent_once_it_is_back(
    cluster: Cluster,
) -> None:
    """Kafka's client refuses records once it knows that there is none, and each is counted."""
    topic = f"{cluster.output}-progress"
    soon = {"HEARTWHEEL_KAFKA_TOPIC_METADATA_PROPAGATION_MAX_MS": "100"}
    variables = {"HEARTWHEEL_LOG_FORMAT": "json", "HEARTWHEEL_PROGRESS_S": "1"}
    flow = cluster.start("run", "--progress-topic", topic, **variables, **soon)

    def lines() -> int:
        return cluster.errors(flow).count('"progress"')

    cluster.wait("lines without a topic", lambda: lines() > 4)
    create_topics(cluster.admin, {topic: 1})
    cluster.wait("a record", lambda: cluster.read(topic))
    cluster.admin.delete_topics([topic])[topic].result()
    count = lines()
    cluster.wait("lines without the topic", lambda: lines() > count + 4)
    stop(flow)
    assert "Traceback" not in cluster.errors(flow)
