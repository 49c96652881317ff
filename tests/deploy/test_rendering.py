"""What kustomize makes of the overlays, against the schema of Kubernetes."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.broker import ROOT
from tests.support.missing import KUBECTL, require

VALIDATE = Path(sys.executable).with_name("kubernetes-validate")


def validate(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Let kubernetes-validate judge a text."""
    file = folder / "all.yaml"
    file.write_text(text)
    return subprocess.run(
        [VALIDATE, "--strict", str(file)], capture_output=True, text=True, check=False
    )


def test_overlay_is_valid_for_kubernetes(
    overlay: str, rendered: dict[str, str], tmp_path: Path
) -> None:
    """Only the objects of the Prometheus operator have no schema, which is warned of."""
    done = validate(rendered[overlay], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in (done.stdout + done.stderr).splitlines():
        assert "PodMonitor" in line or "PrometheusRule" in line or "WARN" not in line.upper(), line


def test_misspelt_field_is_found(rendered: dict[str, str], tmp_path: Path) -> None:
    """The validation can fail."""
    wrong = rendered["cluster"].replace("podManagementPolicy", "podManagmentPolicy")
    assert validate(wrong, tmp_path).returncode == 1


def test_folder_without_secrets_renders_nothing(tmp_path: Path) -> None:
    """No deployment gets a secret that is written in this repository."""
    require(KUBECTL)
    copy = shutil.copytree(ROOT / "k8s", tmp_path / "k8s", ignore=lambda *_: ["secrets"])
    done = subprocess.run(
        ["kubectl", "kustomize", str(copy / "overlays" / "single")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "secrets/http-token" in done.stderr
