"""One process of a run, from its start to its end, as numbered steps.

Their order matters, and each step says why it has its place. What is wrong with settings, store
or topics is found before anything is written. Bytewax comes last, because from then on only it
decides when this process goes on.
"""

import gc
import os
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from threading import Event

from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig
from bytewax.run import cli_main

from dataflows.errors import unwrap_error
from dataflows.huge_pages import use_huge_pages
from dataflows.logs import log, report_fatal, start_logs
from dataflows.memory import GC_THRESHOLDS
from dataflows.metrics import start_metrics
from dataflows.run_state import RunState
from dataflows.settings import Settings
from dataflows.timer_slack import SIGNALS_US, set_timer_slack
from dataflows.version import program_version
from heartwheel.cluster import Cluster
from heartwheel.connected import connect
from heartwheel.guard import Guard
from heartwheel.http.listener import bind
from heartwheel.http.server import serve
from heartwheel.http.view import ProcessView
from heartwheel.peers import wait_for_own_name, watch_peers
from heartwheel.progress import report_progress
from heartwheel.progress_topic import ProgressTopic
from heartwheel.signals import stop_on_signals, watch_wall_clock
from heartwheel.silent_peers import end_when_silent
from heartwheel.store.prepare import prepare_recovery
from session_logic.errors import ConfigError


def run(settings: Settings, cluster: Cluster) -> None:
    """Run until stopped by SIGTERM or SIGINT; a run that fails ends the process with its error.

    Raises HeartwheelError for what is wrong before the start.
    """
    state, is_first, begun = RunState(), cluster.number == 0, Event()

    # 1. Signals: every thread inherits which of them are blocked, so no thread may come before. In
    # a cluster a stop is told to all, which needs the dataflow.
    stop_on_signals(
        state.stop,
        settings.stop_timeout_ms / 1000,
        begun,
        lambda: state.waits_for_kafka(),  # noqa: PLW0108  # it is another one by then
    )
    if cluster.process_id is not None:
        begun.set()

    # 2. The log: from here on everything is in it, and in one form.
    start_logs(settings, cluster.number)

    # 3. Metrics and HTTP: probes are answered while the steps that wait for others go on.
    start_metrics(state, settings.own_shard)
    listener = bind(settings)
    if listener is not None:
        serve(listener, ProcessView(settings, cluster, state))

    # 4. The store: locked before it is changed, and all others read it after that.
    recovery_dir = prepare_recovery(settings, first=is_first)
    guard = Guard(settings, cluster, recovery_dir)

    # 5. Kafka: a missing topic is told before the lease is taken from anybody.
    connected = connect(settings, cluster, recovery_dir, state, guard.permit)

    # 6. Watches: they must be there before anything can stand still.
    _start_thread("wall clock", watch_wall_clock, state.stop)
    _start_thread("input topics", connected.source.topics.watch, state.stop)
    _start_thread("running", _say_running, state)
    if settings.progress_s:
        topic = ProgressTopic(settings, cluster.number) if settings.progress_topic else None
        _start_thread("progress", report_progress, state, settings.progress_s, topic)
    if cluster.process_id is not None:
        _start_thread("peers", watch_peers, cluster, state, partial(end_when_silent, cluster))
        wait_for_own_name(cluster, settings.restore_timeout_ms / 1000, state.stop)

    # 7. The lease: last, because from then on another run of the same topic is refused.
    guard.begin()

    # 8. The dataflow, until it is stopped. The lease is given back when all is written.
    shard = {"shard": settings.shard} if settings.shard else {}
    log.info(
        "starting",
        version=program_version(),
        lanes=settings.lanes,
        output=settings.output_topic,
        **shard,
    )
    gc.set_threshold(*GC_THRESHOLDS)
    _start_thread("huge pages", use_huge_pages, state.stop, state.at_end_of_input)
    begun.set()
    try:
        _execute(connected.flow, settings, cluster, recovery_dir)
        guard.release()
        log.info("stopped")
    except BaseException as error:
        known = unwrap_error(state.failure or error, recovery_dir)
        if known is None:
            error.__cause__ = state.failure or error.__cause__
            raise
        # Threads of Bytewax, Kafka and the server still run, and an interpreter that ends under
        # them crashes or hangs.
        report_fatal(str(known))
        os._exit(2 if isinstance(known, ConfigError) else 1)


def _say_running(run: RunState) -> None:
    """Say that the dataflow runs, once a worker thread of it has turned."""
    while not run.stop.wait(0.1):
        if run.turned_ms:
            log.info("running")
            return


def _start_thread(name: str, target: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=target, args=arguments, name=name, daemon=True).start()


def _execute(flow: Dataflow, settings: Settings, cluster: Cluster, recovery_dir: Path) -> None:
    if cluster.has_main_thread:
        set_timer_slack(SIGNALS_US)
    cli_main(  # type: ignore[no-untyped-call]
        flow,
        workers_per_process=cluster.workers,
        process_id=cluster.process_id,
        addresses=list(cluster.addresses) or None,
        epoch_interval=timedelta(milliseconds=settings.snapshot_ms),
        recovery_config=RecoveryConfig(  # type: ignore[no-untyped-call]
            recovery_dir, backup_interval=timedelta(0)
        ),
    )
