"""Backups of a run under load, put back after it has gone on, on a real Kafka."""

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition

from tests.support.cluster import Cluster
from tests.support.command import command
from tests.support.traffic import catch_up, check, start, start_under_load, stop, wait_for_more

DEVICES = 2_000
End = Callable[[Cluster, subprocess.Popen[str]], None]


def back_up(cluster: Cluster, name: str = "backup") -> Path:
    """Back up the store of a run that goes on."""
    target = cluster.folder / name
    done = command("store", "backup", str(target), **cluster.variables)
    assert done.returncode == 0, done
    return target


def put_back(cluster: Cluster, backup: Path) -> None:
    """Have a copy of a backup in the place of the store."""
    recovery = cluster.folder / "recovery"
    shutil.rmtree(recovery)
    shutil.copytree(backup, recovery)


def kill(_cluster: Cluster, flow: subprocess.Popen[str]) -> None:
    """Kill a run, as `stop` stops it cleanly."""
    flow.kill()
    flow.wait()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("parts", "end", "seconds"),
    [
        pytest.param("1", kill, 10, id="killed"),
        pytest.param("3", stop, 10, id="stopped-3-parts", marks=pytest.mark.slow),
        pytest.param("1", kill, 25, id="old", marks=pytest.mark.slow),
    ],
)
def test_backup_that_is_put_back_after_a_while_loses_and_doubles_nothing(
    cluster: Cluster, parts: str, end: End, seconds: int
) -> None:
    """Whatever the run has sent since is in the topic, is found there, and is not sent again."""
    cluster.variables["HEARTWHEEL_RECOVERY_PARTS"] = parts
    flow, traffic = start_under_load(cluster, DEVICES, rate=500)
    wait_for_more(cluster, 5_000)
    backup = back_up(cluster)
    time.sleep(seconds)
    wait_for_more(cluster, 1)
    end(cluster, flow)
    put_back(cluster, backup)
    checked = command("store", "check", **cluster.variables)
    assert checked.returncode == 0, checked
    flow = start(cluster)
    # The run that is gone cannot say so: its lease must end first.
    cluster.wait("output", lambda: "restored" in cluster.errors(flow), 60)
    wait_for_more(cluster, 5_000)
    through_ms = catch_up(cluster, traffic)
    stop(cluster, flow)
    found = check(cluster, through_ms)
    assert found.sessions > DEVICES


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_each_of_many_backups_under_load_is_one_that_a_run_goes_on_with(cluster: Cluster) -> None:
    """One after the other is put back, and each time the run goes on from an older moment.

    Heartbeats have a topic of their own here, and the store has several parts.
    """
    cluster.give_heartbeats_a_topic()
    cluster.variables["HEARTWHEEL_RECOVERY_PARTS"] = "4"
    flow, traffic = start_under_load(cluster, DEVICES, rate=500)
    backups = []
    for number in range(4):
        wait_for_more(cluster, 2_000)
        backups.append(back_up(cluster, f"backup-{number}"))
    for backup in reversed(backups):
        stop(cluster, flow)
        put_back(cluster, backup)
        flow = start(cluster)
        wait_for_more(cluster, 2_000)
    through_ms = catch_up(cluster, traffic)
    stop(cluster, flow)
    check(cluster, through_ms)


def test_dead_letters_of_after_a_backup_are_not_written_again(cluster: Cluster) -> None:
    """They are found as the output is; those from before it, and from after it, are there once."""
    flow = cluster.start()
    send_bad(cluster, 10, 20)
    backup = back_up(cluster)
    send_bad(cluster, 20, 30)
    stop(cluster, flow)
    put_back(cluster, backup)
    flow = cluster.start()
    send_bad(cluster, 30, 40)
    stop(cluster, flow)
    letters = sorted(record.value or b"" for record in cluster.read(cluster.letters))
    assert letters == [f"bad {number}".encode() for number in range(10, 40)]


def send_bad(cluster: Cluster, first: int, after: int) -> None:
    """Send records that are no events, and wait until they are dead letters."""
    for number in range(first, after):
        cluster.send_raw(f"bad {number}".encode(), f"p{number}")
    cluster.flush()
    last = f"bad {after - 1}".encode()
    cluster.wait("letters", lambda: last in [one.value for one in cluster.read(cluster.letters)])
    time.sleep(1)  # so that a snapshot knows of them


@pytest.mark.parametrize("what", ["input", "output"])
def test_backup_from_before_what_a_topic_still_has_is_refused(cluster: Cluster, what: str) -> None:
    """By the start and by the check, in one line; the store that was replaced could go on."""
    flow = cluster.start()
    cluster.send("Start", "p1", "s0")
    cluster.flush()
    cluster.wait("heartbeats", lambda: cluster.records_out() >= 3)
    backup = back_up(cluster)
    for number in range(20):
        cluster.send("Start", "p1", f"s{number + 1}")
    cluster.flush()
    cluster.wait("sessions", lambda: len(cluster.sessions()) == 21)
    stop(cluster, flow)
    topic, partitions = (cluster.pc, 2) if what == "input" else (cluster.output, 4)
    expired = [TopicPartition(topic, partition, -1) for partition in range(partitions)]
    for future in cluster.admin.delete_records(expired).values():
        future.result()
    assert command("store", "check", **cluster.variables).returncode == 0
    put_back(cluster, backup)
    checked = command("store", "check", **cluster.variables)
    assert checked.returncode == 1
    refused = cluster.start()
    assert refused.wait(30) == 2
    (line,) = [line for line in cluster.errors(refused).splitlines() if "expired" in line]
    assert line.removeprefix("heartwheel: ") in checked.stdout
    assert f"{topic}/" in line
    assert "`heartwheel store skip` goes on" in line
    records = cluster.records_out()
    time.sleep(1)
    assert cluster.records_out() == records
