"""What ends a process from outside: signals, a stop that takes too long, a clock set back."""

import os
import signal
import threading
import time
from collections.abc import Callable
from threading import Event

from dataflows.clock import wall_offset_s
from dataflows.logs import log, report_fatal

STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}
# Bytewax sets its timers by the wall clock: set back by more than this, it stands still too long.
STEP_BACK_S = 2.0
WATCH_S = 0.5


def stop_on_signals(
    stop: Event, timeout_s: float, begun: Event, waits_for_kafka: Callable[[], bool]
) -> None:
    """Stop on SIGTERM or SIGINT; exit with 1 if a stop takes longer than timeout_s.

    A process that has not begun has nothing to drain: it exits with 0 at once, also while it
    waits for Kafka.

    A thread waits for the signals: a handler would not run while Bytewax waits for other
    processes, nor, in a container, before it is set.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)

    def listen() -> None:
        asked = signal.sigwait(STOP_SIGNALS)
        log.info("stopping", signal=signal.Signals(asked).name)
        if not begun.is_set():
            log.info("stopped")
            os._exit(0)
        stop.set()
        os._exit(128 + signal.sigwait(STOP_SIGNALS))  # asked twice: at once

    def watch() -> None:
        stop.wait()
        time.sleep(timeout_s)
        why = ": Kafka has not acknowledged what is written" if waits_for_kafka() else ""
        report_fatal(
            f"not stopped within {timeout_s:g} s{why}; exiting, the next start resumes from the "
            "last snapshot"
        )
        os._exit(1)

    for target in (listen, watch):
        threading.Thread(target=target, daemon=True).start()


def watch_wall_clock(stop: Event) -> None:
    """Exit with 1 if the system clock is set back, because Bytewax's timers would stall.

    The next start resumes.
    """
    offset_s = wall_offset_s()
    while (now_s := wall_offset_s()) > offset_s - STEP_BACK_S:
        offset_s = now_s
        if stop.wait(WATCH_S):
            return
    report_fatal(
        f"the clock of this machine was set back by {offset_s - now_s:.0f} s, and Bytewax would "
        "stand still for as long; exiting, the next start goes on from the last snapshot"
    )
    os._exit(1)
