"""The image and the compose file: well formed, and the package has all that is needed."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataflows.settings_sources import load_settings
from tests.support.broker import ROOT
from tests.support.dockerfile import stages

BIN = Path(sys.executable).parent
SERVICES = {"kafka", "topics", "heartwheel", "fleet", "prometheus", "grafana", "console"}
OURS = {"topics", "heartwheel", "fleet"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """Return the compose file."""
    file: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return file


def test_dockerfile_has_no_fault_for_hadolint() -> None:
    """Not even one of style."""
    done = subprocess.run(
        [BIN / "hadolint", "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_image_runs_without_a_shell_and_without_root() -> None:
    """A signal reaches Heartwheel itself, and a crash is the exit code of the container."""
    build, image, waxctl, last = stages()
    assert last == [("FROM", "heartwheel")]
    for word, rest in build + image + waxctl:
        command = rest[rest.index("CMD") + 3 :] if word == "HEALTHCHECK" else rest
        if word in {"RUN", "CMD", "ENTRYPOINT", "HEALTHCHECK"}:
            assert json.loads(command), f"{word} {rest} is not in exec form"
    made = dict(image)
    assert made["USER"] == "10001:10001"
    assert json.loads(made["ENTRYPOINT"]) == ["heartwheel"]
    assert json.loads(made["CMD"]) == ["run"]


def test_package_of_the_image_has_every_file(tmp_path: Path) -> None:
    """Installed as the Dockerfile does, from only what it copies, each module and page is there."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    copied = [n for word, rest in stages()[0] if word == "COPY" for n in rest.split()[:-1]]
    ignored = (ROOT / ".dockerignore").read_text().split()
    for name in copied:
        assert f"!{name}" in ignored
        subprocess.run(["cp", "-r", ROOT / name, source], check=True)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    install += ["--no-build-isolation", "--no-index", f"--target={target}", str(source)]
    subprocess.run(install, check=True, capture_output=True)
    for package in ("heartwheel", "dataflows", "session_logic"):
        own = {p.relative_to(ROOT) for p in (ROOT / package).rglob("*") if p.is_file()}
        there = {p.relative_to(target) for p in (target / package).rglob("*")}
        assert {p for p in own if "__pycache__" not in p.parts} <= there
    assert (target / "bin" / "heartwheel").exists()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_start_by_the_chart_of_waxctl_is_heartwheel_itself(tmp_path: Path, workers: str) -> None:
    """Its shells give way to the process, so that signals and exit codes are its own."""
    link = next(json.loads(rest) for word, rest in stages()[2] if word == "RUN")
    assert link[:2] + link[3:] == ["ln", "-s", "/opt/heartwheel/bin/sh"]
    (tmp_path / "sh").symlink_to(link[2])
    command = tmp_path / "heartwheel"
    command.write_text(
        '#!/bin/sh\necho "$@" $BYTEWAX_WORKERS_PER_PROCESS\nps -o pid= -p $$\nexit 7\n'
    )
    command.chmod(0o755)
    done = subprocess.Popen(
        ["sh", "-c", "sh ./entrypoint.sh"],  # as the chart has it
        cwd=ROOT / "k8s" / "waxctl",
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "BYTEWAX_WORKERS_PER_PROCESS": workers},
        stdout=subprocess.PIPE,
        text=True,
    )
    said, _ = done.communicate(timeout=10)
    assert said.split() == ["run", workers, str(done.pid)]
    assert done.returncode == 7
    assert (
        subprocess.run(["sh", ROOT / "k8s/waxctl/entrypoint-recovery.sh"], check=False).returncode
        == 0
    )


def test_compose_file_is_valid() -> None:
    """By the schema of the compose specification."""
    done = subprocess.run(
        [BIN / "check-jsonschema", "--builtin-schema=vendor.compose-spec", "docker-compose.yml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_compose_file_is_of_one_mind(compose: dict[str, Any]) -> None:
    """Every volume, config, file, dependency and variable that it names is there."""
    services = compose["services"]
    assert services.keys() == SERVICES
    for name, service in services.items():
        assert set(service.get("depends_on", [])) <= services.keys()
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (
                (ROOT / source).exists() if source.startswith(".") else source in compose["volumes"]
            )
        for config in service.get("configs", []):
            assert config["source"] in compose["configs"]
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} is open to other machines"
        assert re.fullmatch(r"\S+:v?\d+\.\d+\.\d+", service["image"]), "a version, not latest"
    for name in OURS:
        service = services[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        settings = load_settings(
            {k.removesuffix("_FILE"): v for k, v in service["environment"].items()}
        )
        assert settings.bootstrap_servers in services["kafka"]["environment"][
            "KAFKA_ADVERTISED_LISTENERS"
        ].replace("INSIDE://", "")
    grace = services["heartwheel"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) >= settings.stop_timeout_ms / 1000 + 5


def test_commands_of_the_compose_file_exist(compose: dict[str, Any]) -> None:
    """With the options that are given; none does anything here."""
    for name in OURS:
        command = compose["services"][name]["command"]
        done = subprocess.run(
            [sys.executable, "-m", "heartwheel.cli", *command, "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, shlex.join(command) + done.stderr
