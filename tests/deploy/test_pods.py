"""Three processes as the StatefulSet would start them, each in a pod of its own on one machine."""

import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml

from dataflows.settings_sources import environment
from heartwheel.silent_peers import SILENCE_S
from session_logic.rules import Rules
from tests.support.broker import ROOT, Broker
from tests.support.cluster import Cluster
from tests.support.container import (
    BRIDGE,
    USER,
    Container,
    Mount,
    Sandbox,
    heartwheel,
    own_network,
    require_namespaces,
)
from tests.support.manifests import (
    SECRETS,
    Manifest,
    environment_of,
    named,
    objects,
    pod_of,
    render,
)
from tests.support.traffic import Traffic, wait_for_model
from tests.support.traffic import check as check_output

pytestmark = pytest.mark.usefixtures("kafka_libs")
RULES = Rules(1_000, 20_000, catch_up="all")
LANES = 8
RUN_S = 4
STOP_S = 30
# What a process needs to end once its connections have.
MARGIN_S = 5
OK, UNAUTHORIZED = 200, 401
# Names are known a while after the pods have started.
DNS_S = 2


class StatefulSet:
    """The pods of an overlay on one machine, and the part of the kubelet that restarts them."""

    def __init__(self, cluster: Cluster, folder: Path, manifests: list[Manifest]) -> None:
        self._cluster = cluster
        self._folder = folder
        self._claims = folder / "claims"
        self._manifests = manifests
        spec = named(manifests, "StatefulSet")["spec"]
        self.name = named(manifests, "StatefulSet")["metadata"]["name"]
        names = [f"{self.name}-{number}" for number in range(spec["replicas"])]
        self._sandboxes = [Sandbox(number) for number in range(spec["replicas"])]
        self._hosts = {
            f"{name}.{spec['serviceName']}": sandbox.address
            for name, sandbox in zip(names, self._sandboxes, strict=True)
        }
        self.pods = [
            self._pod(name, sandbox) for name, sandbox in zip(names, self._sandboxes, strict=True)
        ]
        for pod in self.pods:
            pod.start()

    def publish(self) -> None:
        """Let the pods be found by their names, some time after they have started."""
        time.sleep(DNS_S)
        for pod in self.pods:
            pod.hosts = self._hosts
            pod.publish(self._hosts)

    def _pod(self, name: str, sandbox: Sandbox) -> Container:
        (container,) = pod_of(self._manifests)["containers"]
        mounts, tmpfs = self._volumes(name, container["volumeMounts"])
        variables = environment_of(self._manifests, name)
        # What an operator's own overlay says: where Kafka is, and what is short for a test.
        own = dict(self._cluster.variables)
        for name_ in ("HEARTWHEEL_RECOVERY_DIR", "HEARTWHEEL_HTTP_PORT"):
            own.pop(name_, None)
        own["HEARTWHEEL_MAX_SESSION_MS"] = str(RULES.max_session_ms)
        own["HEARTWHEEL_CATCH_UP"] = RULES.catch_up
        folder = self._folder / f"{len(list(self._folder.iterdir()))}-{name}"
        return Container(
            folder,
            heartwheel(*container["args"]),
            variables | own,
            {},
            mounts,
            tmpfs,
            enter=sandbox.enter,
            user=pod_of(self._manifests)["securityContext"]["runAsUser"],
        )

    def _volumes(self, pod: str, wanted: list[Manifest]) -> tuple[list[Mount], list[str]]:
        volumes = {volume["name"]: volume for volume in pod_of(self._manifests)["volumes"]}
        mounts, tmpfs = [], []
        for mount in wanted:
            volume = volumes.get(mount["name"], {})
            if "emptyDir" in volume:
                tmpfs.append(mount["mountPath"])
                continue
            folder = self._folder / "volumes" / f"{mount['name']}-{pod}"
            if "secret" in volume:
                secret = named(self._manifests, "Secret", volume["secret"]["secretName"])
                files = {n: base64.b64decode(v) for n, v in secret["data"].items()}
                _write(folder, files, volume["secret"]["defaultMode"])
            elif "configMap" in volume:
                data = named(self._manifests, "ConfigMap", volume["configMap"]["name"])["data"]
                _write(folder, {n: v.encode() for n, v in data.items()}, 0o644)
            else:
                folder = self.claim(pod)
                folder.mkdir(parents=True, exist_ok=True)
                os.chown(folder, -1, USER)
                folder.chmod(0o2775)  # as for any fsGroup
            mounts.append(Mount(folder, mount["mountPath"], mount.get("readOnly", False)))
        return mounts, tmpfs

    def claim(self, pod: str) -> Path:
        """Return the volume of a pod, which outlives it."""
        (template,) = named(self._manifests, "StatefulSet")["spec"]["volumeClaimTemplates"]
        return self._claims / f"{template['metadata']['name']}-{pod}"

    def partitions(self) -> list[list[str]]:
        """Return which recovery partitions each process can see."""
        return [
            sorted(path.name for path in self.claim(f"{self.name}-{n}").rglob("*.sqlite3"))
            for n in range(len(self.pods))
        ]

    def kill(self, number: int) -> None:
        """Kill a process; the others must exit by themselves, and all are started again."""
        self.pods[number].signal(signal.SIGKILL)
        codes = [pod.process.wait(STOP_S) for pod in self.pods]
        assert codes == [1] * len(self.pods), self.logs()  # unshare says 1 for a killed process
        for pod in self.pods:
            pod.start()

    def cut_off(self, number: int) -> None:
        """Cut the link of a pod; all must exit by themselves, and are started again with it."""
        self._sandboxes[number].set_link("down")
        deadline_s = time.monotonic() + SILENCE_S + MARGIN_S
        codes = [pod.process.wait(deadline_s - time.monotonic()) for pod in self.pods]
        assert 0 not in codes, self.logs()
        self._sandboxes[number].set_link("up")
        for pod in self.pods:
            pod.start()

    def stop(self) -> None:
        """Stop all pods as scaling to nothing does; each must exit cleanly in its time."""
        for pod in self.pods:
            pod.signal(signal.SIGTERM)
        grace_s = pod_of(self._manifests)["terminationGracePeriodSeconds"]
        assert [pod.process.wait(grace_s) for pod in self.pods] == [0] * len(self.pods), self.logs()
        self.end()

    def end(self) -> None:
        """Let nothing be left."""
        for pod in self.pods:
            pod.end()
        for sandbox in self._sandboxes:
            sandbox.end()

    def logs(self) -> str:
        """Return what the pods have printed."""
        return "\n".join(pod.log() for pod in self.pods)

    def get(self, number: int, path: str, token: str | None = None) -> tuple[int, str]:
        """Return status and text that a pod answers."""
        (container,) = pod_of(self._manifests)["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        url = f"http://{self._sandboxes[number].address}:{ports['http']}{path}"
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            with urlopen(Request(url, headers=headers), timeout=5) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def probe(self, probe: str) -> list[bool]:
        """Return for each pod whether a probe of the manifest succeeds now."""
        (container,) = pod_of(self._manifests)["containers"]
        path = container[probe]["httpGet"]["path"]
        return [self.get(number, path)[0] == OK for number in range(len(self.pods))]

    def work(self) -> None:
        """Let it go on for some time after its first output, until all pods are ready."""
        before = len(self._cluster.events())
        deadline = time.monotonic() + 60
        while len(self._cluster.events()) == before:
            assert time.monotonic() < deadline, self.logs()
            assert all(pod.process.poll() is None for pod in self.pods), self.logs()
            time.sleep(0.2)
        while not all(self.probe("readinessProbe")):
            assert time.monotonic() < deadline, [self.get(n, "/readyz") for n in range(3)]
            time.sleep(0.2)
        assert all(self.probe("startupProbe") + self.probe("livenessProbe"))
        time.sleep(RUN_S)


def _write(folder: Path, files: dict[str, bytes], mode: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
        (folder / name).chmod(mode)
        os.chown(folder / name, 0, USER)


class BridgedBroker(Broker):
    """A Kafka that pods reach."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        properties = self._properties.read_text()
        self._properties.write_text(
            properties.replace("PLAINTEXT://127.0.0.1", f"PLAINTEXT://{BRIDGE}")
        )

    @property
    def address(self) -> str:
        """Where clients reach it."""
        return super().address.replace("127.0.0.1", BRIDGE)


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[Cluster]:
    """Return topics on a Kafka that the pods reach."""
    require_namespaces()
    with own_network(), ExitStack() as stack:
        broker = BridgedBroker(tmp_path / "kafka")
        stack.callback(broker.stop)
        broker.start()
        yield Cluster(broker.address, tmp_path, "pods", lanes=LANES)


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
