"""Manifests for the store of a run, which no overlay has: valid, restricted, and they work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dataflows.settings_sources import environment
from tests.support.broker import ROOT
from tests.support.manifests import Manifest
from tests.support.stores import make

EXAMPLES = ROOT / "k8s" / "examples"
VALIDATE = Path(sys.executable).with_name("kubernetes-validate")
KEPT = 24


def pod_in(name: str) -> Manifest:
    """Return the spec of the pod in an example, made by a CronJob or not."""
    *_, manifest = yaml.safe_load_all((EXAMPLES / name).read_text())
    spec: Manifest = manifest["spec"]
    if manifest["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("name", ["backup.yaml", "store.yaml"])
def test_example_is_valid_and_fits_the_deployment(name: str) -> None:
    """Its pod is restricted, and has the volume, the user and the directory of the run."""
    done = subprocess.run(
        [VALIDATE, "--strict", str(EXAMPLES / name)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pod = pod_in(name)
    stateful = yaml.safe_load((ROOT / "k8s" / "base" / "statefulset.yaml").read_text())
    run = stateful["spec"]["template"]["spec"]
    assert pod["securityContext"] == run["securityContext"]
    (container,) = pod["containers"]
    assert container["securityContext"] == run["containers"][0]["securityContext"]
    (claim,) = stateful["spec"]["volumeClaimTemplates"]
    claims = {volume["name"]: volume.get("persistentVolumeClaim") for volume in pod["volumes"]}
    pod_0 = f"{stateful['metadata']['name']}-0"
    assert claims["store"] == {"claimName": f"{claim['metadata']['name']}-{pod_0}"}
    mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    assert {"name": "store", "mountPath": mounts["store"]} in run["containers"][0]["volumeMounts"]
    assert mounts.keys() == claims.keys()


def test_backups_are_made_and_the_oldest_removed(tmp_path: Path) -> None:
    """The script of the job, run as it stands but for the two directories."""
    (container,) = pod_in("backup.yaml")["containers"]
    (variable,) = container["env"]
    paths = {m["mountPath"]: str(tmp_path / m["name"]) for m in container["volumeMounts"]}
    volume = Path(variable["value"]).parent
    store = Path(paths[str(volume)])
    store.mkdir()
    make(store / "recovery", 1, 40)
    backups = Path(paths["/backups"])
    for hour in range(KEPT + 1):
        (backups / f"2026-11-25T{hour:02}-17-00Z").mkdir(parents=True)
    shell, option, script = container["command"]
    done = subprocess.run(
        [shell, option, script.replace("/backups", str(backups))],
        env=environment() | {
            "HEARTWHEEL_RECOVERY_DIR": str(store / "recovery"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        },
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    left = sorted(one.name for one in backups.iterdir())
    assert left[0] == "2026-11-25T02-17-00Z"
    assert len(left) == KEPT
    assert [one.name for one in (backups / left[-1]).iterdir()] == ["part-0.sqlite3"]
