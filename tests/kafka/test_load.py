"""The fleet against a real Kafka: what it sends, how it ends, and a run that takes it."""

import json
import signal
import subprocess
import sys
from collections import Counter

from dataflows.settings_sources import environment, load_settings
from session_logic.codec import decode_input
from session_logic.events import GameEnd, GameStart, Rejected, SessionEnd
from session_logic.mapping import MappedEvent
from tests.support.broker import ROOT
from tests.support.cluster import Cluster, Record
from tests.support.command import command, one_line
from tests.support.traffic import check, start, stop, wait_for_model

# One with everything in fields, one with as much as can be beside them.
TABLES = """
[inputs.{pc}]
platform = "pc"
type = "eventId"
start = "ApplicationSessionStart"
end = "ApplicationSessionEndBi"
device = ["data.hostPcId", "key"]
session = "data.appSessionId"
time = "timestamp"
carry = {{account = "psnAccountId"}}
end_carry = {{foreground_s = "totalFgTime"}}
format = "json_sr"

[inputs.{console}]
platform = {{field = "header:os"}}
type = "header:ce_type"
start = "on"
end = ["off", "gone"]
device = "key"
session = "header:session"
time = "header:ce_time"
time_unit = "s"
carry = {{account = "account"}}
"""


def sent(cluster: Cluster) -> list[Record]:
    """Return the input in the order of time."""
    records = cluster.read(cluster.console) + cluster.read(cluster.pc)
    return sorted(records, key=lambda record: record.time_ms)


def test_load_sends_what_was_asked_for(cluster: Cluster) -> None:
    """The rate, the shares of what is bad, late and repeated, and the devices that stay."""
    asked = {
        "--devices": 400, "--rate": 1000, "--seconds": 3, "--churn": 0.5, "--skew": 2,
        "--bad": 0.1, "--duplicates": 0.1, "--late": 0.2, "--late-by": "10m", "--seed": 7,
    }  # fmt: skip
    arguments = [str(part) for pair in asked.items() for part in pair]
    done = command("load", *arguments, **cluster.variables)
    assert done.returncode == 0, done
    assert done.stdout.splitlines()[-1].startswith("3000 events in 3.")
    records = sent(cluster)
    assert len(records) == 3000
    events = [decode_input(record.value) for record in records]
    kinds = Counter(type(event) for event in events)
    assert 200 < kinds[Rejected] < 400
    values = Counter(r.value for r in records if not isinstance(decode_input(r.value), Rejected))
    assert 200 < sum(count - 1 for count in values.values()) < 400
    last_ms = records[-1].time_ms
    assert 400 < sum(last_ms - r.time_ms > 10_000 for r in records) < 700
    ended = {event.device_id for event in events if isinstance(event, GameEnd)}
    begun = {event.device_id for event in events if isinstance(event, GameStart)}
    assert {int(name.removeprefix("device-")) for name in ended} <= set(range(200))
    assert {f"device-{number}" for number in range(200, 400)} <= begun
    busy = Counter(e.device_id for e in events if isinstance(e, GameEnd)).most_common(20)
    assert sum(count for _, count in busy) > kinds[GameEnd] / 4  # a tenth of those that churn


def test_same_seed_is_the_same_devices_with_sessions_of_their_own(cluster: Cluster) -> None:
    """Two loads are comparable, and the second does not repeat the first."""
    arguments = ("load", "--rate", "400", "--seconds", "1.2", "--seed", "3", "--bad", "0")
    halves = []
    for _ in range(2):
        before = len(sent(cluster))
        assert command(*arguments, **cluster.variables).returncode == 0
        halves.append([json.loads(record.value or b"") for record in sent(cluster)[before:]])
    shapes = [Counter((e["type"], e["device_id"]) for e in half) for half in halves]
    assert shapes[0] == shapes[1]
    names = [{event["session_id"] for event in half} for half in halves]
    assert not names[0] & names[1]


def test_ctrl_c_ends_a_load_with_its_summary(cluster: Cluster) -> None:
    """Whatever was sent has arrived, and the exit code is 0."""
    process = subprocess.Popen(
        [sys.executable, "-m", "heartwheel.cli", "load", "--seconds", "0", "--rate", "200"],
        env=environment() | cluster.variables,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    summary = rest.splitlines()[-1]
    assert summary.startswith(f"{len(sent(cluster))} events in")
    assert "behind the plan" in summary


def give_tables(cluster: Cluster) -> None:
    """Let the input topics be read by tables."""
    config = cluster.folder / "heartwheel.toml"
    config.write_text(TABLES.format(pc=cluster.pc, console=cluster.console))
    del cluster.variables["HEARTWHEEL_INPUT_TOPICS"]
    cluster.variables["HEARTWHEEL_CONFIG"] = str(config)


def test_load_of_topics_with_tables_is_as_they_say(cluster: Cluster) -> None:
    """Events, late ones and bad ones; what is carried tells the device and the time played."""
    give_tables(cluster)
    asked = ("--rate", "700", "--seconds", "2", "--bad", "0.1", "--late", "0.2", "--late-by", "10m")
    assert command("load", *asked, "--devices", "200", **cluster.variables).returncode == 0
    mappings = load_settings(cluster.variables).mappings()
    for topic, mapping in mappings.items():
        records = cluster.read(topic)
        headers = [[*record.headers.items()] for record in records]
        found = [
            mapping.read(record.key, record.value, some, record.time_ms)
            for record, some in zip(records, headers, strict=True)
        ]
        assert 30 < sum(isinstance(one, Rejected) for one in found) < 110
        events = [
            (record.time_ms, one)
            for record, one in zip(records, found, strict=True)
            if isinstance(one, MappedEvent)
        ]
        assert len(events) > 500
        late, last_ms = 0, max(record.time_ms for record in records)
        for stamp_ms, event in events:
            assert event.time_ms is not None
            assert 0 <= stamp_ms - event.time_ms < 5_000
            late += last_ms - event.time_ms > 10_000
            if event.is_start:
                assert event.carried == f'"account":"of {event.device_id}"'.encode()
            elif topic == cluster.pc:
                assert 0 <= json.loads(b"{" + event.carried + b"}")["foreground_s"] <= 603
        assert 70 < late < 200
        assert {event.platform for _, event in events} == (
            {"pc"} if topic == cluster.pc else {"pc", "console"}
        )


def test_run_takes_a_load_of_topics_with_tables(cluster: Cluster) -> None:
    """Every record is as the reference model says, what is carried as well."""
    give_tables(cluster)
    flow = start(cluster)
    asked = ("--rate", "200", "--seconds", "3", "--bad", "0", "--duplicates", "0.1")
    assert command("load", *asked, "--devices", "200", **cluster.variables).returncode == 0
    through_ms = wait_for_model(cluster)
    stop(cluster, flow)
    found = check(cluster, through_ms)
    assert found.sessions > 200
    ends = [event for event in cluster.events() if isinstance(event, SessionEnd)]
    contexts = [json.loads(bytes(event.context)) for event in ends if event.context]
    assert len(contexts) == len(ends) > 30
    assert any(context.keys() == {"account", "foreground_s"} for context in contexts)


def test_topic_that_cannot_be_written_to_is_one_line(cluster: Cluster) -> None:
    """Before anything is sent."""
    give_tables(cluster)
    config = cluster.folder / "heartwheel.toml"
    config.write_text(config.read_text().replace('"header:session"', '"key"'))
    done = command("load", **cluster.variables)
    one_line(done, 2, f"inputs.{cluster.console} has two parts of an event in the key")
    assert sent(cluster) == []


def test_wrong_load_is_one_line(cluster: Cluster) -> None:
    """Shares that are more than all, a topic that is not there, a time that is none."""
    variables = cluster.variables
    one_line(command("load", "--bad", "0.6", "--duplicates", "0.6", **variables), 2, "together")
    one_line(command("load", "--late-by", "soon", **variables), 2, "--late-by soon")
    nowhere = variables | {"HEARTWHEEL_INPUT_TOPICS": "nowhere=pc"}
    one_line(command("load", **nowhere), 2, "input topic nowhere", "topics create")
