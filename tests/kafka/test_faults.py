"""What a machine does to a run: a full disk, and a clock that is set."""

import subprocess
import time
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest

from session_logic.events import Heartbeat, SessionActive, SessionEnd
from tests.support.broker import Broker
from tests.support.cluster import Cluster
from tests.support.disk import fill, small_disk
from tests.support.missing import COMPILER, require
from tests.support.ports import free_port
from tests.support.traffic import (
    Traffic,
    catch_up,
    check,
    start,
    start_under_load,
    stop,
    wait_for_model,
    wait_for_more,
)
from tests.support.wall_clock import SettableClock

SESSIONS = 5_000
HOUR_S, MINUTES_S = 3_600, 600
MANY = 100
BROKER_FULL_S = 40
MORE, MOST, PADDING = 20_000, 200_000, 90 * "x"


@pytest.fixture
def settable_clock(cluster: Cluster, tmp_path: Path) -> SettableClock:
    """Return a clock that can be set."""
    require(COMPILER)
    return SettableClock(cluster, tmp_path)


def load(cluster: Cluster) -> tuple[subprocess.Popen[str], Traffic]:
    """Start a run and traffic, and wait until heartbeats come."""
    flow, traffic = start_under_load(cluster, SESSIONS, rate=500)
    wait_for_more(cluster, 2 * SESSIONS)
    return flow, traffic


def readiness(port: int) -> str:
    """Return what /readyz says; "" while nobody answers."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().read().decode().strip()
    except OSError:
        return ""
    finally:
        connection.close()


def heartbeats_ms(cluster: Cluster, session: str) -> list[int]:
    """Return the times of a session's heartbeats; each is there once, and they are in order."""
    events = cluster.sessions().get(session, [])
    assert [type(event) for event in events[:1]] in ([], [SessionActive])
    times_ms = [event.time_ms for event in events[1:] if isinstance(event, Heartbeat)]
    assert times_ms == sorted(set(times_ms)), events
    return times_ms


def wait_for_heartbeat(cluster: Cluster, session: str, due_ms: int) -> None:
    """Wait for a heartbeat that was not due before a moment; it comes within seconds."""
    cluster.wait(
        f"a heartbeat of {session} from {due_ms} on",
        lambda: any(time_ms >= due_ms for time_ms in heartbeats_ms(cluster, session)),
        10,
    )


def now_ms() -> int:
    """Return the true time."""
    return time.time_ns() // 1_000_000


def test_clock_that_was_an_hour_behind_is_followed_at_once_when_it_is_put_right(
    cluster: Cluster, settable_clock: SettableClock
) -> None:
    """It is as after an outage: new sessions start, running ones go on at the true time.

    Until then all input is in the future, and /readyz says why nothing comes of it.
    """
    settable_clock.step(-HOUR_S)
    port = free_port()
    flow = cluster.start(HEARTWHEEL_HTTP_PORT=str(port))
    begun_ms = now_ms() - 1_000 * HOUR_S
    cluster.send("Start", "c-running", "running", begun_ms)
    cluster.flush()
    wait_for_heartbeat(cluster, "running", begun_ms + 1_000)
    for number in range(20):
        cluster.send("Start", f"p-{number}", f"set-aside-{number}")
    cluster.flush()
    cluster.wait("set aside", lambda: len(cluster.read(cluster.letters)) == 20)
    cluster.wait("a reason", lambda: "clock of this machine" in readiness(port))

    settable_clock.step(0)
    right_ms = now_ms()
    cluster.send("Start", "c-new", "new")
    cluster.flush()
    wait_for_heartbeat(cluster, "new", right_ms)
    wait_for_heartbeat(cluster, "running", right_ms)
    cluster.wait("readiness", lambda: readiness(port) == "ok", 10)
    assert not [at for at in heartbeats_ms(cluster, "running") if at > now_ms()]
    assert len(heartbeats_ms(cluster, "running")) < 100  # and not one a second for an hour
    assert len(cluster.read(cluster.letters)) == 20
    stop(cluster, flow)


@pytest.mark.slow
def test_clock_that_was_ten_minutes_behind_is_put_right_under_load_and_nothing_is_lost(
    cluster: Cluster, settable_clock: SettableClock
) -> None:
    """What was due in these minutes is sent, as the settings say; then all is in time."""
    settable_clock.step(-MINUTES_S)
    flow = start(cluster)
    behind_ms = now_ms() - 1_000 * MINUTES_S
    for number in range(MANY):
        cluster.send("Start", f"p-{number}", f"s-{number}", behind_ms)
    cluster.flush()
    wait_for_more(cluster, 3 * MANY)
    settable_clock.step(0)
    through_ms = wait_for_model(cluster)
    stop(cluster, flow)
    check(cluster, through_ms)


@pytest.mark.slow
def test_clock_set_an_hour_ahead_and_put_right_sends_nothing_twice(
    cluster: Cluster, settable_clock: SettableClock
) -> None:
    """A wrong clock is followed; put right, it ends the run, and the next one has the true time.

    The heartbeats of the hour are out, and are not sent again; new sessions start, beat, and end.
    """
    port = free_port()
    flow = cluster.start(HEARTWHEEL_HTTP_PORT=str(port))
    begun_ms = now_ms()
    for number in range(MANY):
        cluster.send("Start", f"p-{number}", f"s-{number}")
    cluster.flush()
    wait_for_heartbeat(cluster, "s-0", begun_ms)
    settable_clock.step(HOUR_S)
    wait_for_heartbeat(cluster, "s-0", begun_ms + 1_000 * HOUR_S)
    ahead_ms = max(heartbeats_ms(cluster, "s-0"))
    wait_for_heartbeat(cluster, "s-0", ahead_ms + 3_000)  # and some snapshots later
    assert flow.poll() is None, cluster.errors(flow)
    settable_clock.step(0)
    assert flow.wait(10) == 1
    assert "the clock of this machine was set back by 3600 s" in cluster.errors(flow)
    flow = cluster.start(HEARTWHEEL_HTTP_PORT=str(port))
    cluster.send("Start", "c-new", "new")
    cluster.send("End", "p-0", "s-0")
    cluster.flush()
    cluster.wait("the new session", lambda: "new" in cluster.sessions(), 10)
    cluster.wait("the end", lambda: isinstance(cluster.sessions()["s-0"][-1], SessionEnd), 10)
    wait_for_heartbeat(cluster, "new", now_ms())
    cluster.wait("readiness", lambda: readiness(port) == "ok", 10)
    cluster.send("End", "c-new", "new")
    cluster.flush()
    cluster.wait("the end", lambda: isinstance(cluster.sessions()["new"][-1], SessionEnd), 10)
    assert cluster.sessions()["new"][-1].time_ms <= now_ms()
    assert "ahead of this machine's clock" in cluster.errors(flow)
    assert not cluster.read(cluster.letters)
    for session in cluster.sessions():
        heartbeats_ms(cluster, session)
    stop(cluster, flow)


@pytest.mark.slow
def test_clock_set_back_by_an_hour_ends_the_run_and_the_next_goes_on_once_it_is_right(
    cluster: Cluster, settable_clock: SettableClock
) -> None:
    """One clear line and exit code 1; with a wrong clock nothing is sent twice, nor too early."""
    flow, traffic = load(cluster)
    traffic.end()
    settable_clock.step(-HOUR_S)
    assert flow.wait(10) == 1
    assert "the clock of this machine was set back by 3600 s" in cluster.errors(flow)
    port = free_port()
    flow = start(cluster, HEARTWHEEL_HTTP_PORT=str(port))
    cluster.wait("a reason", lambda: "ahead of this machine's clock" in cluster.errors(flow))
    settable_clock.step(0)
    through_ms = wait_for_model(cluster)
    cluster.wait("readiness", lambda: readiness(port) == "ok", 10)
    stop(cluster, flow)
    check(cluster, through_ms)


def with_files(limit: str) -> list[str]:
    """Return what limits the open files of a command."""
    return ["sh", "-c", f'ulimit {limit}; exec "$@"', "sh"]


@pytest.mark.parametrize("limit", [16, 24, 50, 70])
def test_start_with_too_few_open_files_names_their_limit(cluster: Cluster, limit: int) -> None:
    """In one line, whatever fails first, and what to set."""
    refused = cluster.start(before=with_files(f"-n {limit}"))
    assert refused.wait(30) == 1
    (line,) = cluster.errors(refused).splitlines()
    assert f"more open files than its limit of {limit} (" in line
    assert "`ulimit -n`" in line


def test_start_raises_a_limit_of_open_files_that_may_be_raised(cluster: Cluster) -> None:
    """Services have 1,024, which is too few with many brokers, and may have more."""
    flow = cluster.start(before=with_files("-S -n 50"))
    cluster.send("Start", "p1", "one")
    cluster.flush()
    cluster.wait("a session", lambda: "one" in cluster.sessions())
    stop(cluster, flow)


@pytest.mark.slow
def test_full_disk_ends_the_run_and_the_next_goes_on_when_there_is_room(
    cluster: Cluster, tmp_path: Path
) -> None:
    """One clear line and exit code 1; with room again, nothing is lost or doubled."""
    with small_disk(tmp_path / "disk", 64) as disk:
        cluster.variables["HEARTWHEEL_RECOVERY_DIR"] = str(disk / "recovery")
        flow, traffic = load(cluster)
        ballast = fill(disk)
        # What is stored must grow: rows that are written again find room in the files that are
        # there, and how much that is depends on when the disk became full.
        for number in range(MOST):
            if number % MORE == 0:
                cluster.flush()
                with suppress(subprocess.TimeoutExpired):
                    flow.wait(3)
                    break
            cluster.send("Start", f"p-more-{number}-{PADDING}", f"more-{number}-{PADDING}")
        assert flow.wait(60) == 1
        lines = [one for one in cluster.errors(flow).splitlines() if one.startswith("heartwheel:")]
        assert len(lines) == 1
        assert "make room" in lines[0]
        ballast.unlink()
        flow = start(cluster)
        through_ms = catch_up(cluster, traffic)
        stop(cluster, flow)
        check(cluster, through_ms)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_full_disk_of_the_broker_loses_and_doubles_nothing(
    kafka_libs: Path, tmp_path: Path
) -> None:
    """The broker ends and is away for a minute; a run that ends as well is started again."""
    assert kafka_libs.exists()
    with small_disk(tmp_path / "disk", 200) as disk:
        broker = Broker(disk / "kafka")
        broker.start()
        cluster = Cluster(broker.address, tmp_path, "full", heartbeat_ms=BROKER_FULL_S * 1_000 // 5)
        try:
            flow, traffic = start_under_load(cluster, MANY, rate=300)
            ballast = fill(disk)
            cluster.wait("the end of the broker", lambda: not broker.alive, 60)
            until_s = time.monotonic() + BROKER_FULL_S
            while time.monotonic() < until_s:
                if flow.poll() is not None:  # as a supervisor does
                    flow = start(cluster)
                time.sleep(1)
            ballast.unlink()
            broker.resume()
            if flow.poll() is not None:
                flow = start(cluster)
            through_ms = catch_up(cluster, traffic)
            stop(cluster, flow)
            check(cluster, through_ms)
        finally:
            cluster.end()
            broker.stop()
