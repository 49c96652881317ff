"""Examples of records, settings and manifests are right."""

import json
import re
import subprocess
from pathlib import Path

import msgspec
import yaml

from dataflows.settings import Settings
from dataflows.settings_sources import load_settings
from session_logic.codec import decode_input, decode_output
from session_logic.events import GameEnd, GamePing, GameStart, Heartbeat, SessionActive, SessionEnd
from session_logic.output import batch_with
from tests.support.broker import ROOT
from tests.support.manifests import environment_of, named, objects, render
from tests.support.pages import PAGES, README, page

INPUT = {"GameStart": GameStart, "GameEnd": GameEnd, "GamePing": GamePing}
OUTPUT = (SessionActive, Heartbeat, SessionEnd)


def test_records_of_the_contract_are_whole() -> None:
    """Input is read as an event, output is what the encoder writes, and so is what comes of it."""
    given, sent, summary, row = page("contract.md").blocks("json")
    for line in given.splitlines():
        assert type(decode_input(line.encode())) is INPUT[json.loads(line)["type"]]
    events = [decode_output(line.encode()) for line in sent.splitlines()]
    assert [type(event) for event in events] == list(OUTPUT)
    records = batch_with(["summaries", "table"], Settings().max_session_ms)
    for event in events:
        records.add(event, b"")
    assert json.loads(summary) == json.loads(records.apart["summaries"].values[0])
    assert json.loads(row) == json.loads(records.apart["table"].values[0])


def test_records_of_the_readme_have_fields_of_the_contract() -> None:
    """Input can be sent as it is; output is cut, and what is left is right."""
    given, sent = README.blocks("json")
    for line in given.splitlines():
        assert type(decode_input(line.encode())) is INPUT[json.loads(line)["type"]]
    for line, kind in zip(sent.splitlines(), OUTPUT, strict=True):
        record = json.loads(line.replace("..., ", ""))
        assert record.pop("type") == kind.__name__
        assert record.keys() <= set(kind.__struct_fields__)
        for name, value in record.items():
            hint = next(f.type for f in msgspec.structs.fields(kind) if f.name == name)
            msgspec.convert(value, hint)


def test_file_of_settings_is_read(tmp_path: Path) -> None:
    """The TOML example has no key that does not exist."""
    (text,) = page("settings.md").blocks("toml")
    (tmp_path / "password").write_text("secret")
    config = tmp_path / "heartwheel.toml"
    config.write_text(text.replace("/run/secrets/password", str(tmp_path / "password")))
    settings = load_settings({}, str(config))
    assert settings.lanes == 2
    assert settings.kafka["sasl.password"] == "secret"
    assert Settings().lanes == 4, "the page says that 4 is the default"


def copy_of_examples(tmp_path: Path) -> Path:
    """Return a copy of k8s/examples beside manifests that have secrets."""
    render("single", tmp_path)
    return tmp_path / "k8s" / "examples"


def kustomize(folder: Path) -> list[dict[str, object]]:
    """Return the objects of a kustomization."""
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], check=True, capture_output=True, text=True
    )
    return objects(done.stdout)


def test_kustomization_of_ones_own_is_the_example_and_renders(tmp_path: Path) -> None:
    """What the page shows is in k8s/examples, and the job has the settings of the run."""
    folder = copy_of_examples(tmp_path)
    example = yaml.safe_load((folder / "kustomization.yaml").read_text())
    shown = yaml.safe_load(page("kubernetes.md").blocks("yaml")[0])
    assert shown.items() <= example.items()
    manifests = kustomize(folder)
    job = named(manifests, "Job")["spec"]["template"]["spec"]["containers"][0]
    pod = named(manifests, "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
    assert job["envFrom"] == pod["envFrom"]
    assert job["image"] == pod["image"]
    assert environment_of(manifests, "heartwheel-0")["HEARTWHEEL_LANES"] == "2"


def test_file_with_input_tables_is_mounted_where_it_is_read(tmp_path: Path) -> None:
    """In the pod and in the job, as the page says; its topics are then those of the tables."""
    folder = copy_of_examples(tmp_path)
    file = folder / "kustomization.yaml"
    example = yaml.safe_load(file.read_text())
    shown = yaml.safe_load(page("kubernetes.md").blocks("yaml")[1])
    own, config = shown["configMapGenerator"]
    literals = [*example["configMapGenerator"][0]["literals"], *own["literals"]]
    by_name = {literal.partition("=")[0]: literal for literal in literals}
    example["configMapGenerator"] = [own | {"literals": list(by_name.values())}, config]
    example["patches"] += shown["patches"]
    file.write_text(yaml.safe_dump(example))
    (folder / "heartwheel.toml").write_text(page("events.md").blocks("toml")[0])
    manifests = kustomize(folder)
    variables = environment_of(manifests, "heartwheel-0")
    for kind in ("StatefulSet", "Job"):
        pod = named(manifests, kind)["spec"]["template"]["spec"]
        (volume,) = (one for one in pod["volumes"] if one["name"] == "config")
        (mount,) = (m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "config")
        path = Path(variables["HEARTWHEEL_CONFIG"])
        assert path.parent == Path(mount["mountPath"])
        files = named(manifests, "ConfigMap", volume["configMap"]["name"])["data"]
        (tmp_path / path.name).write_text(files[path.name])
    settings = load_settings(
        {"HEARTWHEEL_INPUT_TOPICS": variables["HEARTWHEEL_INPUT_TOPICS"]},
        str(tmp_path / "heartwheel.toml"),
    )
    assert settings.all_input_topics == ["pc_sessions", "console_sessions"]


def test_client_certificate_can_be_left_out(tmp_path: Path) -> None:
    """The patch of the page takes its two options out, and nothing else."""
    folder = copy_of_examples(tmp_path)
    file = folder / "kustomization.yaml"
    example = yaml.safe_load(file.read_text())
    example["components"].append("../components/kafka-tls-sasl")
    file.write_text(yaml.safe_dump(example))
    before = environment_of(kustomize(folder), "heartwheel-0")
    example["patches"] += yaml.safe_load(page("kubernetes.md").blocks("yaml")[2])["patches"]
    file.write_text(yaml.safe_dump(example))
    after = environment_of(kustomize(folder), "heartwheel-0")
    assert {
        name.removeprefix("HEARTWHEEL_KAFKA_SSL_") for name in before.keys() - after.keys()
    } == {
        "CERTIFICATE_LOCATION",
        "KEY_LOCATION",
    }


def test_network_policy_lets_every_shown_port_of_kafka_out() -> None:
    """What the pages set as broker can be reached from a pod as it is deployed."""
    policy = yaml.safe_load((ROOT / "k8s" / "base" / "networkpolicy.yaml").read_text())
    ports = [port for rule in policy["spec"]["egress"] for port in rule["ports"]]
    allowed = {
        number
        for port in ports
        if isinstance(port["port"], int)
        for number in range(port["port"], port.get("endPort", port["port"]) + 1)
    }
    brokers = {
        int(port)
        for source in PAGES
        for port in re.findall(r"BOOTSTRAP_SERVERS=kafka[\w.]*:(\d+)", source.text)
    }
    assert len(brokers) >= 3
    assert brokers <= allowed
