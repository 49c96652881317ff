"""The services of the compose file, started by hand: same commands, variables, files and users."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml

from tests.support.broker import ROOT, fetch_kafka
from tests.support.container import (
    USER,
    Container,
    Mount,
    heartwheel,
    own_network,
    require_namespaces,
)
from tests.support.dockerfile import stages

pytestmark = pytest.mark.usefixtures("kafka_libs")
LIBS = "/opt/kafka/libs"
JAVA = f"java -Xmx384m -cp '{LIBS}/*'"
# There is no Grafana and no console to be had here without an engine.
STARTED = ("kafka", "topics", "heartwheel", "fleet", "prometheus")
USERS = {"kafka": 1000, "prometheus": 65534}  # of those images
HEALTHY = "http://localhost:9090/-/healthy"
WAIT_S = 90


class Project:
    """The services of the file, in one network in which each is found by its name."""

    def __init__(self, folder: Path) -> None:
        self._file: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
        self._folder = folder
        hosts = dict.fromkeys(self._file["services"], "127.0.0.1")
        self.services = {
            name: Container(
                folder / name,
                self._command(name),
                self._environment(name),
                hosts,
                self._mounts(name),
                ("/tmp",),  # noqa: S108  # inside of the container
                user=USERS.get(name, USER),
                read_only=self._file["services"][name].get("read_only", False),
            )
            for name in STARTED
        }

    def _command(self, name: str) -> list[str]:
        service = self._file["services"][name]
        if name == "prometheus":
            return ["prometheus", *service["command"]]
        if name != "kafka":
            return heartwheel(*service["command"])
        # As the image does: properties from the variables, then the storage, then the broker.
        format_ = f"{JAVA} kafka.tools.StorageTool format --ignore-formatted"
        cluster = service["environment"]["CLUSTER_ID"]
        file = "/etc/kafka/server.properties"
        return ["sh", "-c", f"{format_} -t {cluster} -c {file} && exec {JAVA} kafka.Kafka {file}"]

    def _environment(self, name: str) -> dict[str, str]:
        environment: dict[str, str] = self._file["services"][name].get("environment", {})
        return environment

    def _mounts(self, name: str) -> list[Mount]:
        service, mounts = self._file["services"][name], []
        for volume in service.get("volumes", []):
            source, target, *mode = volume.split(":")
            if source.startswith("."):
                mounts.append(Mount(ROOT / source, target, mode == ["ro"]))
            else:
                folder = self._folder / "volumes" / source
                folder.mkdir(parents=True, exist_ok=True)
                user = USERS.get(name, USER)
                os.chown(folder, user, user)  # as the images have their directories
                mounts.append(Mount(folder, target, read_only=False))
        for config in service.get("configs", []):
            content = self._file["configs"][config["source"]]["content"]
            file = self._folder / config["source"]
            file.write_text(content.partition(":-")[2].removesuffix("}"))
            mounts.append(Mount(file, config["target"]))
        if name == "kafka":
            file = self._folder / "server.properties"
            file.write_text(_properties(service["environment"]))
            mounts += [
                Mount(file, "/etc/kafka/server.properties"),
                Mount(fetch_kafka().resolve(), LIBS),
            ]
        return mounts

    def health_check(self, name: str) -> list[str]:
        """Return the command of a health check, of the file or of the image."""
        check = self._file["services"][name].get("healthcheck")
        if check is None:
            said = dict(stages()[1])["HEALTHCHECK"]
            command: list[str] = json.loads(said[said.index("CMD") + 3 :])
            return command
        kind, *command = check["test"]
        assert kind == "CMD"
        if name == "prometheus":  # what promtool asks for; that of Debian cannot do so yet
            assert command == ["/bin/promtool", "check", "healthy"]
            return ["python", "-c", f"import urllib.request as r; r.urlopen('{HEALTHY}')"]
        if name == "kafka":  # what the script of Kafka starts
            return [
                "sh",
                "-c",
                f"{JAVA} org.apache.kafka.tools.TopicCommand {' '.join(command[1:])}",
            ]
        return command

    def wait(self, what: str, name: str, condition: Callable[[], object]) -> None:
        """Wait until a condition holds, while a service runs."""
        deadline = time.monotonic() + WAIT_S
        while not condition():
            service = self.services[name]
            assert service.process.poll() is None, f"{what}: {name} has ended: {service.log()}"
            assert time.monotonic() < deadline, f"waited for {what}: {service.log()}"
            time.sleep(0.5)

    def wait_until_healthy(self, name: str) -> None:
        """Wait until the health check of a service succeeds."""
        command = self.health_check(name)
        service = self.services[name]
        self.wait("health", name, lambda: service.execute(*command).returncode == 0)


def _properties(variables: dict[str, str]) -> str:
    """Return server.properties as Kafka's image makes them from variables."""
    return "".join(
        f"{name.removeprefix('KAFKA_').lower().replace('_', '.')}={value}\n"
        for name, value in variables.items()
        if name.startswith("KAFKA_")
    )


def ask(path: str, port: int, token: str | None = None) -> Any:
    """Return what a server on loopback answers."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urlopen(Request(f"http://127.0.0.1:{port}{path}", headers=headers), timeout=10) as answer:
        return answer.read().decode()


def query(expression: str) -> list[float]:
    """Return the values of a PromQL expression, as Prometheus has it now."""
    answer = json.loads(ask(f"/api/v1/query?query={expression}", 9090))
    return [float(found["value"][1]) for found in answer["data"]["result"]]


def loaded_rules() -> list[dict[str, Any]]:
    """Return the groups of rules that Prometheus has."""
    groups: list[dict[str, Any]] = json.loads(ask("/api/v1/rules", 9090))["data"]["groups"]
    return groups


def healths(groups: list[dict[str, Any]]) -> set[str]:
    """Return how the rules of these groups are."""
    return {rule["health"] for group in groups for rule in group["rules"]}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """Return the services, none of them started."""
    require_namespaces()
    with own_network(), ExitStack() as stack:
        project = Project(tmp_path)
        for service in project.services.values():
            stack.callback(service.end)
        yield project


@pytest.mark.slow
def test_services_work_together(project: Project) -> None:
    """In the order of their dependencies; at last Prometheus has the sessions of the fleet."""
    services = project.services
    services["kafka"].start()
    services["prometheus"].start()
    project.wait_until_healthy("kafka")
    services["topics"].start()
    assert services["topics"].process.wait(WAIT_S) == 0, services["topics"].log()
    services["heartwheel"].start()
    project.wait_until_healthy("heartwheel")
    services["fleet"].start()
    project.wait_until_healthy("prometheus")
    project.wait("sessions", "prometheus", lambda: sum(query("heartwheel_active_sessions")) > 0)
    assert query('up{job="heartwheel"}') == [1]
    rules = yaml.safe_load((ROOT / "monitoring" / "rules.yml").read_text())["groups"]
    assert [group["name"] for group in loaded_rules()] == [group["name"] for group in rules]
    # Each is unknown until it is evaluated for the first time.
    project.wait("rules", "prometheus", lambda: healths(loaded_rules()) == {"ok"})

    services["heartwheel"].signal(signal.SIGTERM)
    assert services["heartwheel"].process.wait(30) == 0, services["heartwheel"].log()
    services["heartwheel"].start()
    project.wait_until_healthy("heartwheel")
    assert "Traceback" not in "".join(service.log() for service in services.values())
