"""Three processes as the StatefulSet would start them, each in a pod of its own on one machine."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from dataflows.settings_sources import environment
from tests.support.broker import ROOT
from tests.support.cluster import Cluster
from tests.support.manifests import SECRETS, Manifest, named, objects, pod_of, render
from tests.support.pods import LANES, OK, RULES, UNAUTHORIZED, StatefulSet, kafka_for_pods
from tests.support.traffic import Traffic, wait_for_model
from tests.support.traffic import check as check_output

pytestmark = pytest.mark.usefixtures("kafka_libs")


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[Cluster]:
    """Return topics on a Kafka that the pods reach."""
    with kafka_for_pods(tmp_path) as cluster:
        yield cluster


def check(folder: Path) -> str:
    """Return what `heartwheel store check` says of a store."""
    command = [sys.executable, "-m", "heartwheel.cli", "store", "check", str(folder), "--offline"]
    done = subprocess.run(
        command, env=environment(), cwd=ROOT, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_killed_pod_and_rescaling_lose_and_double_nothing(tmp_path: Path, kafka: Cluster) -> None:
    """Three pods, one killed, all started again, twice; then two pods; each has its own volume."""
    three = objects(render("cluster", tmp_path))
    folder = tmp_path / "run"
    folder.mkdir()
    with ExitStack() as stack:
        with Traffic(kafka, 200, rate=100, seed=11, quiet=20):
            pods = StatefulSet(kafka, folder, three)
            stack.callback(pods.end)
            assert not any(pods.probe("readinessProbe"))  # nobody can find the others yet
            pods.publish()
            pods.work()
            assert pods.partitions() == [["part-0.sqlite3"], [], []]
            check_access(pods)
            for number in (1, 0):  # the second has the store
                pods.kill(number)
                pods.work()
            pods.stop()
            assert [pod.starts for pod in pods.pods] == [3, 3, 3]
            pods = StatefulSet(kafka, folder, rescaled(three, 2))
            stack.callback(pods.end)
            pods.publish()
            pods.work()
            assert pods.partitions() == [["part-0.sqlite3"], []]
        through_ms = wait_for_model(kafka, rules=RULES)
        pods.stop()
    assert check_output(kafka, through_ms, rules=RULES).records > 2_000
    store = pods.claim("heartwheel-0") / "recovery"
    assert check(store) == f"{store}: OK, 1 files and {LANES} lanes\n"


@pytest.mark.slow
def test_pod_whose_link_is_cut_ends_all_in_time_and_loses_nothing(
    tmp_path: Path, kafka: Cluster
) -> None:
    """No connection is closed then; pod 1, and pod 0, which has the store and the lease."""
    three = objects(render("cluster", tmp_path))
    folder = tmp_path / "run"
    folder.mkdir()
    with ExitStack() as stack:
        with Traffic(kafka, 200, rate=100, seed=12, quiet=20):
            pods = StatefulSet(kafka, folder, three)
            stack.callback(pods.end)
            pods.publish()
            pods.work()
            for number in (1, 0):
                pods.cut_off(number)
                pods.work()
        through_ms = wait_for_model(kafka, rules=RULES)
        pods.stop()
    assert check_output(kafka, through_ms, rules=RULES).records > 2_000


def check_access(pods: StatefulSet) -> None:
    """Check that the probes need no token, and that all else does."""
    for number in range(len(pods.pods)):
        assert pods.get(number, "/metrics")[0] == UNAUTHORIZED
        status, text = pods.get(number, "/metrics", SECRETS["base"]["http-token"])
        assert status == OK
        assert "heartwheel_build_info" in text


def rescaled(manifests: list[Manifest], replicas: int) -> list[Manifest]:
    """Return the same objects for another number of pods."""
    copy = objects(yaml.safe_dump_all(manifests))
    named(copy, "StatefulSet")["spec"]["replicas"] = replicas
    volumes = {volume["name"]: volume for volume in pod_of(copy)["volumes"]}
    hosts = named(copy, "ConfigMap", volumes["hosts"]["configMap"]["name"])["data"]
    hosts["hosts"] = "".join(hosts["hosts"].splitlines(keepends=True)[:replicas])
    return copy
