"""Waiting for a condition, so that no test sleeps for a fixed time; waits that commands tell."""

import time
from collections.abc import Callable


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Return once the condition holds; fails after so many seconds."""
    deadline_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def without_waits(log: str) -> str:
    """Leave out the lines that say that Kafka takes long: any command may say so when it does."""
    lines = log.splitlines(keepends=True)
    return "".join(line for line in lines if "waiting for Kafka to " not in line)
