"""The pods of a StatefulSet on one machine, each in namespaces of its own, and a Kafka for them."""

import base64
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from heartwheel.silent_peers import SILENCE_S
from session_logic.rules import Rules
from tests.support.broker import Broker
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
from tests.support.manifests import Manifest, environment_of, named, pod_of

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
        self._service = spec["serviceName"]
        self._sandboxes = [Sandbox(number) for number in range(spec["replicas"])]
        self.pods = [self._pod(number) for number in range(spec["replicas"])]
        for pod in self.pods:
            pod.start()

    def publish(self, after_s: float = DNS_S) -> None:
        """Let the pods be found by their names, some time after they have started."""
        time.sleep(after_s)
        hosts = {
            f"{self.name}-{number}.{self._service}": sandbox.address
            for number, sandbox in enumerate(self._sandboxes)
        }
        for pod in self.pods:
            pod.hosts = hosts
            pod.publish(hosts)

    def _pod(self, number: int) -> Container:
        name = f"{self.name}-{number}"
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
            variables | own | {"HOSTNAME": name},
            {},
            mounts,
            tmpfs,
            enter=self._sandboxes[number].enter,
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

    def kill_shard(self, number: int) -> None:
        """Kill a process, which is started again; the others must not care."""
        self.pods[number].signal(signal.SIGKILL)
        self.pods[number].process.wait(STOP_S)
        self.pods[number].start()

    def update(self, manifests: list[Manifest]) -> list[tuple[float, float]]:
        """Update by RollingUpdate; return when each pod was gone, as s since 1970, from 0 on.

        The last one is the first, and each has to be ready before the next one. A new pod has a
        new address, which its name stands for.
        """
        self._manifests = manifests
        away = []
        for number in reversed(range(len(self.pods))):
            begin_s = time.time()
            self.pods[number].signal(signal.SIGTERM)
            grace_s = pod_of(manifests)["terminationGracePeriodSeconds"]
            assert self.pods[number].process.wait(grace_s) == 0, self.logs()
            self._sandboxes[number].end()
            self._sandboxes[number] = Sandbox(number, self._sandboxes[number].host + 100)
            self.pods[number] = self._pod(number)
            self.pods[number].start()
            self.publish(after_s=0)
            self.wait_until_ready()
            away.append((begin_s, time.time()))
        return away[::-1]

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
        self.wait_until_ready()
        assert all(self.probe("startupProbe") + self.probe("livenessProbe"))
        time.sleep(RUN_S)

    def wait_until_ready(self) -> None:
        """Wait until all pods are ready."""
        deadline = time.monotonic() + 60
        while not all(self.probe("readinessProbe")):
            states = [self.get(number, "/readyz") for number in range(len(self.pods))]
            assert time.monotonic() < deadline, states
            time.sleep(0.2)


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


@contextmanager
def kafka_for_pods(folder: Path, **options: int) -> Iterator[Cluster]:
    """Give topics on a Kafka that pods reach, with these options of a Cluster."""
    require_namespaces()
    with own_network(), ExitStack() as stack:
        broker = BridgedBroker(folder / "kafka")
        stack.callback(broker.stop)
        broker.start()
        yield Cluster(broker.address, folder, "pods", lanes=LANES, **options)
