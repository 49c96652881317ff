"""Values in Avro: tried and guessed by the schemas of a registry, which is asked once for each."""

import json
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from dataflows.settings import Settings
from heartwheel.events import avro
from heartwheel.events.avro import NoSchemaError, avro_values
from heartwheel.events.cause import likely_causes
from heartwheel.events.guess import propose
from heartwheel.events.records import SeenRecord
from heartwheel.events.trial import Trial
from heartwheel.views.proposal import toml_lines
from session_logic.event_table import EventTable, read_table
from tests.support.avro import framed
from tests.support.own_events import moments, record
from tests.support.ports import free_port

SCHEMA = {
    "type": "record",
    "name": "Presence",
    "fields": [
        {"name": "kind", "type": "string"},
        {"name": "device", "type": {"type": "record", "name": "Device", "fields": [
            {"name": "id", "type": "string"}, {"name": "os", "type": ["null", "string"]}]}},
        {"name": "session", "type": "long"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "raw", "type": ["null", "bytes"]},
    ],
}  # fmt: skip
TABLE = {
    "platform": {"field": "device.os"}, "type": "kind", "start": ["started"], "end": ["ended"],
    "device": "device.id", "session": "session", "time": "at", "format": "avro",
}  # fmt: skip


class Registry(ThreadingHTTPServer):
    """Knows schema 1, and counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.asked: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        known = self.path.startswith("/schemas/ids/1")
        answer: dict[str, Any] = {"schema": json.dumps(SCHEMA)} if known else {"error_code": 40403}
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[Registry]:
    """Return a registry that runs."""
    with Registry() as made:
        Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
        yield made
        made.shutdown()


def settings(url: str, **changes: Any) -> Settings:
    """Return settings with a topic in Avro."""
    table: EventTable = read_table(TABLE | changes)
    return Settings(input_topics={}, inputs={"t": table}, registry_url=url)


def records(schema_id: int = 1) -> list[SeenRecord]:
    """Return a topic in Avro."""
    return [
        record(one.number, one.time_ms + 5, framed(schema_id, SCHEMA, {
            "kind": "started" if one.is_start else "ended",
            "device": {"id": one.device, "os": ["ios", "android"][one.session % 2]},
            "session": one.session, "at": one.time_ms, "raw": b"\xff"}), one.device)
        for one in moments([f"u{n}" for n in range(6)])
    ]  # fmt: skip


def test_records_in_avro_are_tried_and_a_schema_is_asked_for_once(registry: Registry) -> None:
    """As a run reads them."""
    some = records()
    trial = Trial(settings(registry.url), "t")
    outcomes = [trial.of(one) for one in some]
    assert {one.becomes for one in outcomes} == {"start", "end"}
    assert {one.platform for one in outcomes} == {"ios", "android"}
    assert [one.time_ms for one in outcomes] == [(one.time_ms or 0) - 5 for one in some]
    assert len(registry.asked) == 1
    assert likely_causes(trial.table, outcomes, trial.read_value) == []


def test_record_in_avro_that_is_no_event_has_its_reason(registry: Registry) -> None:
    """A word that the table does not have, a field that is not there, and what is no Avro."""
    some = records()
    trial = Trial(settings(registry.url, start=["other"], end=["else"]), "t")
    outcomes = [trial.of(one) for one in some]
    assert outcomes[0].detail == "field kind is 'started'"
    (cause,) = likely_causes(trial.table, outcomes, trial.read_value)
    assert cause.startswith("type has 'started' (12), 'ended' (12)")
    trial = Trial(settings(registry.url, device="device.ID"), "t")
    (cause,) = likely_causes(trial.table, [trial.of(one) for one in some], trial.read_value)
    assert "there is no field device.ID in 24 of 24 records; the nearest is device.id" in cause
    found = trial.of(record(1, 1, b'{"kind": "started"}'))
    assert (found.becomes, found.reason) == ("rejected", "not_avro")


def test_schema_that_the_registry_does_not_have_is_a_reason(registry: Registry) -> None:
    """It is asked for once as well."""
    trial = Trial(settings(registry.url), "t")
    outcomes = [trial.of(one) for one in records(schema_id=7)]
    assert {one.reason for one in outcomes} == {"unknown_schema"}
    assert len(registry.asked) == 1


def test_registry_that_is_away_is_one_line() -> None:
    """With what to correct."""
    trial = Trial(settings(f"http://127.0.0.1:{free_port()}"), "t")
    with pytest.raises(NoSchemaError, match=r"about schema 1 .*HEARTWHEEL_REGISTRY_URL"):
        trial.of(records()[0])


def test_topic_whose_headers_tell_all_needs_no_registry() -> None:
    """As in a run."""
    table = {"type": "header:kind", "device": "key", "time": [], "platform": "pc",
             "session": "header:session"}  # fmt: skip
    trial = Trial(settings(f"http://127.0.0.1:{free_port()}", **table), "t")
    headers = {"kind": "started", "session": "s1"}
    found = trial.of(record(1, 1_764_000_000_000, b"\0\0\0\0\1x", "d1", headers))
    assert (found.becomes, found.device_id, found.session_id) == ("start", "d1", "s1")


def test_table_for_avro_is_proposed_where_the_registry_is_known(registry: Registry) -> None:
    """A time comes with its unit, and what the value is read by is in the table."""
    values = avro_values(Settings(registry_url=registry.url))
    assert values is not None
    text = "\n".join(toml_lines(propose("t", records(), values.read)))
    assert tomllib.loads(text)["inputs"]["t"] == TABLE
    assert "# It has times of Avro, 5 ms before the record's timestamp (median)." in text
    assert "HEARTWHEEL_REGISTRY_URL is needed" in text


def test_json_is_read_as_before_where_a_registry_is_known(registry: Registry) -> None:
    """Only what has the id of a schema is asked for."""
    values = avro_values(Settings(registry_url=registry.url))
    assert values is not None
    some = [record(n, 1, value) for n, value in enumerate([b'{"a": 1}', None, b"", b"x"])]
    assert [values.read(one)[0] for one in some] == ["json", "empty", "empty", "no_json"]
    assert registry.asked == []


def test_id_of_a_schema_in_a_header_is_seen() -> None:
    """The newer way: then the value is bare."""
    some = [
        SeenRecord(name=one.name, time_ms=1, key=None, value=(one.value or b"")[5:],
                   headers=[("__value_schema_id", b"\0\0\0\0\1")])
        for one in records()
    ]  # fmt: skip
    assert "24 of 24 values look like Avro" in " ".join(propose("t", some).notes)


def test_without_registry_or_extra_avro_is_only_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its fields cannot be seen."""
    assert avro_values(Settings()) is None
    proposal = propose("t", records())
    assert "HEARTWHEEL_REGISTRY_URL" in " ".join(proposal.notes)
    assert list(proposal.missing) == ["type", "start", "end"]
    monkeypatch.setattr(avro, "find_spec", lambda _: None)
    assert avro_values(Settings(registry_url="http://127.0.0.1:1")) is None
