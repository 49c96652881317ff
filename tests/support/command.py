"""One heartwheel command, run to its end as an operator runs it."""

import subprocess
import sys

from dataflows.settings_sources import environment
from tests.support.broker import ROOT

TIMEOUT_S = 60


def command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command with these settings only; nobody is at its terminal."""
    return python("-m", "heartwheel.cli", *arguments, **variables)


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these settings only."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment()
        | {"HEARTWHEEL_LOG_FORMAT": "text", "HEARTWHEEL_HTTP_PORT": "0"}
        | variables,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def one_line(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """Check that a command has failed with this code and one line that has these words."""
    assert done.returncode == code, done
    (line,) = done.stderr.splitlines()
    assert line.startswith("heartwheel: ")
    for word in words:
        assert word in line
