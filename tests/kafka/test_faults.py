"""What a machine does to a run: a full disk, and a clock that is set."""

import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.missing import COMPILER, missing, require
from tests.support.traffic import Traffic, catch_up, check, start, stop

SESSIONS = 5_000
HOUR_S = 3_600
MORE, PADDING = 10_000, 90 * "x"
SOURCE = Path(__file__).with_name("wall.c")


class SettableClock:
    """The wall clock as the runs of a test see it, with steps."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        library, file = folder / "wall.so", folder / "offset"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
        file.write_bytes(bytes(8))
        with file.open("r+b") as opened:
            self._offset = mmap.mmap(opened.fileno(), 8)
        cluster.variables |= {"LD_PRELOAD": str(library), "WALL_OFFSET_FILE": str(file)}

    def step(self, offset_s: int) -> None:
        """Set the clock so far from the true time."""
        self._offset[:] = offset_s.to_bytes(8, sys.byteorder, signed=True)


@pytest.fixture
def settable_clock(cluster: Cluster, tmp_path: Path) -> SettableClock:
    """Return a clock that can be set."""
    require(COMPILER)
    return SettableClock(cluster, tmp_path)


def load(cluster: Cluster) -> tuple[subprocess.Popen[str], Traffic]:
    """Start a run and traffic, and wait until heartbeats come."""
    flow = start(cluster)
    traffic = Traffic(cluster, SESSIONS, rate=500)
    traffic.start_all()
    traffic.begin()
    wait_for_more(cluster, 3 * SESSIONS)
    return flow, traffic


def wait_for_more(cluster: Cluster, records: int) -> None:
    """Wait until so many more records are out."""
    before = cluster.records_out()
    cluster.wait("more output", lambda: cluster.records_out() >= before + records, 60)


def beats_in(cluster: Cluster, seconds: float) -> float:
    """Return how many records come out in a second, seen for some seconds."""
    before = cluster.records_out()
    time.sleep(seconds)
    return (cluster.records_out() - before) / seconds


def test_clock_set_forward_by_an_hour_changes_nothing(
    cluster: Cluster, settable_clock: SettableClock
) -> None:
    """No heartbeat of the hour is sent, and none is skipped."""
    flow, traffic = load(cluster)
    settable_clock.step(HOUR_S)
    assert beats_in(cluster, 4) < 3 * SESSIONS
    assert flow.poll() is None, cluster.errors(flow)
    through_ms = catch_up(cluster, traffic)
    stop(cluster, flow)
    check(cluster, through_ms)


@pytest.mark.slow
def test_clock_set_back_by_an_hour_ends_the_run_and_the_next_goes_on(
    cluster: Cluster, settable_clock: SettableClock
) -> None:
    """One clear line and exit code 1; started again, heartbeats come at once, not in an hour."""
    flow, traffic = load(cluster)
    settable_clock.step(-HOUR_S)
    assert flow.wait(10) == 1
    assert "the clock of this machine was set back by 3600 s" in cluster.errors(flow)
    flow = start(cluster)
    wait_for_more(cluster, SESSIONS)
    stop(cluster, flow)
    settable_clock.step(0)
    flow = start(cluster)
    through_ms = catch_up(cluster, traffic)
    stop(cluster, flow)
    check(cluster, through_ms)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        missing("a disk can be mounted only by root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_full_disk_ends_the_run_and_the_next_goes_on_when_there_is_room(
    cluster: Cluster, small_disk: Path
) -> None:
    """One clear line and exit code 1; with room again, nothing is lost or doubled."""
    cluster.variables["HEARTWHEEL_RECOVERY_DIR"] = str(small_disk / "recovery")
    flow, traffic = load(cluster)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            pass  # full
    # What is stored must grow: rows that are written again find room in the file that is there.
    for number in range(MORE):
        cluster.send("Start", f"p-more-{number}-{PADDING}", f"more-{number}-{PADDING}")
    assert flow.wait(60) == 1
    lines = [line for line in cluster.errors(flow).splitlines() if line.startswith("heartwheel:")]
    assert len(lines) == 1
    assert "make room" in lines[0]
    ballast.unlink()
    flow = start(cluster)
    through_ms = catch_up(cluster, traffic)
    stop(cluster, flow)
    check(cluster, through_ms)
