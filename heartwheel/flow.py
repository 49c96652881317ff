"""The dataflow as `python -m bytewax.run` runs it, with the lock and the lease of a run.

Bytewax asks dataflows.sessions for it, which finds this module by its entry point. There is no
HTTP server, and a signal ends the process as Bytewax does.
"""

import atexit
import signal
import sys
from pathlib import Path
from threading import Event, Thread
from types import TracebackType

from bytewax import run as bytewax_run
from bytewax.dataflow import Dataflow
from msgspec.structs import replace

from dataflows.errors import find_shortage, unwrap_error
from dataflows.kafka.sink import KafkaSink
from dataflows.logs import log, report_fatal, start_logs, traceback_wanted
from dataflows.metrics import start_metrics
from dataflows.run_state import RunState
from dataflows.settings import Settings
from dataflows.settings_sources import load_settings
from dataflows.timer_slack import SIGNALS_US, set_timer_slack
from heartwheel.cluster import Cluster, cluster_of
from heartwheel.connected import connect
from heartwheel.guard import Guard
from heartwheel.store.prepare import prepare_recovery
from session_logic.errors import ConfigError, HeartwheelError, SnapshotError


def guarded_flow() -> Dataflow:
    """Return the dataflow for the arguments of `python -m bytewax.run`; an error is one line."""
    try:
        # Bytewax does not tell what it was given, so it is read as Bytewax reads it.
        arguments = bytewax_run._parse_args()  # type: ignore[no-untyped-call]  # noqa: SLF001
        if arguments.recovery_directory is None:
            msg = "give a recovery directory (-r): without one, each start sends everything again"
            raise ConfigError(msg)
        settings = replace(
            load_settings(),
            recovery_dir=str(arguments.recovery_directory),
            snapshot_ms=int(arguments.snapshot_interval.total_seconds() * 1000),
        )
        start_logs(settings)
        return _flow(settings, cluster_of(arguments.process_id, arguments.addresses, 1))
    except HeartwheelError as error:
        told = find_shortage(error) or error
        report_fatal(str(told))
        sys.exit(2 if isinstance(told, ConfigError) else 1)


def _flow(settings: Settings, cluster: Cluster) -> Dataflow:
    state = RunState()
    _stop_at_ctrl_c(state)
    start_metrics(state, settings.own_shard)
    folder = prepare_recovery(settings, first=cluster.number == 0)
    guard = Guard(settings, cluster, folder)
    connected = connect(settings, cluster, folder, state, guard.permit)
    Thread(target=connected.source.topics.watch, args=(state.stop,), daemon=True).start()
    guard.begin()
    atexit.register(_release, guard, connected.sink, _tell_errors(folder, state))
    if cluster.has_main_thread:
        set_timer_slack(SIGNALS_US)
    return connected.flow


def _release(guard: Guard, sink: KafkaSink, failed: Event) -> None:
    """Give the lease back if all is written; else another run must wait until nothing can come."""
    if sink.producer.failure is None and not sink.producer.waiting():
        try:
            guard.release(clean=not failed.is_set())
        except SnapshotError as error:
            report_fatal(str(error))


def _tell_errors(folder: Path, run: RunState) -> Event:
    """Let an error of ours that ends the run be one line, as in `heartwheel run`.

    Returns what is set once any error has ended it.
    """
    show_any, failed = sys.excepthook, Event()

    def show(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
        failed.set()
        known = None if traceback_wanted() else unwrap_error(run.failure or error, folder)
        if known is None:
            show_any(kind, error, at)
        else:
            report_fatal(str(known))

    sys.excepthook = show
    return failed


def _stop_at_ctrl_c(run: RunState) -> None:
    """Let the first SIGINT stop the run as its own command does; a second one ends it at once."""

    def stop(_number: int, _frame: object) -> None:
        log.info("stopping", signal="SIGINT")
        run.stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, stop)
