"""What is logged when something goes wrong that nobody has thought of."""

import json
import logging
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from dataflows import logs
from dataflows.logs import announce, announced, report_fatal
from tests.support.broker import ROOT
from tests.support.waiting import wait_for

PROGRAM = """
import logging, threading, warnings
from dataflows.logs import start_logs
from dataflows.settings import Settings
start_logs(Settings(log_format="json"), 3)

class Seen(logging.Handler):
    event = threading.Event()

    def emit(self, record):
        if record.name == "bytewax":
            self.event.set()

logging.getLogger().addHandler(Seen())  # after the one that writes
print("to standard output", flush=True)
assert Seen.event.wait(10)
warnings.warn("careful", stacklevel=1)
logging.getLogger("library").error("of %s", "a library")
thread = threading.Thread(target=lambda: [][7], name="other")
thread.start()
thread.join()
1 / 0
"""


def test_unexpected_errors_are_json_with_their_traceback() -> None:
    """In the main thread and in others; libraries and warnings are in the same form."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 1
    assert done.stdout == ""
    assert {line["process"] for line in lines} == {3}
    by_logger = {line["logger"]: line for line in lines}
    assert by_logger["library"]["message"] == "of a library"
    assert "careful" in by_logger["py.warnings"]["message"]
    assert by_logger["bytewax"]["message"] == "to standard output"
    failures = [line for line in lines if line["level"] == "critical"]
    assert [line["message"] for line in failures] == ["unexpected error"] * 2
    assert "IndexError" in failures[0]["exception"]
    assert "ZeroDivisionError" in failures[1]["exception"]


@pytest.fixture
def announcements(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Return what is announced, in a world in which little time is long."""
    said: list[tuple[str, int]] = []
    monkeypatch.setattr(logs, "announce", lambda text, level: said.append((text, level)))
    monkeypatch.setattr(logs, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(logs, "NEXT_WAIT_S", 0.01)
    return said


def test_wait_that_takes_long_is_announced_again_and_again(
    announcements: list[tuple[str, int]],
) -> None:
    """Until what is awaited has come, or has failed; the first time it is no warning yet."""
    with suppress(ValueError), announced("waiting for Kafka"):
        wait_for(lambda: len(announcements) >= 3)
        raise ValueError
    wait_for(lambda: all(thread.name != "announced" for thread in threading.enumerate()))
    levels = [level for _, level in announcements]
    assert levels == [logging.INFO, *[logging.WARNING] * (len(levels) - 1)]
    assert {text for text, _ in announcements} == {"waiting for Kafka"}


def test_wait_that_ends_soon_is_not_announced(
    announcements: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line for each step of a start would say nothing."""
    monkeypatch.setattr(logs, "FIRST_WAIT_S", 60)
    with announced("waiting for Kafka"):
        pass
    wait_for(lambda: all(thread.name != "announced" for thread in threading.enumerate()))
    assert announcements == []


def test_announcement_without_a_log_is_a_line_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command has no log, but a terminal that must not seem dead."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    announce("waiting for Kafka")
    assert capsys.readouterr().err == "heartwheel: waiting for Kafka\n"


def test_announcement_in_a_run_is_in_its_log(caplog: pytest.LogCaptureFixture) -> None:
    """As a warning: nothing goes on before it is over."""
    announce("waiting for Kafka")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "waiting for Kafka" in str(record.msg)


def test_what_ends_a_run_is_one_line_whatever_it_names(capsys: pytest.CaptureFixture[str]) -> None:
    """A path or a key may have a line break, or steer a terminal."""
    report_fatal("file /tmp/a\nb\x1b[31m cannot be read; é stays")
    assert capsys.readouterr().err == (
        "heartwheel: file /tmp/a\\nb\\x1b[31m cannot be read; é stays\n"
    )
