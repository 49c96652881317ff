"""What ends a process from outside; each in a process of its own, as it takes over signals."""

import signal
import subprocess
import sys

import pytest

from tests.support.broker import ROOT

PROGRAM = """
import sys, time
from threading import Event
from heartwheel.signals import stop_on_signals
stop, begun = Event(), Event()
stop_on_signals(stop, float(sys.argv[1]), begun, lambda: sys.argv[2] == "kafka")
if sys.argv[2] != "waits":
    begun.set()
print("ready", flush=True)
stop.wait(60)
print("stopping", flush=True)
if sys.argv[2] in ("hangs", "kafka"):
    time.sleep(60)
"""
CLOCK_SET_BACK = """
from threading import Event
import heartwheel.signals as signals
offsets = iter([100.0, 99.0, 98.5, 90.0])
signals.wall_offset_s = lambda: next(offsets)
signals.WATCH_S = 0.001
signals.watch_wall_clock(Event())
"""


def start(timeout_s: float, how: str) -> subprocess.Popen[str]:
    """Start a program that waits for a stop, and ends then or hangs."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(timeout_s), how],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def send(process: subprocess.Popen[str], sign: signal.Signals) -> None:
    """Send a signal, and return once it has been taken for a stop."""
    process.send_signal(sign)
    assert process.stdout is not None
    assert process.stdout.readline() == "stopping\n"


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_either_signal_is_a_clean_stop(sign: signal.Signals) -> None:
    """The process ends by itself, with 0."""
    with start(60, "ends") as process:
        send(process, sign)
        assert process.wait(10) == 0


def test_signal_before_anything_has_begun_ends_the_process_at_once() -> None:
    """It may wait for Kafka or a lease, and there is nothing to drain."""
    with start(60, "waits") as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stdout is not None
        assert process.stdout.read() == ""


def test_stop_that_takes_too_long_exits_with_1_and_one_line() -> None:
    """A supervisor is not left to wait for its own limit."""
    with start(0.1, "hangs") as process:
        send(process, signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 1
    assert errors.startswith("heartwheel: not stopped within 0.1 s")
    assert errors.count("\n") == 1


def test_stop_that_waits_for_kafka_says_so() -> None:
    """What is not stopped is not the process's fault then."""
    with start(0.1, "kafka") as process:
        send(process, signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
    assert "not stopped within 0.1 s: Kafka has not acknowledged what is written; " in errors


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_the_process_at_once(second: signal.Signals) -> None:
    """With the exit code of a process that the signal has killed."""
    with start(60, "hangs") as process:
        send(process, signal.SIGTERM)
        process.send_signal(second)
        assert process.wait(10) == 128 + second


def test_wall_clock_set_back_ends_the_process_with_one_line() -> None:
    """A small step back is not enough; one of more than two seconds is."""
    done = subprocess.run(
        [sys.executable, "-c", CLOCK_SET_BACK],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("heartwheel: the clock of this machine was set back by 8 s")
    assert done.stderr.count("\n") == 1
