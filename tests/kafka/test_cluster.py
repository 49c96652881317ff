"""Several workers on a real Kafka: threads, processes, and stops of all or of one of them."""

import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import pytest

from dataflows.timer_slack import DEFAULT_US, LATE_US, SIGNALS_US
from tests.support.check import check_whole
from tests.support.cluster import Cluster
from tests.support.disk import fill, small_disk
from tests.support.events import kinds
from tests.support.ports import free_port
from tests.support.threads import slack_ns
from tests.support.traffic import stop

DEVICES = 500
STOP_S = 20
# A process that is behind says so more often than this.
QUIET_S = 12
# While a process is away, heartbeats become due: with this, every one of them is sent.
ALL = {"HEARTWHEEL_CATCH_UP": "all"}
PADDING = 90 * "x"
Flow = subprocess.Popen[str]


def start_one(cluster: Cluster) -> list[Flow]:
    """Start one process, whose main thread does all."""
    return [cluster.start("run", **ALL)]


def start_threads(cluster: Cluster) -> list[Flow]:
    """Start one process with two worker threads."""
    return [cluster.start("run", "-w", "2", **ALL)]


def start_processes(cluster: Cluster, **variables: str) -> list[Flow]:
    """Start two processes."""
    addresses = f"127.0.0.1:{free_port()};127.0.0.1:{free_port()}"
    return [
        cluster.start("run", "-i", str(number), "-a", addresses, **ALL, **variables)
        for number in range(2)
    ]


def send(cluster: Cluster, kind: str, devices: range, session: str) -> None:
    """Send an event for every device, half of them on each platform."""
    for number in devices:
        cluster.send(kind, f"{'cp'[number % 2]}{number}", f"{session}-{number}")
    cluster.flush()


def wait_for(cluster: Cluster, what: str, count: int) -> None:
    """Wait until so many sessions have had this record; a cluster waits for its old lease."""

    def found() -> bool:
        return sum(what in kinds(events) for events in cluster.sessions().values()) >= count

    cluster.wait(f"{count} times {what}", found, 60)


def start_beating(cluster: Cluster) -> list[Flow]:
    """Start two processes, and wait until each device has had a heartbeat."""
    flows = start_processes(cluster)
    send(cluster, "Start", range(DEVICES), "a")
    wait_for(cluster, "beat 1", DEVICES)
    return flows


def check_next_start(cluster: Cluster) -> None:
    """Start both again, end the sessions of all devices, and check each."""
    start_processes(cluster)
    send(cluster, "End", range(DEVICES), "a")
    wait_for(cluster, "end ended", DEVICES)
    check_whole(cluster.sessions())


@pytest.mark.parametrize("start", [start_threads, start_processes])
def test_stop_of_all_and_start_again_loses_and_doubles_nothing(
    cluster: Cluster, start: Callable[[Cluster], list[Flow]]
) -> None:
    """Two workers do what one does, stop cleanly under load, and go on where they ended."""
    for turn in range(2):
        flows = start(cluster)
        send(cluster, "Start", range(DEVICES), f"a{turn}")
        wait_for(cluster, "beat 2", DEVICES * (turn + 1))
        send(cluster, "End", range(0, DEVICES, 5), f"a{turn}")
        for flow in flows:
            flow.send_signal(signal.SIGTERM)
        assert [flow.wait(STOP_S) for flow in flows] == [0] * len(flows), cluster.errors(flows[0])
    start(cluster)
    wait_for(cluster, "end ended", 2 * DEVICES // 5)
    sessions = cluster.sessions()
    assert len(sessions) == 2 * DEVICES
    check_whole(sessions)
    for number in range(DEVICES):
        last = "end ended" if number % 5 == 0 else "end replaced"
        assert kinds(sessions[f"a0-{number}"])[-1] == last


def slacks_us(flow: Flow) -> dict[str, set[int]]:
    """Return how late each thread of a process may be woken up, by its name without a number."""
    slacks: dict[str, set[int]] = defaultdict(set)
    for task in Path(f"/proc/{flow.pid}/task").iterdir():
        is_main = int(task.name) == flow.pid
        with suppress(OSError):  # it has ended by now
            name = "main" if is_main else (task / "comm").read_text().strip().rstrip("-0123456789")
            slacks[name].add(slack_ns(int(task.name)) // 1_000)
    return slacks


@pytest.mark.parametrize(
    ("start", "main_us", "work_us"),
    [
        (start_one, LATE_US, [set()]),
        # Of two threads in a process, one may be the only one that has polled.
        (start_threads, SIGNALS_US, [{LATE_US}, {DEFAULT_US, LATE_US}]),
        (start_processes, SIGNALS_US, [{LATE_US}]),
    ],
)
def test_loops_may_wake_up_late_and_kafkas_threads_less_so(
    cluster: Cluster, start: Callable[[Cluster], list[Flow]], main_us: int, work_us: list[set[int]]
) -> None:
    """Each thread has the slack that it is to have, once records have gone through all."""
    flows = start(cluster)
    send(cluster, "Start", range(DEVICES), "s")
    wait_for(cluster, "beat 1", DEVICES)

    def sleep_long(flow: Flow) -> bool:
        slacks = slacks_us(flow)
        return slacks["main"] == {main_us} and slacks["timely:work"] in work_us

    for flow in flows:
        cluster.wait("late wake-ups, as nothing comes", partial(sleep_long, flow), 10)
        # A client that is made when the flow runs has that of its worker; it sends no records.
        assert slacks_us(flow)["rdk:broker"] <= {DEFAULT_US, LATE_US}


@pytest.mark.parametrize(
    ("number", "sign"),
    [
        (0, signal.SIGTERM),
        (1, signal.SIGINT),
        pytest.param(0, signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(1, signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_stop_of_one_process_is_a_stop_of_all(
    cluster: Cluster, number: int, sign: signal.Signals
) -> None:
    """Nobody goes on with half of the input: all exit with 0, and the next start goes on."""
    flows = start_beating(cluster)
    flows[number].send_signal(sign)
    assert [flow.wait(STOP_S) for flow in flows] == [0, 0], cluster.errors(flows[number])
    check_next_start(cluster)


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_kill_of_one_process_ends_all_and_the_next_start_resumes(
    cluster: Cluster, number: int
) -> None:
    """A member that is gone takes the others with it, so that a supervisor restarts them all."""
    flows = start_beating(cluster)
    flows[number].kill()
    assert flows[1 - number].wait(STOP_S) == 1
    assert "heartwheel: the connection to another process" in cluster.errors(flows[1 - number])
    assert "Any {" not in cluster.errors(flows[1 - number]).rpartition("heartwheel: ")[2]
    check_next_start(cluster)


@pytest.mark.parametrize("lane", [0, 1])
def test_process_that_fails_tells_why_and_the_other_one_that_it_is_gone(
    cluster: Cluster, lane: int
) -> None:
    """Both must be looked at, and one of the two lines says what to do."""
    flows = start_beating(cluster)
    cluster.send_raw(b"of another program", "c1", where=(cluster.output, lane))
    cluster.flush()
    assert [flow.wait(STOP_S) for flow in flows] == [1, 1]
    last = sorted(cluster.errors(flow).splitlines()[-1] for flow in flows)
    assert "another program writes to this partition" in last[0]
    assert "the connection to another process of the cluster is lost" in last[1]


@pytest.mark.slow
def test_full_disk_ends_all_and_each_says_so(cluster: Cluster, tmp_path: Path) -> None:
    """Bytewax tells of the connection alone; with room again the next start goes on."""
    with small_disk(tmp_path / "disk", 64) as disk:
        cluster.variables["HEARTWHEEL_RECOVERY_DIR"] = str(disk / "recovery")
        flows = start_beating(cluster)
        ballast = fill(disk)
        for turn in range(20):  # rows must be more than there is room for in the files
            if any(flow.poll() is not None for flow in flows):
                break
            send(cluster, "Start", range(10_000), f"more-{turn}-{PADDING}")
            time.sleep(1)
        assert [flow.wait(STOP_S) for flow in flows] == [1, 1]
        for flow in flows:
            last = cluster.errors(flow).splitlines()[-1]
            assert f"{disk}/recovery cannot be written (" in last
            assert "make room" in last
        ballast.unlink()
        flows = start_processes(cluster)
        send(cluster, "Start", range(DEVICES), "last")
        cluster.wait("new sessions", lambda: f"last-{DEVICES - 1}" in cluster.sessions(), 60)
        stop(cluster, *flows)
        check_whole(cluster.sessions())


def test_stop_while_another_process_is_awaited_exits_within_the_limit(cluster: Cluster) -> None:
    """A process whose peer never comes can still be stopped; there is nothing to save yet."""
    addresses = f"127.0.0.1:{free_port()};127.0.0.1:{free_port()}"
    variables = ALL | {"HEARTWHEEL_STOP_TIMEOUT_MS": "2000"}
    flow = cluster.start("run", "-i", "0", "-a", addresses, **variables)
    cluster.wait("its peer awaited", lambda: "waiting for" in cluster.errors(flow))
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(10) == 1
    assert "heartwheel: not stopped within 2 s" in cluster.errors(flow)


@pytest.mark.parametrize("first", [0, 1])
def test_process_that_waits_for_another_says_for_which(cluster: Cluster, first: int) -> None:
    """In the log and to the probe for readiness, and both go on once the other has come."""
    ports = [free_port(), free_port()]
    addresses = [f"127.0.0.1:{port}" for port in ports]
    page = free_port()

    def start(number: int, http_port: int) -> Flow:
        return cluster.start(
            "run", "-i", str(number), "-a", ";".join(addresses), HEARTWHEEL_HTTP_PORT=str(http_port)
        )

    waiting = start(first, page)
    awaited = f"waiting for process {1 - first} ({addresses[1 - first]})"
    cluster.wait("the log", lambda: awaited in cluster.errors(waiting))
    assert ready(page) == f"{awaited}\n"
    other = start(1 - first, 0)
    cluster.wait("a connection", lambda: "all processes are connected" in cluster.errors(waiting))
    cluster.wait("both ready", lambda: ready(page) == "ok\n")
    assert "waiting for" not in cluster.errors(other)


def ready(port: int) -> str:
    """Return what a process says of its readiness."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/readyz")
    answer = connection.getresponse().read().decode()
    connection.close()
    return answer


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_pause_of_one_process_leaves_no_trace(cluster: Cluster, number: int) -> None:
    """Their epochs end together again, so that all input is read all the while."""
    flows = start_processes(cluster, HEARTWHEEL_SNAPSHOT_MS="1000")
    send(cluster, "Start", range(DEVICES), "a")
    wait_for(cluster, "beat 1", DEVICES)
    flows[number].send_signal(signal.SIGSTOP)
    time.sleep(3)
    flows[number].send_signal(signal.SIGCONT)

    def behind() -> int:
        return sum(cluster.errors(flow).count("catching up") for flow in flows)

    cluster.wait_for_quiet(QUIET_S, behind, 90)
