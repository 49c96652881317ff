"""`heartwheel replay`: what it writes to, and how it ends, as a process."""

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dataflows.settings import Settings
from dataflows.settings_sources import environment
from tests.support.broker import ROOT
from tests.support.recordings import BEGIN_MS, event_line, path_of, preface, write


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Return a recording that may be harmed."""
    return Path(shutil.copy(path_of("busy"), tmp_path / "busy.jsonl.zst"))


def command(*arguments: str | Path) -> list[str]:
    """Return the command line of a replay."""
    return [sys.executable, "-m", "heartwheel.cli", "replay", *map(str, arguments)]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a replay to its end."""
    line = command(*arguments)
    return subprocess.run(
        line, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )


def test_output_in_the_place_of_the_recording_is_refused(recording: Path, tmp_path: Path) -> None:
    """By another name of it as well, and whatever else is asked for."""
    before = recording.read_bytes()
    link = tmp_path / "link"
    link.symlink_to(recording)
    for output in (recording, link):
        done = run(recording, "--output", output, "--overwrite")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "is the recording: name another file" in done.stderr
        assert recording.read_bytes() == before


def test_output_that_is_there_is_replaced_only_if_that_is_asked_for(
    recording: Path, tmp_path: Path
) -> None:
    """It is whole or as it was."""
    output = tmp_path / "out"
    output.write_text("mine")
    done = run(recording, "--output", output)
    assert done.returncode == 2
    assert done.stderr == f"heartwheel: {output} exists: name another file, or give --overwrite\n"
    assert output.read_text() == "mine"
    done = run(recording, "--output", output, "--overwrite")
    assert done.returncode == 0
    found = re.search(r"(\d+) records", done.stdout)
    assert found is not None
    assert output.read_bytes().count(b"\n") == int(found[1]) > 0


@pytest.mark.parametrize("place", ["missing/out", "."])
def test_output_that_cannot_be_made_is_one_line(
    recording: Path, tmp_path: Path, place: str
) -> None:
    """In a folder that is not there, or in the place of one."""
    done = run(recording, "--output", tmp_path / place)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert str(tmp_path) in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--check", "--output", "out"),
        ("--to-broker", "127.0.0.1:1", "--check"),
        ("--to-broker", "127.0.0.1:1", "--output", "out"),
        ("--to-broker", "127.0.0.1:1", "--set", "lanes=2"),
    ],
)
def test_option_that_would_be_ignored_is_refused(
    recording: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """A check writes no output, and input that is sent again is as it was recorded."""
    given = [str(tmp_path / "out") if word == "out" else word for word in arguments]
    done = run(recording, *given)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "leave out" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("lanes=3", "--set lanes is 3: write a power of two up to 256"),
        ("lane=3", "--set lane is not a setting of Heartwheel; did you mean --set lanes?"),
        ("heartbeat_ms=x", "--set heartbeat_ms is 'x': write a whole number"),
        ("max_session_ms=1", "--set max_session_ms (1) must be at least --set heartbeat_ms ("),
        ("heartbeat_topic=x", "--set heartbeat_topic: a replay has one output; leave it out"),
    ],
)
def test_wrong_change_is_named_as_it_was_given(recording: Path, change: str, says: str) -> None:
    """Not as the variable of a run."""
    done = run(recording, "--set", change)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert says in done.stderr


@pytest.mark.parametrize("broker", ["", " "])
def test_broker_without_a_name_is_refused(recording: Path, broker: str) -> None:
    """Such as a variable of a script that is not set."""
    done = run(recording, "--to-broker", broker)
    assert done.returncode == 2
    assert done.stderr == "heartwheel: --to-broker names no broker: write it as host:port\n"


def test_broker_that_is_not_there_is_named_by_the_option(recording: Path) -> None:
    """The variable of a run says nothing here."""
    done = run(recording, "--to-broker", "127.0.0.1:1")
    assert done.returncode == 2
    assert "no answer from Kafka at 127.0.0.1:1" in done.stderr
    assert "check --to-broker and" in done.stderr


def test_ctrl_c_ends_a_replay_and_leaves_no_file(tmp_path: Path) -> None:
    """It says nothing of Rust or Python. Of 100 million heartbeats some are out by then."""
    settings = Settings(heartbeat_ms=1, max_session_ms=10**9)
    start = event_line("d1", "Start", "s1", BEGIN_MS)
    write(tmp_path / "long", preface(settings), [start], BEGIN_MS + 10**8)
    line = command(tmp_path / "long", "--output", tmp_path / "out")
    replay = subprocess.Popen(
        line, cwd=ROOT, env=environment() | {"RUST_BACKTRACE": "1"}, stderr=subprocess.PIPE
    )
    while not any(one.stat().st_size for one in tmp_path.glob("out-unfinished-*")):
        assert replay.poll() is None
        time.sleep(0.05)
    replay.send_signal(signal.SIGINT)
    _, errors = replay.communicate(timeout=60)
    assert replay.returncode == 130
    assert b"panicked" not in errors
    assert b"Traceback" not in errors
    assert not list(tmp_path.glob("out*"))
