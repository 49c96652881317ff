"""How late the system may wake up a thread that sleeps, so that it wakes up less often.

Bytewax's loops sleep for a millisecond at a time, whether there is anything to do or not: that of a
worker (`step_or_park` in its `src/worker.rs`), and in a cluster that of the main thread, which
looks for signals (`cluster_main` in `src/run.rs`) and takes the interpreter's lock from the worker
each time. Linux may wake up a thread later than it asked for, by its timer slack (PR_SET_TIMERSLACK
in prctl(2)); with more of it the loops turn more rarely. A thread that something else wakes up,
such as data from another process, is not delayed.

A new thread inherits the slack of the one that makes it.
"""

from contextlib import suppress
from pathlib import Path
from threading import get_native_id

# What Linux gives a thread by default.
DEFAULT_US = 50
# For a thread that turns at ticks of some milliseconds.
LATE_US = 1_000
# For one that only looks for signals.
SIGNALS_US = 10_000


def set_timer_slack(slack_us: int) -> None:
    """Let the calling thread be woken up so late; without effect where the system cannot."""
    with suppress(OSError):
        Path(f"/proc/{get_native_id()}/timerslack_ns").write_text(f"{slack_us * 1_000}")
