"""Other numbers of processes and of lanes on a real Kafka, under load, between clean stops."""

import signal
import subprocess
import sys
import time

import pytest

from dataflows.settings_sources import environment
from session_logic.rules import Rules
from tests.support.broker import ROOT, create_topics
from tests.support.cluster import Cluster
from tests.support.events import kinds
from tests.support.ports import free_port
from tests.support.traffic import Traffic, check, stop, wait_for_model

RULES = Rules(1_000, 20_000, catch_up="all")
VARIABLES = {"HEARTWHEEL_CATCH_UP": "all", "HEARTWHEEL_MAX_SESSION_MS": "20000"}
# Devices, events a second, and devices whose sessions time out.
DEVICES, RATE, QUIET = 200, 100, 20
RECORDS = 500


def start(cluster: Cluster, count: int, **variables: str) -> list[subprocess.Popen[str]]:
    """Start a run of some processes."""
    addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(count))
    return [
        cluster.start("run", *(("-i", str(n), "-a", addresses) if count > 1 else ()), **variables)
        for n in range(count)
    ]


def work(cluster: Cluster) -> None:
    """Let a run that was just started go on until some records are out."""
    before = len(cluster.events())
    cluster.wait("output", lambda: len(cluster.events()) > before + RECORDS, 60)


def timed_out(cluster: Cluster, topics: list[str]) -> bool:
    """Say whether the sessions of all quiet devices have timed out."""
    events = [event for topic in topics for event in cluster.events(topic)]
    return sum("end timed_out" in kinds([event]) for event in events) >= QUIET


def finish(cluster: Cluster, topics: list[str], run: list[subprocess.Popen[str]]) -> int:
    """Wait for all that is due, timeouts too, stop, and check; return the number of records."""
    cluster.wait("timeouts", lambda: timed_out(cluster, topics), 60)
    through_ms = wait_for_model(cluster, topics, RULES)
    stop(cluster, *run)
    return check(cluster, through_ms, topics, RULES).records


@pytest.mark.slow
@pytest.mark.parametrize("parts", ["1", "3"])
def test_other_number_of_processes_loses_and_doubles_nothing(cluster: Cluster, parts: str) -> None:
    """One process, then two, three and one, on the same recovery partitions."""
    variables = VARIABLES | {"HEARTWHEEL_RECOVERY_PARTS": parts}
    with Traffic(cluster, DEVICES, RATE, seed=int(parts), quiet=QUIET):
        for count in (1, 2, 3):
            run = start(cluster, count, **variables)
            work(cluster)
            stop(cluster, *run)
        run = start(cluster, 1, **variables)
        work(cluster)
    assert finish(cluster, [cluster.output], run) > 2_000
    assert store(cluster, "check", str(cluster.folder / "recovery")) == (
        f"{cluster.folder}/recovery: OK, {parts} files and 4 lanes\n"
        f"topics: OK, a run with {cluster.folder}/recovery can go on\n"
    )


def store(cluster: Cluster, *arguments: str) -> str:
    """Run a store command and return what it prints."""
    command = [sys.executable, "-m", "heartwheel.cli", "store", *arguments]
    variables = environment() | cluster.variables | VARIABLES
    done = subprocess.run(
        command, env=variables, cwd=ROOT, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_migrated_to_other_lanes_loses_and_doubles_nothing(cluster: Cluster) -> None:
    """Four lanes, then eight, then two, each with a new store and a new output topic."""
    topics = [cluster.output]
    variables = VARIABLES | {"HEARTWHEEL_RECOVERY_PARTS": "2"}
    folder = cluster.folder / "recovery"
    with Traffic(cluster, DEVICES, RATE, seed=7, quiet=QUIET):
        for lanes in (8, 2):
            run = start(cluster, 1, **variables)
            work(cluster)
            stop(cluster, *run)
            moved = cluster.folder / f"recovery-{lanes}"
            store(cluster, "migrate", str(folder), str(moved), "--lanes", str(lanes))
            folder = moved
            topics.append(f"{topics[0]}-{lanes}")
            create_topics(cluster.admin, {topics[-1]: lanes})
            cluster.output = topics[-1]
            cluster.variables |= {
                "HEARTWHEEL_LANES": str(lanes),
                "HEARTWHEEL_RECOVERY_DIR": str(folder),
                "HEARTWHEEL_OUTPUT_TOPIC": topics[-1],
            }
        run = start(cluster, 2, **variables)
        work(cluster)
    assert finish(cluster, topics, run) > 1_500


def test_run_that_is_stopped_at_once_sends_what_it_holds_back_and_is_migrated(
    cluster: Cluster,
) -> None:
    """A new lane holds its records until two snapshots are stored."""
    sessions = {f"s{number}" for number in range(20)}
    for session in sessions:
        cluster.send("Start", f"p{session}", session)
    cluster.flush()
    (run,) = start(cluster, 1, HEARTWHEEL_SNAPSHOT_MS="3000")
    cluster.wait("a run", lambda: "running" in cluster.errors(run))
    time.sleep(1)  # until it has read them
    stop(cluster, run)
    assert set(cluster.sessions()) == sessions
    recovery = str(cluster.folder / "recovery")
    store(cluster, "migrate", recovery, f"{recovery}-2", "--lanes", "2")


@pytest.mark.parametrize("program", ["heartwheel", "bytewax"])
def test_killed_run_is_not_migrated_though_a_start_has_been_refused(
    cluster: Cluster, program: str
) -> None:
    """The start takes away SQLite's log, and the killed run may have sent more than is stored."""
    recovery = str(cluster.folder / "recovery")
    bytewax = ("dataflows.sessions:flow", "-s", "1", "-b", "0", "-r", recovery)

    def begin(session: str) -> subprocess.Popen[str]:
        if program == "bytewax":
            run = cluster.start(*bytewax, command="bytewax.run")
        else:
            (run,) = start(cluster, 1)
        cluster.send("Start", "p1", session)
        cluster.flush()
        cluster.wait("a session", lambda: session in cluster.sessions())
        return run

    run = begin("killed")
    run.kill()
    run.wait()
    (refused,) = start(cluster, 1, HEARTWHEEL_DEAD_LETTER_TOPIC="nowhere")
    assert refused.wait(30) == 2
    command = ("store", "migrate", recovery, f"{recovery}-2", "--lanes", "2")
    migration = cluster.start(*command)
    assert migration.wait(30) == 2
    assert "what it sent last is not known" in cluster.errors(migration)
    run = begin("stopped")
    run.send_signal(signal.SIGINT)
    assert run.wait(30) == 0, cluster.errors(run)
    assert cluster.start(*command).wait(30) == 0


def test_run_with_other_lanes_than_the_store_names_the_command(cluster: Cluster) -> None:
    """Exit code 2 before anything is connected to; the store stays as it is."""
    run = start(cluster, 1)
    cluster.send("Start", "p1", "s")
    cluster.flush()
    cluster.wait("a session", lambda: "s" in cluster.sessions())
    stop(cluster, *run)
    (run,) = start(cluster, 1, HEARTWHEEL_LANES="2", HEARTWHEEL_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert run.wait(10) == 2
    assert "heartwheel store migrate --lanes 2" in cluster.errors(run)
    assert len(cluster.errors(run).splitlines()) == 1
