"""One heartwheel command, run to its end as an operator runs it."""

import os
import subprocess
import sys

import pytest

from dataflows.settings_sources import environment
from heartwheel.cli import main
from tests.support.broker import ROOT
from tests.support.waiting import without_waits

TIMEOUT_S = 60
SETTINGS = {"HEARTWHEEL_LOG_FORMAT": "text", "HEARTWHEEL_HTTP_PORT": "0"}


def command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command with these settings only; nobody is at its terminal."""
    return python("-m", "heartwheel.cli", *arguments, **variables)


class Inside:
    """The heartwheel command, run in this process: for the many cases of one command."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command with these settings only; nobody is at its terminal."""
        self._capture.readouterr()
        words = ["heartwheel", *map(str, arguments)]
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
            for name in os.environ.keys() - environment().keys():
                patch.delenv(name)
            for name, value in {**SETTINGS, **variables}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", words)
            main()
        shown = self._capture.readouterr()
        code = int(end.value.code or 0)
        return subprocess.CompletedProcess(words, code, shown.out, shown.err)


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these settings only; that it waited for Kafka is left out of its errors."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment() | SETTINGS | variables,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    done.stderr = without_waits(done.stderr)
    return done


def limited(file_bytes: int, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `heartwheel` where no file may grow beyond so many bytes."""
    code = (
        "import resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({file_bytes}, {file_bytes}))\n"
        f"sys.argv = {['heartwheel', *arguments]!r}\n"
        "from heartwheel.cli import main; main()"
    )
    return python("-c", code, **variables)


def one_line(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """Check that a command has failed with this code and one line that has these words."""
    assert done.returncode == code, done
    (line,) = done.stderr.splitlines()
    assert line.startswith("heartwheel: ")
    for word in words:
        assert word in line
