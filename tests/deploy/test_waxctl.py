"""The values for waxctl, against what its chart takes."""

from pathlib import Path

import yaml

from dataflows.settings_sources import load_settings
from tests.support.broker import ROOT

CHART_VALUES = {
    "affinity",
    "api",
    "configuration",
    "containerName",
    "customOtlpUrl",
    "env",
    "envFromSecret",
    "envFromSecrets",
    "envRenderSecret",
    "extraLabels",
    "extraSecretMounts",
    "extraVolumeMounts",
    "image",
    "imagePullSecrets",
    "nodeSelector",
    "podAnnotations",
    "podLabels",
    "podMonitor",
    "podSecurityContext",
    "resources",
    "securityContext",
    "service",
    "serviceAccount",
    "tolerations",
}
CHART_GRACE_S = 10
CHART_VOLUME = "/var/recovery"


def test_values_for_waxctl_fit_its_chart() -> None:
    """Only what the chart reads, real settings, and a stop within the time that it allows."""
    values = yaml.safe_load((ROOT / "k8s" / "waxctl" / "values.yaml").read_text())
    assert values.keys() <= CHART_VALUES
    variables = {k: v for k, v in values["env"].items() if k.startswith("HEARTWHEEL_")}
    known = {
        k.removesuffix("_FILE"): "secret" if k.endswith("_FILE") else v
        for k, v in variables.items()
    }
    settings = load_settings(known)
    # As docs/kubernetes.md has it for shards.
    shard = load_settings(known | {"HEARTWHEEL_ROUTE": "partition", "HEARTWHEEL_SHARD": "3/4"})
    assert shard.own_lanes == range(3, shard.lanes, 4)
    assert settings.stop_timeout_ms / 1000 < CHART_GRACE_S
    assert Path(settings.recovery_dir).parent == Path(CHART_VOLUME)
    (mount,) = values["extraSecretMounts"]
    assert Path(variables["HEARTWHEEL_HTTP_TOKEN_FILE"]).parent == Path(mount["mountPath"])
