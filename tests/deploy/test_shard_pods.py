"""Four shards as the StatefulSet of their overlay has them, each in a pod of its own."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from dataflows.settings_sources import load_settings
from tests.support.cluster import Cluster
from tests.support.manifests import SECRETS, Manifest, objects, render
from tests.support.pods import LANES, OK, RULES, StatefulSet, kafka_for_pods
from tests.support.silences import longest_silence
from tests.support.topic import outputs
from tests.support.traffic import Traffic, check, wait_for_model

pytestmark = [pytest.mark.usefixtures("kafka_libs"), pytest.mark.slow]
NOT_FOUND = 404
TOKEN = SECRETS["base"]["http-token"]


def test_killed_shard_and_rolling_update_concern_no_other_pod(tmp_path: Path) -> None:
    """Nothing is lost or doubled, and no session is silent for longer than one pod was away."""
    manifests = objects(render("shards", tmp_path))
    folder = tmp_path / "run"
    folder.mkdir()
    with kafka_for_pods(tmp_path, input_partitions=LANES) as kafka, ExitStack() as stack:
        with Traffic(kafka, 200, rate=100, seed=13, quiet=20):
            pods = StatefulSet(kafka, folder, manifests)
            stack.callback(pods.end)
            pods.work()  # nobody needs to find the others
            pods.publish()
            assert pods.partitions() == [["part-0.sqlite3"]] * 4
            check_one_view(kafka, pods, "p-before")
            pods.kill_shard(1)
            pods.wait_until_ready()
            assert [pod.starts for pod in pods.pods] == [1, 2, 1, 1]
            away = pods.update(with_setting(manifests, "HEARTWHEEL_LOG_LEVEL", "debug"))
            check_one_view(kafka, pods, "p-after")
        through_ms = wait_for_model(kafka, rules=RULES)
        pods.stop()
        assert check(kafka, through_ms, rules=RULES).records > 2_000
        allowed_ms = max(end_s - begin_s for begin_s, end_s in away) * 1000 + RULES.heartbeat_ms
        allowed_ms += load_settings({}).ready_lag_ms
        assert longest_silence(outputs(kafka.address, kafka.output)).took_ms <= allowed_ms


def check_one_view(kafka: Cluster, pods: StatefulSet, device: str) -> None:
    """Check that each pod finds a device of any pod, and knows of one that none has."""
    kafka.send("Start", device, f"{device}-session")
    kafka.flush()

    def found(number: int, device: str) -> object:
        status, text = pods.get(number, f"/devices/{device}", TOKEN)
        return (status, json.loads(text)["active"]) if status == OK else (status, text)

    numbers = range(len(pods.pods))
    kafka.wait(device, lambda: [found(n, device) for n in numbers] == [(OK, True)] * len(numbers))
    # It takes all shards to know that, and one that did not answer would be named (502).
    assert {pods.get(n, "/devices/nobody", TOKEN)[0] for n in numbers} == {NOT_FOUND}


def with_setting(manifests: list[Manifest], name: str, value: str) -> list[Manifest]:
    """Return the same objects with another setting."""
    copy = objects(yaml.safe_dump_all(manifests))
    for manifest in copy:
        if manifest["kind"] == "ConfigMap":
            manifest["data"][name] = value
    return copy
