"""Running the dataflow: recovery partitions, epochs shorter than a second, a clean stop."""

import gc
import os
import signal
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from types import FrameType

from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main
from msgspec import Struct

from dataflows.clock import SteadyClock, wall_ahead_s
from dataflows.kafka_sink import KafkaSink
from dataflows.kafka_source import KafkaSource
from dataflows.lease import Lease
from dataflows.lock import StoreLock
from dataflows.recovery import forget_unfinished, store_failure
from dataflows.sessions import build_flow
from dataflows.settings import Settings
from dataflows.stop import STOP
from session_logic.errors import ConfigError, HeartwheelError

# Sessions make no reference cycles; a full collection would walk all of them for nothing.
GC_THRESHOLDS = (100_000, 100, 1_000_000)
# Bytewax sets its timers by the wall clock: set back by more than this, it stands still too long.
STEP_BACK_S = 2.0
WATCH_S = 0.5


class Cluster(Struct, frozen=True):
    """Which process of how many this is; one alone has neither id nor addresses."""

    process_id: int | None = None
    addresses: tuple[str, ...] = ()
    workers: int = 1


def run(settings: Settings, cluster: Cluster) -> None:
    """Run until stopped by SIGTERM or SIGINT; raises HeartwheelError if the run fails."""
    recovery_dir = prepare_recovery(settings, first=not cluster.process_id)
    process_id = cluster.process_id or 0
    lock = StoreLock(recovery_dir, process_id)
    if not process_id:
        forget_unfinished(recovery_dir)  # before the others, which wait for this one, read it
    # The other processes of a cluster live and die with the first.
    lease = Lease(settings, lock.store) if settings.fencing and not process_id else None
    sink = KafkaSink(settings, lease)
    clock = SteadyClock()
    source = KafkaSource(settings, STOP, clock)
    source.list_parts()
    sink.list_parts()
    flow = build_flow(source, sink, settings, clock)
    stop_on_signals(settings.stop_timeout_ms / 1000)
    threading.Thread(target=watch_wall_clock, name="wall clock", daemon=True).start()
    gc.set_threshold(*GC_THRESHOLDS)
    if lease is not None:
        lease.acquire()
    try:
        _execute(flow, settings, cluster, recovery_dir)
        if lease is not None:
            lease.release()
    except BaseException as error:
        known = _cause(error) or store_failure(error, recovery_dir)
        if known is not None:
            raise known from None
        raise


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

    In a cluster the first process makes them, and the others wait for it.
    """
    folder = Path(settings.recovery_dir)
    wanted = [folder / f"part-{index}.sqlite3" for index in range(settings.recovery_parts)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if first and not any(folder.glob("part-*.sqlite3")):
            init_db_dir(folder, settings.recovery_parts)  # type: ignore[no-untyped-call]
    except OSError as error:
        msg = f"HEARTWHEEL_RECOVERY_DIR {folder} cannot be made: {error.strerror}"
        raise ConfigError(msg) from None
    deadline = time.monotonic() + settings.restore_timeout_ms / 1000
    while not first and not all(part.exists() for part in wanted):
        if time.monotonic() > deadline:
            msg = f"HEARTWHEEL_RECOVERY_DIR {folder}: no recovery partitions; start process 0"
            raise ConfigError(msg)
        time.sleep(0.1)
    return folder


def stop_on_signals(timeout_s: float) -> None:
    """End the sources on SIGTERM or SIGINT; exit with 1 if that takes longer than timeout_s."""

    def stop(number: int, _frame: FrameType | None) -> None:
        if STOP.is_set():
            os._exit(128 + number)
        STOP.set()
        watchdog = threading.Timer(timeout_s, give_up)
        watchdog.daemon = True
        watchdog.start()

    def give_up() -> None:
        print(
            f"heartwheel: not stopped within {timeout_s:g} s; exiting, the next start resumes "
            "from the last snapshot",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def watch_wall_clock() -> None:
    """Exit with 1 when the wall clock is set back before a stop; the next start goes on."""
    ahead_s = wall_ahead_s()
    while (now_s := wall_ahead_s()) > ahead_s - STEP_BACK_S:
        ahead_s = now_s
        if STOP.wait(WATCH_S):
            return
    print(
        f"heartwheel: the clock of this machine was set back by {ahead_s - now_s:.0f} s, and "
        "Bytewax would stand still for as long; exiting, the next start goes on from the last "
        "snapshot without a gap",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


def _cause(error: BaseException | None) -> HeartwheelError | None:
    """Return the error of ours that Bytewax has wrapped, if there is one."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, HeartwheelError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None
