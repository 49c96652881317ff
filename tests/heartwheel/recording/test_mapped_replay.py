"""A topic with a table gives what the same events give in our own format, replayed or not."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dataflows.messages import DeadLetter
from dataflows.settings import Settings
from heartwheel.recording.format import FORMAT_WITHOUT_SILENCE, Header, Line, stored_settings
from heartwheel.recording.reader import Recording
from heartwheel.recording.replay import replay, replay_settings
from session_logic.event_table import EventTable, read_table
from session_logic.output import OutputBatch
from tests.support.recordings import BEGIN_MS, event_line, lines_of, preface, recorded_run, write

SETTINGS = Settings(heartbeat_ms=1_000, max_session_ms=20_000, deduplication_window_ms=3_000)
TABLES = {
    "console-events": {
        "platform": "console",
        "type": "header:kind",
        "start": ["on"],
        "end": ["off"],
        "device": "key",
        "session": ["play.session", "session"],
    },
    "pc-events": {
        "platform": {"field": "os"},
        "type": "kind",
        "start": "Begin",
        "end": "Stop",
        "ping": "Alive",
        "device": "device.id",
        "session": "play",
        "time": "at",
        "time_unit": "us",
        "format": "json_sr",
    },
}


def tables() -> dict[str, EventTable]:
    """Return the tables of both topics."""
    return {topic: read_table(plain) for topic, plain in TABLES.items()}


def mapped_line(line: Line, rng: random.Random) -> Line:
    """Return an event of our own format in the shape of its topic's table."""
    event = json.loads(line.value or "")
    starts, session = event["type"] == "GameStart", event["session_id"]
    more: dict[str, Any] = {"more": rng.choice([1, None, [1, {"a": "b"}], "x" * 50])}
    if line.topic == "console-events":
        value = json.dumps(
            more | rng.choice([{"session": session}, {"play": {"session": session}}])
        )
        return replace(line, value=value, headers=[Header("kind", "on" if starts else "off")])
    fields = {
        "kind": "Begin" if starts else "Stop",
        "device": {"id": event["device_id"]},
        "play": session,
        "os": "pc",
        "at": rng.choice([line.timestamp_ms * 1000 + 999, str(line.timestamp_ms * 1000)]),
    }
    value = rng.choice(["", "\0\0\0\0\7"]) + json.dumps(fields | more)
    return replace(line, value=value)


def history(seed: int, count: int = 300) -> list[Line]:
    """Return events of a few devices in our own format, some timestamped before earlier ones."""
    rng, lines, time_ms = random.Random(seed), [], BEGIN_MS
    for _ in range(count):
        time_ms += rng.choice([0, 1, 7, 499, 500, 1_000, 1_001] + [30_000] * (rng.random() < 0.1))
        late_ms = rng.choice([0, 0, 0, 1, 900, 5_000])
        device = rng.choice("cp") + str(rng.randrange(6))
        kind, session = rng.choice(["Start", "End"]), f"s{rng.randrange(4)}"
        lines.append(event_line(device, kind, session, time_ms - late_ms))
    return lines


def replayed(recording: Recording) -> list[tuple[str, bytes]]:
    """Return what a replay gives, byte for byte and by key."""
    found: list[tuple[str, bytes]] = []

    def take(item: OutputBatch | DeadLetter) -> None:
        assert isinstance(item, OutputBatch), item
        found.extend(zip(item.keys, item.values, strict=True))

    replay(recording, replay_settings(recording, {}), take)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_topic_with_a_table_gives_the_same_records(seed: int, tmp_path: Path) -> None:
    """As the same events in our own format, byte for byte, with other records between them."""
    lines, rng = history(seed), random.Random(seed)
    until_ms = max(line.timestamp_ms for line in lines) + 7_500
    own = write(tmp_path / "own", preface(SETTINGS), lines, until_ms)
    mapped = []
    for line in lines:
        mapped.append(mapped_line(line, rng))
        if rng.random() < 0.1:
            mapped.append(replace(line, value=rng.choice(['{"kind":"Alive"}', "{}", None])))
    settings = replace(SETTINGS, input_topics={}, inputs=tables())
    recording = write(tmp_path / "mapped", preface(settings), mapped, until_ms)
    assert replayed(own) == replayed(recording)


def test_recording_of_topics_with_tables_is_replayed_by_them(tmp_path: Path) -> None:
    """It holds the tables, so nothing but the file is needed; earlier programs refuse it."""
    rng = random.Random(1)
    lines = [mapped_line(line, rng) for line in history(1)]
    settings = replace(SETTINGS, input_topics={}, inputs=tables(), late_limit_ms=5_000)
    until_ms = max(line.timestamp_ms for line in lines) + 7_500
    recording = recorded_run(tmp_path / "r", settings, lines, until_ms)
    assert recording.manifest.preface.heartwheel_recording == FORMAT_WITHOUT_SILENCE == 2
    again = replay_settings(recording, {})
    assert (again.inputs, again.input_topics, again.late_limit_ms) == (tables(), {}, 5_000)
    assert recording.input_topics == ["console-events", "pc-events"]
    output = [line.value_bytes() for line in lines_of(recording) if line.topic == "session-events"]
    assert sorted(value for _, value in replayed(recording)) == sorted(v or b"" for v in output)


def test_recording_without_tables_is_as_it_was(tmp_path: Path) -> None:
    """Earlier programs read it: neither its format nor its settings are new."""
    stored = stored_settings(SETTINGS)
    assert stored.keys().isdisjoint({"inputs", "late_limit_ms", "carry_in_heartbeats"})
    recording = write(tmp_path / "r", preface(SETTINGS), [], BEGIN_MS)
    assert recording.manifest.preface.heartwheel_recording == 1
    assert replay_settings(recording, {}).inputs == {}


def test_topic_without_session_ids_is_replayed(tmp_path: Path) -> None:
    """A start is called after its time, an end ends what is active; both carry what they have."""
    plain = {"platform": "tv", "type": "kind", "start": "on", "end": "off", "device": "key"}
    carry = {"carry": {"title": "title"}, "end_carry": {"why": "why"}}
    settings = replace(SETTINGS, input_topics={}, inputs={"pc-events": read_table(plain | carry)})

    def line(after_ms: int, **fields: object) -> Line:
        event = event_line("p1", "Start", "", BEGIN_MS + after_ms)
        return replace(event, value=json.dumps(fields))

    lines = [
        line(0, kind="on", title="a"), line(0, kind="on", title="again"), line(1_500, kind="off"),
        line(2_000, kind="off", why="nothing is active"), line(3_000, kind="on"),
        line(4_000, kind="off", why=[1]),
    ]  # fmt: skip
    recording = write(tmp_path / "r", preface(settings), lines, BEGIN_MS + 60_000)
    records = [json.loads(value) for _, value in replayed(recording)]
    assert [(r["type"], r["session_id"], r.get("context")) for r in records] == [
        ("SessionActive", str(BEGIN_MS), {"title": "a"}),
        ("Heartbeat", str(BEGIN_MS), {"title": "a"}),
        ("SessionEnd", str(BEGIN_MS), {"title": "a"}),
        ("SessionActive", str(BEGIN_MS + 3_000), None),
        ("Heartbeat", str(BEGIN_MS + 3_000), None),
        ("SessionEnd", str(BEGIN_MS + 3_000), {"why": [1]}),
    ]
    assert {r.get("reason") for r in records} == {None, "ended"}
