"""Two runs on one output: only one of them writes, and the topic shows it."""

import shutil
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from session_logic.codec import decode_output
from session_logic.events import OutputEvent
from tests.support.broker import Broker
from tests.support.check import check_whole
from tests.support.cluster import Cluster
from tests.support.ports import free_port
from tests.support.proxy import Api, ProxiedBroker
from tests.support.traffic import ALL

DEVICES = 200
QUIET_S = 0.3
TAKEN_S = 90
Flow = subprocess.Popen[str]


def begin(cluster: Cluster, *commands: tuple[str, ...]) -> list[Flow]:
    """Start a run, in as many processes as commands; its sessions all beat at the same moment."""
    flows = [cluster.start(*command, **ALL) for command in commands or [("run",)]]
    for number in range(DEVICES):
        cluster.send("Start", f"{'cp'[number % 2]}{number}", f"s{number}", 1_000 * int(time.time()))
    cluster.flush()
    wait_for_beats(cluster)
    return flows


def wait_for_beats(cluster: Cluster, seconds: float = 60) -> None:
    """Wait until every session has had two more records than now."""
    before = cluster.records_out()
    cluster.wait("beats", lambda: cluster.records_out() >= before + 2 * DEVICES, seconds)


class Takeover:
    """Another run, with a new store, that writes everything again behind what is there."""

    def __init__(self, cluster: Cluster, folders: list[Path], **variables: str) -> None:
        """Start it, and wait until it has the lease."""
        self._cluster = cluster
        addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in folders)
        self.flows = []
        for number, folder in enumerate(folders):
            place = ("-i", str(number), "-a", addresses) if len(folders) > 1 else ()
            variables["HEARTWHEEL_RECOVERY_DIR"] = str(folder)
            self.flows.append(cluster.start("run", "--new-store", *place, **ALL, **variables))
        first = self.flows[0]
        cluster.wait("another run", lambda: "starting" in cluster.errors(first), TAKEN_S)
        self._ends: dict[int, int] = defaultdict(int)
        for record in cluster.read(cluster.output):
            self._ends[record.partition] = record.offset + 1
        wait_for_beats(cluster)

    def check(self) -> None:
        """Check that since the takeover nobody else has written: nothing doubled or misplaced."""
        wait_for_beats(self._cluster)
        sessions: defaultdict[str, list[OutputEvent]] = defaultdict(list)
        for record in self._cluster.read(self._cluster.output):
            if record.offset >= self._ends[record.partition]:
                event = decode_output(record.value or b"")
                sessions[event.session_id].append(event)
        assert len(sessions) == DEVICES
        check_whole(dict(sessions))
        for flow in self.flows:
            assert flow.poll() is None, self._cluster.errors(flow)


def test_second_run_on_the_same_store_is_refused(cluster: Cluster) -> None:
    """The lock of the recovery directory keeps it out, with what to do."""
    first = cluster.start()
    cluster.send("Start", "p1", "s")
    cluster.flush()
    cluster.wait("a session", lambda: "s" in cluster.sessions())
    second = cluster.start()
    assert second.wait(20) == 2
    assert "is in use by another run" in cluster.errors(second)
    assert first.poll() is None


def test_second_run_with_another_store_is_refused_while_the_first_lives(
    cluster: Cluster, tmp_path: Path
) -> None:
    """The lease on the output topic keeps it out; after a clean stop it may write at once."""
    first = cluster.start()
    cluster.send("Start", "p1", "s")
    cluster.flush()
    cluster.wait("a session", lambda: "s" in cluster.sessions())
    other = str(tmp_path / "other")
    second = cluster.start(HEARTWHEEL_RECOVERY_DIR=other, HEARTWHEEL_START="latest")
    assert second.wait(30) == 1
    assert "is being written to by another run" in cluster.errors(second)
    first.send_signal(signal.SIGTERM)
    assert first.wait(20) == 0
    third = cluster.start(
        "run", "--new-store", HEARTWHEEL_RECOVERY_DIR=other, HEARTWHEEL_START="latest"
    )

    def later() -> bool:
        """Send it again as long as the run, which begins at the topic's end, has not begun."""
        cluster.send("Start", "p2", "later")
        cluster.flush()
        return "later" in cluster.sessions()

    cluster.wait("a session of the other run", later)
    third.send_signal(signal.SIGTERM)
    assert third.wait(20) == 0


@pytest.mark.slow
def test_run_on_a_copied_directory_is_refused_however_often_it_starts(
    cluster: Cluster, tmp_path: Path
) -> None:
    """The lock file is in the copy as well, so its name proves nothing; the healthy run goes on."""
    (first,) = begin(cluster)
    first.send_signal(signal.SIGTERM)
    assert first.wait(30) == 0
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "recovery", copy)
    again = cluster.start(**ALL)
    wait_for_beats(cluster)
    for _ in range(3):
        copied = cluster.start(HEARTWHEEL_RECOVERY_DIR=str(copy), **ALL)
        assert copied.wait(30) == 1
        assert "another directory has a copy of this store" in cluster.errors(copied)
    wait_for_beats(cluster)
    assert again.poll() is None, cluster.errors(again)
    check_whole(cluster.sessions())


@pytest.mark.slow
def test_copied_directory_goes_on_where_a_dead_run_was(cluster: Cluster, tmp_path: Path) -> None:
    """A restored backup, or a volume on another machine, waits for the lease of before."""
    (first,) = begin(cluster)
    first.kill()
    first.wait()
    (tmp_path / "recovery").rename(tmp_path / "gone")
    shutil.copytree(tmp_path / "gone", tmp_path / "recovery")
    again = cluster.start(**ALL)
    cluster.wait("the wait", lambda: "waiting 30 s for the lease" in cluster.errors(again))
    wait_for_beats(cluster, TAKEN_S)
    check_whole(cluster.sessions())


@pytest.mark.slow
def test_paused_run_that_another_has_followed_writes_nothing_more(
    cluster: Cluster, tmp_path: Path
) -> None:
    """It ends with an error, and nothing of it comes behind the records of the other."""
    (first,) = begin(cluster)
    cluster.wait_for_quiet(QUIET_S)
    first.send_signal(signal.SIGSTOP)
    other = Takeover(cluster, [tmp_path / "other"])
    first.send_signal(signal.SIGCONT)
    assert first.wait(30) == 1
    assert "lease" in cluster.errors(first) or "taken over" in cluster.errors(first)
    other.check()


@pytest.mark.slow
def test_paused_process_of_a_cluster_that_another_has_followed_writes_nothing_more(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Its first process is dead, and the lease was that one's."""
    addresses = f"127.0.0.1:{free_port()};127.0.0.1:{free_port()}"
    first, second = begin(
        cluster,
        ("run", "-i", "0", "-a", addresses),
        ("run", "-i", "1", "-a", addresses),
    )
    cluster.wait_for_quiet(QUIET_S)
    second.send_signal(signal.SIGSTOP)
    first.kill()
    other = Takeover(cluster, [tmp_path / "other-0", tmp_path / "other-1"])
    second.send_signal(signal.SIGCONT)
    assert second.wait(30) == 1
    other.check()


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True], ids=["alive", "killed"])
def test_run_behind_a_cut_network_gives_up_what_is_on_its_way(
    far_cluster: Cluster, proxied: ProxiedBroker, tmp_path: Path, *, killed: bool
) -> None:
    """It ends by itself; what it had for Kafka does not come once the network is whole again.

    That is so for what it had enqueued, for requests on connections that Kafka's client has left
    meanwhile because nobody answered, and for what the kernel had when the run was killed.
    """
    cluster = far_cluster
    (first,) = begin(cluster)
    with ExitStack() as network:
        proxied.proxy.cut_at(Api.PRODUCE)
        cluster.wait("records on their way", lambda: not proxied.proxy.whole)
        network.enter_context(proxied.proxy.cut())
        if killed:
            first.kill()
        other = Takeover(
            cluster, [tmp_path / "other"], HEARTWHEEL_BOOTSTRAP_SERVERS=cluster.address
        )
        assert first.wait(60) == (-signal.SIGKILL if killed else 1)
        given_up = "that Kafka had not acknowledged were given up" in cluster.errors(first)
        assert given_up is not killed
    other.check()


@pytest.mark.slow
def test_bytewax_run_has_lock_and_lease_as_well(cluster: Cluster, tmp_path: Path) -> None:
    """What the one keeps out the other does, too, on the same store and on another."""
    recovery = tmp_path / "recovery"
    arguments = ("dataflows.sessions:flow", "-s", "1", "-b", "0", "-r")
    first = cluster.start(*arguments, str(recovery), command="bytewax.run", **ALL)
    cluster.send("Start", "p1", "s")
    cluster.flush()
    cluster.wait("a session", lambda: "s" in cluster.sessions())
    for command, given in (
        ("heartwheel.cli", ("run",)),
        ("bytewax.run", (*arguments, str(recovery))),
    ):
        locked = cluster.start(*given, command=command)
        assert locked.wait(30) == 2
        assert "is in use by another run" in cluster.errors(locked)
    other = cluster.start(*arguments, str(tmp_path / "other"), command="bytewax.run")
    assert other.wait(30) == 1
    assert "is being written to by another run" in cluster.errors(other)
    without = cluster.start(*arguments[:-1], command="bytewax.run")
    assert without.wait(30) == 2
    assert "give a recovery directory (-r)" in cluster.errors(without)
    first.send_signal(signal.SIGINT)
    assert first.wait(30) == 0, cluster.errors(first)
    again = cluster.start(**ALL)
    beats = len(cluster.sessions()["s"])
    cluster.wait("more beats", lambda: len(cluster.sessions()["s"]) > beats + 1)
    assert "waiting" not in cluster.errors(again)
    check_whole(cluster.sessions())


@pytest.fixture
def new_kafka(kafka_libs: Path, tmp_path: Path) -> Iterator[Broker]:
    """Return a Kafka that has not made its topic of groups yet."""
    assert kafka_libs.exists()
    kafka = Broker(tmp_path / "kafka", properties="offsets.topic.num.partitions=200\n")
    kafka.start()
    yield kafka
    kafka.stop()


def test_first_run_on_a_new_broker_waits_for_the_coordinator(
    tmp_path: Path, new_kafka: Broker
) -> None:
    """Kafka makes its topic of groups when first asked, and has nobody to answer meanwhile."""
    cluster = Cluster(new_kafka.address, tmp_path, "new")
    try:
        flow = cluster.start()
        cluster.send("Start", "p1", "s")
        cluster.flush()
        cluster.wait("a session", lambda: "s" in cluster.sessions())
        flow.send_signal(signal.SIGTERM)
        assert flow.wait(20) == 0, cluster.errors(flow)
    finally:
        cluster.end()
