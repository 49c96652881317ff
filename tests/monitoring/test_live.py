"""Rules and dashboard on a real Prometheus that scrapes a real run on a real Kafka."""

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.broker import Broker
from tests.support.cluster import Cluster
from tests.support.expressions import (
    RULES,
    Expression,
    of_cases,
    of_dashboard,
    of_rules,
    recorded,
    selected,
)
from tests.support.ports import free_port
from tests.support.prometheus import BEARER, Prometheus
from tests.support.traffic import Traffic

pytestmark = pytest.mark.usefixtures("kafka_libs")
pytestmark = pytest.mark.slow
DEVICES = 2_000
# The rules wait for minutes: here a second stands for so many, and one is scraped every second.
FASTER = 15
# What the rules look back on beyond minutes is this long.
BACK_S = {"1h": 40, "1d": 60, "1w": 40}
UNITS_S = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
# Long enough for a silent topic to be seen while its sessions are still there.
IDLE_MS = 35_000
# After which a topic is silent, and more devices than tell something.
SILENCE_S, MANY = 300, 1_500
# Labels that Prometheus adds.
TARGET = {"job", "instance", "pod"}
# A process that waits for another one, which is never started.
LONELY = "lonely"
# A shard of two, the other one of which is never started.
HALVED = "halved"


def hurried(rules: str) -> str:
    """Return the rules with shorter times."""

    def shorter(found: re.Match[str]) -> str:
        seconds = int(found[2]) * UNITS_S[found[3]] // FASTER
        return f"{found[1]}{BACK_S.get(found[2] + found[3], seconds)}s"

    rules = rules.replace(f"vector({SILENCE_S})", f"vector({SILENCE_S // FASTER})")
    return re.sub(r"(\[|for: |offset )(\d+)([mhdw])", shorter, rules)


class World:
    """A Kafka, a run with traffic, a process that waits for others, and a Prometheus."""

    def __init__(self, folder: Path) -> None:
        self.broker = Broker(folder / "kafka")
        self.broker.start()
        self.cluster = Cluster(self.broker.address, folder, "monitored")
        self.ports = {job: free_port() for job in ("heartwheel", LONELY, HALVED)}
        self.flow = self.start()
        addresses = f"127.0.0.1:{free_port()};127.0.0.1:{free_port()}"
        self.serve(
            LONELY, "run", "-i", "0", "-a", addresses,
            HEARTWHEEL_RECOVERY_DIR=str(folder / "lonely"), HEARTWHEEL_FENCING="false",
            HEARTWHEEL_NEW_STORE="true",
        )  # fmt: skip
        self.traffic = Traffic(self.cluster, DEVICES, rate=200)
        self.traffic.start_all()
        self.traffic.begin()
        rules = hurried(RULES.read_text())
        self.prometheus = Prometheus(folder / "prometheus", self.ports, rules)

    def serve(self, job: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start a process that a job scrapes."""
        own = {"HEARTWHEEL_HTTP_PORT": str(self.ports[job]), "HEARTWHEEL_HTTP_TOKEN": BEARER}
        return self.cluster.start(*arguments, **(variables | own))

    def start(self, **variables: str) -> subprocess.Popen[str]:
        """Start the run, or start it again."""
        self.flow = self.serve("heartwheel", **variables)
        return self.flow

    def wait_for(self, *alerts: str, seconds: float = 60) -> None:
        """Wait until alerts fire."""
        self.cluster.wait(f"{alerts}", lambda: self.prometheus.firing() >= set(alerts), seconds)

    def wait_for_peace(self) -> None:
        """Wait until nothing fires but what looks back on a longer time."""
        later = {"HeartwheelDeadLetters", "HeartwheelRestarting"}
        later |= {"HeartwheelHeartbeatsLate", "HeartwheelEventsSlow"}
        self.cluster.wait("peace", lambda: self.prometheus.firing() <= later)

    def end(self) -> None:
        """Stop everything."""
        self.broker.process.send_signal(signal.SIGCONT)
        self.traffic.end()
        self.cluster.end()
        self.prometheus.end()
        self.broker.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Return a world that all tests here share; each leaves it in peace."""
    own = World(tmp_path_factory.mktemp("monitoring"))
    yield own
    own.end()


def exposed(world: World) -> dict[str, set[str]]:
    """Return the labels of every metric that the run exposes."""
    labels: dict[str, set[str]] = {}
    for series, _ in world.prometheus.query('{job="heartwheel"}'):
        labels.setdefault(series["__name__"], set()).update(series)
    return labels


def test_healthy_run_gives_data_for_every_panel_and_fires_nothing(world: World) -> None:
    """No panel is empty, and each legend names labels that are there."""
    prometheus = world.prometheus

    def lacking() -> list[Expression]:
        found = {ask: prometheus.query(ask.expr) for ask in of_dashboard()}
        return [
            ask
            for ask, series in found.items()
            if not series or not all(ask.legend <= labels.keys() for labels, _ in series)
        ]

    world.cluster.wait("data in every panel", lambda: not lacking())
    world.cluster.wait("a while", lambda: prometheus.course("up > 0", 60)[0]["values"][15:])
    assert not lacking()
    assert prometheus.firing() == set()


def test_metrics_and_labels_that_are_asked_for_exist(world: World) -> None:
    """Rules, their tests and the dashboard ask for nothing that a run does not expose."""
    world.cluster.wait("metrics", lambda: "heartwheel_active_sessions" in exposed(world))
    there = exposed(world)
    for ask in [*of_rules(), *of_cases(), *of_dashboard()]:
        for metric, labels in selected(ask.expr).items():
            if metric in recorded():
                continue
            assert metric in there, (ask, metric)
            assert labels <= there[metric] | TARGET, (ask, metric, labels)


def test_bad_input_fires_dead_letters(world: World) -> None:
    """One record is enough."""
    world.cluster.send_raw(b"no json", "p1")
    world.wait_for("HeartwheelDeadLetters")
    ((labels, count),) = world.prometheus.query("heartwheel_dead_letters_total > 0")
    assert (labels["reason"], count) == ("not_json", 1)
    world.wait_for_peace()


def test_kafka_that_hangs_fires_no_progress_and_clock_lag(world: World) -> None:
    """What comes after is late, too, for the alerts on latency."""
    assert world.broker.process is not None
    world.broker.process.send_signal(signal.SIGSTOP)
    world.wait_for("HeartwheelNoProgress", "HeartwheelClockLag")
    world.broker.process.send_signal(signal.SIGCONT)
    late = {
        a.expr
        for a in of_rules()
        if a.where in {"HeartwheelHeartbeatsLate", "HeartwheelEventsSlow"}
    }
    world.cluster.wait("lateness", lambda: all(map(world.prometheus.query, late)))
    world.wait_for_peace()


def test_process_that_hangs_fires_down(world: World) -> None:
    """It answers no scrape."""
    world.flow.send_signal(signal.SIGSTOP)
    world.wait_for("HeartwheelDown")
    world.flow.send_signal(signal.SIGCONT)
    world.wait_for_peace()


def test_process_killed_again_and_again_fires_restarting(world: World) -> None:
    """Every start is seen, and what was found in the output topic is counted."""
    for _ in range(3):
        world.flow.kill()
        world.flow.wait()
        world.start()
        begin_s = time.time()
        world.cluster.wait(
            "the new process",
            lambda since_s=begin_s: world.prometheus.query(
                f"heartwheel_heartbeats_total > 0 and on(instance) "
                f"process_start_time_seconds{{job='heartwheel'}} > {since_s - 1}"
            ),
        )
    world.wait_for("HeartwheelRestarting")
    world.cluster.wait(
        "reconciled records",
        lambda: world.prometheus.query(
            "max_over_time(heartwheel_reconciled_records_total[2m]) > 0"
        ),
    )
    world.wait_for_peace()


def test_process_that_waits_for_another_fires_an_old_snapshot(world: World) -> None:
    """Its own metrics are there, but the dataflow does not run; the other job is not concerned."""
    world.cluster.wait(
        "an old snapshot",
        lambda: world.prometheus.firing(LONELY) == {"HeartwheelSnapshotOld"},
        90,
    )
    assert "HeartwheelSnapshotOld" not in world.prometheus.firing()


def test_shard_without_the_other_one_fires_shard_missing(world: World) -> None:
    """Of two shards, of other topics; the run that is none is concerned by nothing."""
    folder = world.cluster.folder / HALVED
    folder.mkdir()
    topics = Cluster(world.broker.address, folder, HALVED, lanes=2)
    shard = {"HEARTWHEEL_ROUTE": "partition", "HEARTWHEEL_SHARD": "0/2"}
    one = world.serve(HALVED, "run", **(topics.variables | shard))
    world.cluster.wait(
        "the missing shard",
        lambda: world.prometheus.firing(HALVED) == {"HeartwheelShardMissing"},
    )
    assert "HeartwheelShardMissing" not in world.prometheus.firing()
    topics.end()
    one.kill()
    one.wait()


def test_restart_with_many_sessions_fires_nothing_about_the_fleet(world: World) -> None:
    """Nor does the time without metrics. There is enough before and after to tell a fall."""
    query = world.prometheus.query
    for number in range(MANY):
        world.cluster.send("Start", f"c-many-{number}", "s")
    world.cluster.flush()
    active = 'heartwheel:active_sessions{platform="console"}'
    before = f"{active} offset 4m >= {MANY} unless on () max_over_time(heartwheel:unsettled[5m])"
    world.cluster.wait("a calm while", lambda: query(hurried(before)), 60)
    begin_s = time.time()
    world.flow.kill()
    world.flow.wait()
    # A start may take less time than there is between two scrapes.
    world.cluster.wait("the process is gone", lambda: query("heartwheel:unsettled"))
    world.start()
    world.cluster.wait("a calm while", lambda: query(hurried(before)), 60)
    fleet = 'ALERTS{alertstate="firing",alertname=~".*(Sessions|Silent|Ends|Replaced).*"}'
    assert world.prometheus.course(fleet, time.time() - begin_s) == []
    world.wait_for_peace()


def test_fleet_that_starts_anew_and_falls_silent_fires_all_that_is_about_it(world: World) -> None:
    """Devices start twice without an end, and then say nothing, until silence ends their sessions.

    A topic whose platform has few sessions may be silent. The traffic does not come back.
    """
    query = world.prometheus.query
    share = hurried('heartwheel:ends:share1h{outcome="replaced"} offset 1d')
    world.cluster.wait("the shares of a while ago", lambda: query(share), 90)
    world.flow.terminate()
    assert world.flow.wait(30) == 0
    world.start(HEARTWHEEL_IDLE_TIMEOUT_MS=str(IDLE_MS))
    for session in ("before", "crashed", "again"):
        for number in range(MANY):
            world.cluster.send("Start", f"c-many-{number}", session)
    world.traffic.end()
    for alert, label, value in (
        ("HeartwheelReplacedRising", "platform", "console"),
        ("HeartwheelInputSilent", "topic", world.cluster.console),
        ("HeartwheelSessionsFell", "platform", "console"),
        ("HeartwheelSessionsBelowLastWeek", "platform", "console"),
        ("HeartwheelEndsMissing", "platform", "console"),
    ):
        # In one look: what fell is not firing for long.
        fired = f'ALERTS{{alertname="{alert}",alertstate="firing",{label}="{value}"}}'
        world.cluster.wait(f"{alert} of {value}", lambda fired=fired: query(fired), 60)
    world.wait_for_peace()
