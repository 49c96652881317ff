"""The manifests: valid for Kubernetes, and consistent with each other and with the program."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Producer

from dataflows.settings import OPTION_TABLES
from dataflows.settings_sources import load_settings
from tests.support.broker import ROOT
from tests.support.manifests import (
    MONITORING,
    Manifest,
    environment_of,
    named,
    objects,
    pod_of,
)

BYTEWAX = {"BYTEWAX_POD_NAME", "BYTEWAX_STATEFULSET_NAME", "BYTEWAX_HOSTFILE_PATH"}
# What Pod Security `restricted` lets a pod mount.
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "projected", "secret"}
RESTORE_S = 16  # of 4 million sessions


def test_selectors_match_the_pods(manifests: list[Manifest]) -> None:
    """A selector that matches nothing fails without a word."""
    labels = named(manifests, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    selectors = list(_find(manifests, "selector", "podSelector", "labelSelector"))
    assert len(selectors) >= 6
    for selector in selectors:
        wanted = selector.get("matchLabels", selector)
        assert wanted, "a selector without labels matches every pod of the namespace"
        assert wanted.items() <= labels.items()
    if any(m["kind"] == "PodMonitor" for m in manifests):
        # The alerts ask for job="heartwheel".
        assert labels[named(manifests, "PodMonitor")["spec"]["jobLabel"]] == "heartwheel"


def _find(value: Any, *keys: str) -> Any:
    """Yield what stands under these keys, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in keys:
                yield inner
            yield from _find(inner, *keys)
    elif isinstance(value, list):
        for inner in value:
            yield from _find(inner, *keys)


def test_ports_match(manifests: list[Manifest]) -> None:
    """Services, probes, policies and monitors name ports that the container has."""
    (container,) = pod_of(manifests)["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    settings = load_settings(_settings(manifests))
    assert ports["http"] == settings.http_port
    service = named(manifests, "Service")["spec"]
    assert {port["targetPort"]: port["port"] for port in service["ports"]} == ports
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "http"
    policy = named(manifests, "NetworkPolicy")["spec"]
    for rule in policy["ingress"]:
        assert {port["port"] for port in rule["ports"]} <= ports.keys()
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == ports.keys()
    for monitor in (m for m in manifests if m["kind"] == "PodMonitor"):
        assert {end["port"] for end in monitor["spec"]["podMetricsEndpoints"]} == {"http"}
    broker = int(settings.bootstrap_servers.rpartition(":")[2])
    egress = [port for rule in policy["egress"] for port in rule["ports"]]
    assert any(
        port["port"] <= broker <= port.get("endPort", port["port"])
        for port in egress
        if isinstance(port["port"], int)
    )


def test_dns_is_allowed_wherever_clusters_have_it(manifests: list[Manifest]) -> None:
    """In kube-system, on the node (NodeLocal DNSCache), and in OpenShift; over UDP and TCP."""
    policy = named(manifests, "NetworkPolicy")["spec"]
    allowed = set()
    for rule in policy["egress"]:
        for peer in rule.get("to", []):
            place = peer.get("ipBlock", {}).get("cidr") or ",".join(
                peer.get("namespaceSelector", {}).get("matchLabels", {}).values()
            )
            allowed |= {(place, p["port"], p.get("protocol", "TCP")) for p in rule["ports"]}
    places = [("kube-system", 53), ("169.254.20.10/32", 53), ("openshift-dns", 5353)]
    assert {(*place, protocol) for place in places for protocol in ("UDP", "TCP")} <= allowed


def test_host_file_names_every_pod(manifests: list[Manifest]) -> None:
    """In the order of their numbers, by the Service that gives them names, at the mesh's port."""
    stateful = named(manifests, "StatefulSet")
    spec, name = stateful["spec"], stateful["metadata"]["name"]
    variables = environment_of(manifests, f"{name}-0")
    if spec["replicas"] == 1 or "HEARTWHEEL_SHARD" in variables:
        assert not BYTEWAX & variables.keys()
        return
    assert variables.keys() >= BYTEWAX
    assert variables["BYTEWAX_STATEFULSET_NAME"] == name
    service = named(manifests, "Service")
    assert spec["serviceName"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    (container,) = pod_of(manifests)["containers"]
    mesh = next(port["containerPort"] for port in container["ports"] if port["name"] == "mesh")
    assert _mounted(manifests)[variables["BYTEWAX_HOSTFILE_PATH"]].split() == [
        f"{name}-{number}.{spec['serviceName']}:{mesh}" for number in range(spec["replicas"])
    ]


def test_shards_fit_the_pods(manifests: list[Manifest]) -> None:
    """Each pod is the shard of its number, has lanes, and knows where the others answer."""
    stateful = named(manifests, "StatefulSet")
    spec, name = stateful["spec"], stateful["metadata"]["name"]
    if "HEARTWHEEL_SHARD" not in environment_of(manifests, f"{name}-0"):
        return
    assert spec["updateStrategy"]["type"] == "RollingUpdate"
    assert spec["podManagementPolicy"] == "Parallel", "none needs another one"
    budget = named(manifests, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    service = named(manifests, "Service")
    assert spec["serviceName"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    pods = [f"{name}-{number}" for number in range(spec["replicas"])]
    lanes: list[int] = []
    for number, pod in enumerate(pods):
        settings = load_settings(_settings(manifests, pod))
        assert settings.own_shard == (number, len(pods))
        assert settings.http_places == [
            f"{one}.{spec['serviceName']}:{settings.http_port}" for one in pods
        ]
        lanes += settings.own_lanes
    assert sorted(lanes) == list(range(settings.lanes))


def _mounted(manifests: list[Manifest]) -> dict[str, str]:
    """Return the files that the container finds in mounted ConfigMaps and Secrets."""
    pod = pod_of(manifests)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    files: dict[str, str] = {}
    for mount in pod["containers"][0]["volumeMounts"]:
        volume = volumes.get(mount["name"], {})
        if "configMap" in volume:
            source = named(manifests, "ConfigMap", volume["configMap"]["name"])
        elif "secret" in volume:
            source = named(manifests, "Secret", volume["secret"]["secretName"])
        else:
            continue
        files |= {f"{mount['mountPath']}/{key}": value for key, value in source["data"].items()}
    return files


def _settings(manifests: list[Manifest], pod: str = "heartwheel-0") -> dict[str, str]:
    """Return the variables that Heartwheel reads, with something in the place of each secret."""
    variables = environment_of(manifests, pod)
    return {"HOSTNAME": pod} | {
        name.removesuffix("_FILE"): "secret" if name.endswith("_FILE") else value
        for name, value in variables.items()
        if name.startswith("HEARTWHEEL_")
    }


def test_every_variable_is_a_setting(manifests: list[Manifest]) -> None:
    """Of Heartwheel, of librdkafka or of Bytewax; and what is set is right as a whole."""
    variables = environment_of(manifests, "heartwheel-0")
    assert {name for name in variables if not name.startswith("HEARTWHEEL_")} <= BYTEWAX
    settings = load_settings(_settings(manifests))
    options = {k: v for table in OPTION_TABLES for k, v in getattr(settings, table).items()}
    # Files that are not here are opened once TLS is asked for.
    files = {k: v for k, v in options.items() if k.endswith(".location")}
    Producer({**files, "log_level": "0"})
    Producer({k: v for k, v in options.items() if k not in files} | {"log_level": "0"})


def test_every_mounted_file_is_declared(manifests: list[Manifest]) -> None:
    """Secrets, settings and volumes that a pod mounts are made by the same manifests."""
    pod = pod_of(manifests)
    (container,) = pod["containers"]
    claims = named(manifests, "StatefulSet")["spec"]["volumeClaimTemplates"]
    names = {volume["name"] for volume in pod["volumes"]} | {c["metadata"]["name"] for c in claims}
    assert {mount["name"] for mount in container["volumeMounts"]} == names
    files = _mounted(manifests)  # fails where a ConfigMap or Secret is not there
    named_files = [
        value
        for name, value in environment_of(manifests, "heartwheel-0").items()
        if name.endswith(("_FILE", "_LOCATION", "_PATH"))
    ]
    assert named_files
    assert set(named_files) <= files.keys()
    for monitor in (m for m in manifests if m["kind"] == "PodMonitor"):
        for end in monitor["spec"]["podMetricsEndpoints"]:
            credentials = end["authorization"]["credentials"]
            assert credentials["key"] in named(manifests, "Secret", credentials["name"])["data"]


def test_pod_is_restricted(manifests: list[Manifest]) -> None:
    """As Pod Security asks for, which the namespace enforces; and its root is read only."""
    labels = named(manifests, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    pod = pod_of(manifests)
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod.keys()
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for volume in pod["volumes"]:
        assert volume.keys() - {"name"} <= VOLUMES
    for container in pod["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}


def test_times_fit(manifests: list[Manifest]) -> None:
    """A clean stop fits into the grace period, and a restore into the start."""
    pod = pod_of(manifests)
    (container,) = pod["containers"]
    settings = load_settings(_settings(manifests))
    assert pod["terminationGracePeriodSeconds"] >= settings.stop_timeout_ms / 1000 + 5
    startup = container["startupProbe"]
    assert startup["failureThreshold"] * startup["periodSeconds"] >= 10 * RESTORE_S
    liveness = container["livenessProbe"]
    assert (
        liveness["failureThreshold"] * liveness["periodSeconds"]
        > settings.liveness_timeout_ms / 1000
    )
    assert [container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe")] == [
        "/livez",
        "/livez",
    ]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_store_outlives_its_pods(manifests: list[Manifest]) -> None:
    """On a claim of the pod, in a folder of its own, and kept whatever is scaled or deleted."""
    spec = named(manifests, "StatefulSet")["spec"]
    claims = {claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]}
    (mount,) = (
        m for m in pod_of(manifests)["containers"][0]["volumeMounts"] if m["name"] in claims
    )
    recovery = Path(load_settings(_settings(manifests)).recovery_dir)
    assert recovery.parent == Path(mount["mountPath"])
    assert set(spec["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}
    assert spec["podManagementPolicy"] == "Parallel"


def test_prometheus_rule_is_that_of_prometheus(manifests: list[Manifest]) -> None:
    """One source: the object has the groups of monitoring/rules.yml."""
    rules = [
        m for m in manifests if m["apiVersion"] == MONITORING and m["kind"] == "PrometheusRule"
    ]
    want = yaml.safe_load((ROOT / "monitoring" / "rules.yml").read_text())
    assert [rule["spec"] for rule in rules] in ([], [want])
    made = yaml.safe_load(
        (ROOT / "k8s" / "components" / "monitoring" / "prometheusrule.yaml").read_text()
    )
    assert made["spec"] == want, "run: python -m monitoring.prometheus_rule"


def drop_label(manifests: list[Manifest]) -> None:
    """Give the pods another label than the selectors ask for."""
    template = named(manifests, "StatefulSet")["spec"]["template"]
    template["metadata"]["labels"] = {"app": "heartwheel"}


def other_port(manifests: list[Manifest]) -> None:
    """Let the container listen elsewhere."""
    pod_of(manifests)["containers"][0]["ports"][1]["containerPort"] = 8081


def unknown_variable(manifests: list[Manifest]) -> None:
    """Misspell a setting."""
    next(m for m in manifests if m["kind"] == "ConfigMap")["data"]["HEARTWHEEL_LANE"] = "8"


def unknown_option(manifests: list[Manifest]) -> None:
    """Misspell an option of librdkafka."""
    config = next(m for m in manifests if m["kind"] == "ConfigMap")["data"]
    config["HEARTWHEEL_KAFKA_SASL_MECHANISMUS"] = "PLAIN"


def no_secret(manifests: list[Manifest]) -> None:
    """Leave a secret out that is mounted."""
    manifests.remove(named(manifests, "Secret", "heartwheel-http"))


def one_host_less(manifests: list[Manifest]) -> None:
    """Forget a pod in the host file."""
    hosts = next(m for m in manifests if "hosts" in m.get("data", {}))["data"]
    hosts["hosts"] = re.sub(r".*\n$", "", hosts["hosts"])


def one_address_less(manifests: list[Manifest]) -> None:
    """Forget a shard among the addresses."""
    config = next(m for m in manifests if m["kind"] == "ConfigMap")["data"]
    config["HEARTWHEEL_HTTP_ADDRESSES"] = config["HEARTWHEEL_HTTP_ADDRESSES"].rpartition(",")[0]


def other_number_of_shards(manifests: list[Manifest]) -> None:
    """Have fewer pods than shards."""
    named(manifests, "StatefulSet")["spec"]["replicas"] = 3


def update_by_hand(manifests: list[Manifest]) -> None:
    """Replace no pod of an update."""
    named(manifests, "StatefulSet")["spec"]["updateStrategy"]["type"] = "OnDelete"


def as_root(manifests: list[Manifest]) -> None:
    """Let the pod run as anybody."""
    del pod_of(manifests)["securityContext"]["runAsNonRoot"]


@pytest.mark.parametrize(
    ("overlay", "fault", "check"),
    [
        ("cluster", drop_label, test_selectors_match_the_pods),
        ("cluster", other_port, test_ports_match),
        ("cluster", unknown_variable, test_every_variable_is_a_setting),
        ("cluster", unknown_option, test_every_variable_is_a_setting),
        ("cluster", no_secret, test_every_mounted_file_is_declared),
        ("cluster", one_host_less, test_host_file_names_every_pod),
        ("cluster", as_root, test_pod_is_restricted),
        ("shards", one_address_less, test_shards_fit_the_pods),
        ("shards", other_number_of_shards, test_shards_fit_the_pods),
        ("shards", update_by_hand, test_shards_fit_the_pods),
    ],
)
def test_planted_fault_is_found(
    rendered: dict[str, str],
    overlay: str,
    fault: Callable[[list[Manifest]], None],
    check: Callable[[list[Manifest]], None],
) -> None:
    """The checks above can fail."""
    manifests = objects(rendered[overlay])
    check(manifests)
    fault(manifests)
    with pytest.raises(Exception):  # noqa: B017, PT011  # each fails in its own way
        check(manifests)
