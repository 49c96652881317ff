"""The manifests as `kubectl kustomize` renders them, with secrets of a test's own."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.support.broker import ROOT
from tests.support.missing import KUBECTL, require

OVERLAYS = ("single", "cluster", "shards", "secure")
MONITORING = "monitoring.coreos.com/v1"
KAFKA = ("ca.crt", "tls.crt", "tls.key", "username", "password")
SECRETS = {
    "base": {"http-token": "0123456789abcdef"},
    "components/kafka-tls-sasl": {name: f"the {name}" for name in KAFKA},
}
Manifest = dict[str, Any]


def render(overlay: str, folder: Path) -> str:
    """Return the YAML of an overlay, rendered in a copy of k8s/ that has secrets.

    Without kubectl the test fails in CI, and is skipped elsewhere.
    """
    require(KUBECTL)
    copy = folder / "k8s"
    if not copy.exists():
        shutil.copytree(ROOT / "k8s", copy, ignore=shutil.ignore_patterns("secrets"))
        for part, files in SECRETS.items():
            (copy / part / "secrets").mkdir()
            for name, text in files.items():
                (copy / part / "secrets" / name).write_text(text)
    return subprocess.run(
        ["kubectl", "kustomize", str(copy / "overlays" / overlay)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def objects(text: str) -> list[Manifest]:
    """Return the objects of a YAML text."""
    return list(yaml.safe_load_all(text))


def named(manifests: list[Manifest], kind: str, name: str | None = None) -> Manifest:
    """Return the one object of this kind and name."""
    (found,) = (m for m in manifests if m["kind"] == kind and name in {None, m["metadata"]["name"]})
    return found


def pod_of(manifests: list[Manifest]) -> Manifest:
    """Return the pod's spec of the StatefulSet."""
    spec: Manifest = named(manifests, "StatefulSet")["spec"]["template"]["spec"]
    return spec


def environment_of(manifests: list[Manifest], pod_name: str) -> dict[str, str]:
    """Return the variables of the container of a pod, as the kubelet sets them."""
    (container,) = pod_of(manifests)["containers"]
    variables: dict[str, str] = {}
    for source in container.get("envFrom", []):
        variables |= named(manifests, "ConfigMap", source["configMapRef"]["name"])["data"]
    for variable in container.get("env", []):
        if "value" in variable:
            variables[variable["name"]] = variable["value"]
        else:
            assert variable["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
            variables[variable["name"]] = pod_name
    return variables
