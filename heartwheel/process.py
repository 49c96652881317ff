"""Running the dataflow: recovery partitions, epochs shorter than a second, a clean stop."""

import gc
import os
import re
import signal
import socket
import tempfile
import threading
import time
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

from dataflows.clock import wall_offset_s
from dataflows.errors import lanes_mismatch
from dataflows.kafka.lease import Lease
from dataflows.kafka.sink import KafkaSink
from dataflows.kafka.source import KafkaSource
from dataflows.logs import log, say_failure, start_logs
from dataflows.metrics import start_metrics
from dataflows.run_state import RunState
from dataflows.sessions import build_flow
from dataflows.settings import Settings
from heartwheel.cluster import Cluster
from heartwheel.http.server import bind, serve
from heartwheel.http.view import ProcessView
from heartwheel.store.contents import FLOW, lane_states
from heartwheel.store.lock import StoreLock, first_has
from heartwheel.store.recovery_files import Recovery
from heartwheel.store.uncommitted import forget_unfinished
from heartwheel.version import program_version
from session_logic.errors import ConfigError, HeartwheelError, SnapshotError, StateMismatchError
from session_logic.restoring import check_state

# Sessions make no reference cycles, and a collection that comes to the slots of the wheel walks all
# of them for nothing: 0.1 s for 2 million. What makes cycles, such as HTTP, makes few.
GC_THRESHOLDS = (1_000_000, 100, 1_000_000)
STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}
# Bytewax sets its timers by the wall clock: set back by more than this, it stands still too long.
STEP_BACK_S = 2.0
WATCH_S = 0.5
# How Bytewax words what SQLite says.
_FAILURE = re.compile(r'SqliteFailure\(.*?Some\("(.*?)"\)')


class ClusterError(HeartwheelError):
    """Another process of the cluster is gone: all stop, and all must be started again."""


def run(settings: Settings, cluster: Cluster) -> None:
    """Run until stopped by SIGTERM or SIGINT; a run that fails ends the process with its error.

    Raises HeartwheelError for what is wrong before the start.
    """
    state = RunState()
    stop_on_signals(state.stop, settings.stop_timeout_ms / 1000)  # before any other thread
    start_logs(settings, cluster.process_id or 0)
    start_metrics(state, program_version())
    listener = bind(settings)
    if listener is not None:
        serve(listener, ProcessView(settings, cluster, state))
    recovery_dir = prepare_recovery(settings, first=not cluster.process_id)
    process_id = cluster.process_id or 0
    lock = StoreLock(recovery_dir, process_id)
    if not process_id:
        forget_unfinished(recovery_dir)  # before the others, which wait for this one, read it
    # The other processes of a cluster live and die with the first.
    lease = Lease(settings, lock.store) if settings.fencing and not process_id else None
    sink = KafkaSink(settings, state, lease)
    state.waits_for_kafka = sink.waits_for_kafka
    # Also while nothing is written, so that the metrics tell when it was acknowledged.
    source = KafkaSource(settings, state, on_tick=sink.producer.serve)
    source.check()
    sink.list_parts()
    flow = build_flow(source, sink, settings, state)
    threading.Thread(
        target=watch_wall_clock, args=(state.stop,), name="wall clock", daemon=True
    ).start()
    gc.set_threshold(*GC_THRESHOLDS)
    if cluster.process_id is not None:
        wait_for_own_name(
            cluster.addresses[cluster.process_id], settings.restore_timeout_ms / 1000, state.stop
        )
    if lease is not None:
        lease.acquire()
    log.info(
        "starting", version=program_version(), lanes=settings.lanes, output=settings.output_topic
    )
    try:
        _execute(flow, settings, cluster, recovery_dir)
        if lease is not None:
            lease.release()
        log.info("stopped")
    except BaseException as error:
        known = own_error(error, recovery_dir)
        if known is None:
            raise
        # Threads of Bytewax, Kafka and the server still run, and an interpreter that ends under
        # them crashes or hangs.
        say_failure(str(known))
        os._exit(2 if isinstance(known, ConfigError) else 1)


def wait_for_own_name(address: str, timeout_s: float, stop: Event) -> None:
    """Return once the name of this process has an address; raises ConfigError after timeout_s.

    A pod starts before others can find it by its name, and Bytewax tries its own name only once.
    """
    host = address.rpartition(":")[0].strip("[]")
    deadline = time.monotonic() + timeout_s
    while not stop.is_set():
        try:
            socket.getaddrinfo(host, None)
        except OSError as error:
            if time.monotonic() > deadline:
                msg = (
                    f"{host}, the name of this process among the addresses of the cluster, is not "
                    f"known ({error}); correct it, or wait until DNS has it"
                )
                raise ConfigError(msg) from None
            stop.wait(0.2)
        else:
            return


def _execute(flow: Dataflow, settings: Settings, cluster: Cluster, recovery_dir: Path) -> None:
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


def prepare_recovery(settings: Settings, *, first: bool) -> Path:
    """Return the recovery directory, with partitions made if there are none.

    The store is the first process's. Another process of its cluster sees the same directory, or
    has one of its own without partitions: Bytewax then brings it what it needs. Raises
    SnapshotError for a store that is not whole, and ConfigError for one of another number of
    lanes or apart from that of the first process.
    """
    folder = Path(settings.recovery_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass  # it can be written to, and so can what is in it
        for part in folder.glob("*.sqlite3"):
            if part.is_file():
                part.open("r+b").close()
        if first and not any(folder.glob("*.sqlite3")):
            _make_parts(folder, settings.recovery_parts)
    except OSError as error:
        msg = (
            f"HEARTWHEEL_RECOVERY_DIR {folder} cannot be used: {error.strerror}; it must be a "
            "directory that this user can write to"
        )
        raise ConfigError(msg) from None
    if not first and any(folder.glob("*.sqlite3")):
        _wait_for_first(folder, settings.restore_timeout_ms / 1000)
    if any(folder.glob("*.sqlite3")):
        _check_recovery(folder, settings.lanes)
    return folder


def _wait_for_first(folder: Path, timeout_s: float) -> None:
    """Return once the first process has the store of this directory; raises ConfigError.

    Bytewax would take partitions that are elsewhere for parts of the same store.
    """
    deadline = time.monotonic() + timeout_s
    while not first_has(folder):
        if time.monotonic() > deadline:
            msg = (
                f"HEARTWHEEL_RECOVERY_DIR {folder} holds recovery partitions that process 0 does "
                "not use; start process 0, and give all processes the same directory or move "
                "the partitions out of this one"
            )
            raise ConfigError(msg)
        time.sleep(0.1)


def _make_parts(folder: Path, count: int) -> None:
    """Make new partitions aside, so that none is seen, or left by a kill, before it is whole."""
    with TemporaryDirectory(dir=folder) as aside:
        init_db_dir(Path(aside), count)  # type: ignore[no-untyped-call]
        for part in Path(aside).iterdir():
            part.rename(folder / part.name)


def _check_recovery(folder: Path, lanes: int) -> None:
    """Raise an error that says what to do where Bytewax would panic, or a lane after a while."""
    with Recovery(folder) as recovery:
        entries = recovery.entries().values()
        states, faults = lane_states([e for e in entries if e.step == f"{FLOW}.sessions"])
    for state in states:
        try:
            check_state(state, lanes)
        except StateMismatchError as error:
            raise lanes_mismatch(error) from None
    if faults:
        raise SnapshotError(faults[0])


def _store_error(folder: Path, problem: str) -> SnapshotError:
    what = "make room on its disk, or put back a whole copy of it, and start again"
    return SnapshotError(f"recovery store {folder} cannot be written ({problem}); {what}")


def stop_on_signals(stop: Event, timeout_s: float) -> None:
    """Stop on SIGTERM or SIGINT; exit with 1 if a stop takes longer than timeout_s.

    A thread waits for the signals: a handler would not run while Bytewax waits for other
    processes, nor, in a container, before it is set.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)

    def listen() -> None:
        asked = signal.sigwait(STOP_SIGNALS)
        log.info("stopping", signal=signal.Signals(asked).name)
        stop.set()
        os._exit(128 + signal.sigwait(STOP_SIGNALS))  # asked twice: at once

    def watch() -> None:
        stop.wait()
        time.sleep(timeout_s)
        say_failure(
            f"not stopped within {timeout_s:g} s; exiting, the next start resumes from the last "
            "snapshot"
        )
        os._exit(1)

    for target in (listen, watch):
        threading.Thread(target=target, daemon=True).start()


def watch_wall_clock(stop: Event) -> None:
    """Exit with 1 when the wall clock is set back before a stop; the next start goes on."""
    ahead_s = wall_offset_s()
    while (now_s := wall_offset_s()) > ahead_s - STEP_BACK_S:
        ahead_s = now_s
        if stop.wait(WATCH_S):
            return
    say_failure(
        f"the clock of this machine was set back by {ahead_s - now_s:.0f} s, and Bytewax would "
        "stand still for as long; exiting, the next start goes on from the last snapshot without "
        "a gap"
    )
    os._exit(1)


def own_error(
    error: BaseException | None, recovery_dir: Path | None = None
) -> HeartwheelError | None:
    """Return the error of ours that Bytewax has wrapped, or one for a store that broke."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, HeartwheelError):
            return error
        if recovery_dir is not None and (failure := _FAILURE.search(str(error))):
            return _store_error(recovery_dir, failure[1])
        if type(error).__name__ == "PanicException":  # of the threads that talk to the others
            return ClusterError(
                f"the connection to another process of the cluster is lost ({error}); start all "
                "of them again: they resume from the last snapshot"
            )
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None
