"""The ready tables of docs/events.md, run on records of the formats that they are for."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from dataflows.settings_file import read_inputs
from dataflows.settings_sources import load_settings
from session_logic.codec import decode_output
from session_logic.events import SessionEnd
from session_logic.mapping import Found, Headers, MappedEvent, Mapping, Skipped
from tests.support.broker import ROOT
from tests.support.pages import page

SAMPLES = ROOT / "tests" / "fixtures" / "events"
T = 1_761_955_605_123  # 2025-11-01T00:06:45.123Z
LATER = T + 3_600_000  # when all records were taken in
SKIPPED = Skipped("other")


def start(
    device: str, session: str, platform: str, time_ms: int | None, carried: str
) -> MappedEvent:
    """Return a start."""
    return MappedEvent(True, device, session, platform, time_ms, carried.encode())


def end(device: str, session: str, platform: str, time_ms: int | None, carried: str) -> MappedEvent:
    """Return an end."""
    return MappedEvent(False, device, session, platform, time_ms, carried.encode())


PC, CONSOLE = "6fb86ebc-3d88-4e31-b913-ea939acacf56", "b2f1c9a0-77de-4d0c-9a5e-1f0f7c3f4b11"
AWS = "186b5", "a4666d2a7d844ae4ac5d7b38c9cb7967", "iot"
CLOUD = "device-158", "session-743", "console"
CLOUD_END_MS = 1_761_957_080_500
ROW = "device-158", "743", "console"
TRACED = "device-158", "session-743", "pc"
TRACES = [
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
]
CLOUD_EVENTS = [
    start(*CLOUD, T, '"title":"CUSA00001"'),
    end(*CLOUD, CLOUD_END_MS, '"exit":"menu"'),
    SKIPPED,
]
WANTED: dict[str, tuple[str, list[Found]]] = {
    "pc_sessions": (
        "reference-pc",
        [
            start(PC, "9402035216", "pc", T - 123, '"account":"8275364019283746"'),
            end(PC, "9402035216", "pc", T + 1_474_877, '"foreground_s":1402'),
        ],
    ),
    "console_sessions": (
        "reference-console",
        [
            start(CONSOLE, "5518802347", "console", T + 16_877, '"account":"3390817264550918"'),
            end(CONSOLE, "5518802347", "console", T + 2_304_877, '"foreground_s":2288'),
        ],
    ),
    "aws-iot-presence": (
        "aws-iot",
        [
            start(*AWS, T, '"principal":"AIDAEXAMPLE0123456789"'),
            end(*AWS, T + 95_333, '"disconnect_reason":"MQTT_KEEP_ALIVE_TIMEOUT"'),
            SKIPPED,
        ],
    ),
    "emqx-clients": (
        "emqx",
        [
            start("c_emqx", str(T), "mqtt", T, '"user":"u_emqx"'),
            end("c_emqx", str(T), "mqtt", T + 95_333, '"disconnect_reason":"keepalive_timeout"'),
            SKIPPED,
        ],
    ),
    "players-structured": (
        "cloudevents-structured",
        CLOUD_EVENTS,
    ),
    "players-binary": (
        "cloudevents-binary",
        CLOUD_EVENTS,
    ),
    "presence.public.sessions": (
        "debezium",
        [start(*ROW, T, '"account":"a-17"'), SKIPPED, end(*ROW, T + 95_333, ""), SKIPPED],
    ),
    "traced-events": (
        "trace-context",
        [
            start(*TRACED, None, f'"traceparent":"{TRACES[0]}"'),
            end(*TRACED, None, f'"end_traceparent":"{TRACES[1]}"'),
        ],
    ),
}  # fmt: skip


def blocks() -> list[str]:
    """Return the text of every table of the page but that of Avro, which is an example."""
    return [text for text in page("events.md").blocks("toml") if "registry_url" not in text]


def tables() -> dict[str, Any]:
    """Return these tables as plain values."""
    found: dict[str, Any] = {}
    for text in blocks():
        inputs = tomllib.loads(text)["inputs"]
        assert found.keys().isdisjoint(inputs)
        found |= inputs
    return found


def mapping(topic: str) -> Mapping:
    """Return what reads a topic by its table on the page."""
    return Mapping(read_inputs(tables(), "")[topic], 60_000, 86_400_000)


def samples(name: str) -> list[tuple[bytes | None, Headers]]:
    """Return values and headers; `null` is a record without a value.

    In the binary mode of CloudEvents the attributes are headers, which are those of the events in
    the structured mode. The trace context is a header as well.
    """
    lines = (SAMPLES / f"{name}.jsonl").read_text().splitlines()
    values = [None if line == "null" else line.encode() for line in lines]
    if name == "trace-context":
        return [
            (value, [("traceparent", trace.encode())])
            for value, trace in zip(values, TRACES, strict=True)
        ]
    if name != "cloudevents-binary":
        return [(value, []) for value in values]
    structured = (SAMPLES / "cloudevents-structured.jsonl").read_text().splitlines()
    headers = [
        [
            *((f"ce_{name}", str(text).encode()) for name, text in json.loads(line).items()),
            ("content-type", b"application/json"),
        ]
        for line in structured
    ]
    return list(zip(values, headers, strict=True))


@pytest.mark.parametrize("topic", WANTED)
def test_ready_table_reads_the_records_of_its_format(topic: str) -> None:
    """Starts and ends with device, session, time and what they carry; the others are skipped."""
    name, wanted = WANTED[topic]
    read = mapping(topic).read
    assert [read(b"key", value, headers, LATER) for value, headers in samples(name)] == wanted


def test_every_table_of_the_page_is_tested() -> None:
    """And every sample is read."""
    assert tables().keys() == WANTED.keys()
    assert {path.stem for path in SAMPLES.iterdir()} == {name for name, _ in WANTED.values()}


def test_page_is_a_file_of_settings(tmp_path: Path) -> None:
    """All of its tables together, as they stand there."""
    config = tmp_path / "heartwheel.toml"
    config.write_text("\n".join(blocks()))
    assert load_settings({}, str(config)).all_input_topics == list(WANTED)


def test_records_of_the_page_are_read_by_its_tables() -> None:
    """The input is a start and an end of the first table; the output is what they give."""
    given, sent = page("events.md").blocks("json")
    read = mapping("pc_sessions").read
    first, last = (read(None, line.encode(), None, LATER) for line in given.splitlines())
    assert isinstance(first, MappedEvent)
    assert isinstance(last, MappedEvent)
    record = decode_output(sent.strip().encode())
    assert isinstance(record, SessionEnd)
    assert (record.device_id, record.session_id) == (first.device_id, first.session_id)
    assert (record.started_ms, record.time_ms) == (first.time_ms, last.time_ms)
    assert record.duration_ms == record.time_ms - record.started_ms
    context = b"{" + first.carried + b"," + last.carried + b"}"
    assert json.loads(sent)["context"] == json.loads(context)


def test_every_form_of_a_time_on_the_page_is_read() -> None:
    """All of them tell the same moment."""
    units = {row[0].strip("`"): row[1:] for row in page("events.md").rows("Time")}
    for unit in ("iso", "s", "ms", "us"):
        table = {"platform": "pc", "type": "k", "start": "on", "device": "d", "session": "s"}
        plain = table | {"time": "at", "time_unit": unit}
        read = Mapping(read_inputs({"t": plain}, "")["t"], 0, 0).read
        text, number = units[unit]
        forms = [json.dumps(form) for form in text.split("`")[1::2]] + number.split("`")[1::2]
        assert forms
        for form in forms:
            value = f'{{"k":"on","d":"d","s":"s","at":{form}}}'.encode()
            found = read(None, value, None, T)
            assert isinstance(found, MappedEvent), form
            assert found.time_ms == T, form
