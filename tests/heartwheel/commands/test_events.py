"""`heartwheel events` with files: what it shows, its exit codes, a line for what is wrong."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from dataflows.settings_sources import environment
from tests.support.broker import ROOT
from tests.support.command import command, one_line
from tests.support.own_events import reference, reference_table

TABLES = reference_table("pc_sessions")
OTHER = TABLES.replace("pc_sessions", '"console.sessions"')


@pytest.fixture
def config(tmp_path: Path) -> str:
    """Return settings with a table for a topic."""
    path = tmp_path / "heartwheel.toml"
    path.write_text(TABLES)
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Return a file with the topic of the reference pipeline, and a record that is rejected."""
    path = tmp_path / "events.jsonl"
    values = [one.value or b"" for one in reference()]
    values.append(json.dumps(json.loads(values[-1]) | {"appSessionId": True}).encode())
    path.write_bytes(b"\n".join(values))
    return str(path)


def test_file_is_tried_by_the_only_table(config: str, file: str) -> None:
    """In a pipe a record is a line, and a reason names field and value."""
    done = command("events", "try", "--file", file, "--config", config, "--last", "3")
    assert (done.returncode, done.stderr) == (0, "")
    title, head, *rows, counts = done.stdout.splitlines()
    assert title == "pc_sessions, read by its table"
    assert head.split() == ["record", "becomes", "device", "session", "platform", "event",
                            "time"]  # fmt: skip
    assert [row.split()[:3] for row in rows] == [
        ["line", "31", "end"], ["line", "32", "end"], ["line", "33", "rejected"],
    ]  # fmt: skip
    assert rows[-1].endswith(
        "not_an_event: field appSessionId is true: text or a whole number of 1 to 128 characters "
        "is needed"
    )
    assert counts == "3 records: 2 end, 1 rejected"


def test_file_of_which_nothing_is_an_event_exits_with_1(config: str, file: str) -> None:
    """And the likeliest cause is the last line."""
    table = Path(config)
    table.write_text(TABLES.replace("hostPcId", "host_pc_id"))
    done = command("events", "try", "--file", file, "--config", config)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[-1] == (
        "LIKELY CAUSE device: there is no field host_pc_id in 20 of 20 records; the nearest is "
        "hostPcId (in 20)"
    )


def test_json_is_a_line_for_each_record(config: str, file: str) -> None:
    """And nothing else."""
    done = command("events", "try", "--file", file, "--config", config, "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 20
    assert {one["becomes"] for one in lines} == {"start", "end", "rejected"}


def test_standard_input_is_a_file(file: str) -> None:
    """Such as what another consumer prints."""
    done = subprocess.run(
        [sys.executable, "-m", "heartwheel", "events", "guess", "pc_sessions", "--file", "-"],
        input=Path(file).read_bytes(), env=environment(), cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    assert b'device = "hostPcId"' in done.stdout


def test_proposal_is_pasted_into_the_settings(file: str, tmp_path: Path) -> None:
    """It goes to standard output alone, and is a file of settings as it stands."""
    done = command("events", "guess", "my.topic", "--file", file)
    assert (done.returncode, done.stderr) == (0, "")
    pasted = tmp_path / "pasted.toml"
    pasted.write_text(done.stdout)
    tried = command("events", "try", "--file", file, "--config", str(pasted))
    assert tried.returncode == 0
    assert tried.stdout.splitlines()[-1].endswith(", 1 rejected")


def test_proposal_that_lacks_something_exits_with_1(tmp_path: Path) -> None:
    """What is missing is named where a person looks, and what was found is printed."""
    path = tmp_path / "other.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n')
    done = command("events", "guess", "t", "--file", str(path))
    one_line(done, 1, "not found, write it yourself: type, start, end, device")
    assert "[inputs.t]" in done.stdout


def test_several_topics_need_a_topic_for_a_file(config: str, file: str) -> None:
    """A line is read by one table."""
    Path(config).write_text(TABLES + OTHER)
    arguments = ("events", "try", "--file", file, "--config", config)
    one_line(command(*arguments), 2, "--topic", "pc_sessions, console.sessions")
    done = command(*arguments, "--topic", "console.sessions")
    assert done.stdout.startswith("console.sessions, read by its table\n")


def test_topic_that_is_no_input_is_one_line(config: str) -> None:
    """The others are named, and what to do for a new one."""
    done = command("events", "try", "--topic", "t\x1b", "--config", config)
    one_line(done, 2, "--topic t\\x1b is no input topic", "pc_sessions", "heartwheel events guess")


def test_guess_for_a_name_that_no_topic_can_have_is_refused(tmp_path: Path) -> None:
    """What it prints could not be pasted."""
    path = tmp_path / "events.jsonl"
    path.write_text('{"type": "start"}\n')
    done = command("events", "guess", "my events", "--file", str(path))
    one_line(done, 2, "'my events' is no name of a topic: write up to 249 letters")


@pytest.mark.parametrize("words", [("try",), ("guess", "pc_sessions")])
def test_file_that_cannot_be_used_is_one_line(config: str, words: tuple[str, ...]) -> None:
    """Before anything is asked of Kafka."""
    done = command("events", *words, "--file", "missing.jsonl", "--config", config)
    one_line(done, 2, "--file missing.jsonl cannot be read: No such file or directory")


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_terminal_gets_colours_and_no_line_beyond_its_width(
    config: str, file: str, columns: int
) -> None:
    """As a person sees it."""
    ours, theirs = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "heartwheel", "events", "try", "--file", file, "--config", config],
        env=environment() | {"COLUMNS": str(columns), "TERM": "xterm"},
        cwd=ROOT,
        stdout=theirs,
        stdin=subprocess.DEVNULL,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            more = os.read(ours, 65_536)
        except OSError:  # the other side is closed
            break
        shown += more
    os.close(ours)
    assert done.wait(30) == 0
    text = shown.decode()
    assert "\x1b[32mstart\x1b[0m" in text
    for colour in ("[0m", "[1m", "[2m", "[32m", "[36m", "[1;31m"):
        text = text.replace(f"\x1b{colour}", "")
    assert "\x1b" not in text
    lines = text.splitlines()
    assert max(map(len, lines)) <= max(columns, 42)
