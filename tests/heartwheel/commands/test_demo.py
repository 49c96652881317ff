"""The demonstration, with the broker that is built into the Kafka client."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from fcntl import LOCK_EX, flock

import pytest

from dataflows.settings_sources import environment
from session_logic.codec import decode_output
from session_logic.events import SessionEnd
from tests.support.broker import ROOT
from tests.support.command import command


@pytest.fixture(autouse=True)
def _one_at_a_time(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two that begin at once would both take the port that is free."""
    with (tmp_path_factory.getbasetemp().parent / "demo.lock").open("w") as lock:
        flock(lock, LOCK_EX)
        yield


def run(
    *arguments: str, seen: Callable[[str], bool] = lambda line: "  ended 0  " not in line
) -> list[str]:
    """Return what a demonstration prints that is ended by Ctrl-C once a line shows what it has to.

    Without more, that is that sessions have ended.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "heartwheel.cli", "demo", *arguments],
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if seen(line):
                break
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, errors) == (0, "")
    numbers, *lines = rest.splitlines()
    assert numbers.startswith("active ")
    return lines


def test_demo_of_our_own_events_shows_a_record_of_each_kind() -> None:
    """It stops clean at Ctrl-C, and its last lines are records of the topic."""
    records = [decode_output(line.encode()) for line in run()]
    assert {type(record).__name__ for record in records} >= {"SessionActive", "SessionEnd"}


@pytest.mark.parametrize("kind", ["iot", "web", "machines"])
def test_demo_of_devices_that_ping_shows_some_that_went_silent(kind: str) -> None:
    """What comes out is what the set-up of the page says."""
    records = [
        decode_output(line.encode())
        for line in run("--kind", kind, seen=lambda line: "  went silent" in line)
    ]
    types = {type(record).__name__ for record in records}
    assert types == {"SessionActive", "SessionEnd"} | ({"Heartbeat"} if kind != "web" else set())
    ends = [record for record in records if isinstance(record, SessionEnd)]
    assert any(end.reason == "went_silent" for end in ends)


def test_demo_of_reference_events_shows_what_went_in_and_what_came_of_it() -> None:
    """Account and foreground time of the pipeline's own fields are in the records."""
    lines = [line.partition("  ") for line in run("--events", "reference")]
    assert len(lines) == 4
    for (topic, _, given), (output, _, record), is_start in zip(
        lines[::2], lines[1::2], (True, False), strict=True
    ):
        assert output == "session-events"
        came_from, event = json.loads(given), json.loads(record)
        device = {"pc_sessions": "hostPcId", "console_sessions": "openPsid"}[topic]
        assert event["device_id"] == came_from[device]
        assert event["session_id"] == str(came_from["appSessionId"])
        assert event["platform"] == topic.removesuffix("_sessions")
        context = event["context"]
        if is_start:
            assert event["type"] == "SessionActive"
            assert came_from["eventId"] == "ApplicationSessionStart"
            assert context == {"account": came_from["psnAccountId"]}
        else:
            assert (event["type"], event["reason"]) == ("SessionEnd", "ended")
            assert came_from["eventId"] == "ApplicationSessionEndBi"
            assert context.keys() == {"account", "foreground_s"}
            assert context["foreground_s"] == came_from["totalFgTime"]


def test_demo_of_unknown_events_says_which_there_are() -> None:
    """Before anything starts."""
    done = command("demo", "--events", "theirs")
    assert done.returncode == 2
    assert "reference" in done.stderr
