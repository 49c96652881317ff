"""Topics in Avro: their records in the decode step, and what they need to be read."""

import json
import random
import sys
from collections import Counter
from threading import Event
from typing import Any

import pytest

from dataflows.avro.registry import SchemaText
from dataflows.avro.topics import gates, new_schemas, open_schemas, readers
from dataflows.settings import Settings
from session_logic.errors import ConfigError
from session_logic.event_table import read_table
from session_logic.events import Rejected
from session_logic.mapping import MappedEvent, Skipped
from tests.support.avro import framed

T = 1_761_955_605_123
SCHEMA = {
    "type": "record",
    "name": "E",
    "fields": [
        {"name": "kind", "type": "string"},
        {"name": "id", "type": ["null", "string", "long"]},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ],
}
TABLE = {
    "platform": "pc", "type": "kind", "start": "on", "end": "off", "other": "skip", "device": "id",
    "session": "key", "time": "at", "format": "avro",
}  # fmt: skip
# The value need not be read.
BESIDE = TABLE | {"type": "header:kind", "device": "key", "time": []}


def settings(**tables: dict[str, Any]) -> Settings:
    """Return settings with these tables."""
    return Settings(
        input_topics={},
        inputs={topic: read_table(table) for topic, table in tables.items()},
        registry_url="http://registry.invalid",
    )


def known(setting: Settings) -> Any:
    """Return schemas of which the first is known."""
    schemas = new_schemas(setting, lambda _: SchemaText(""), "the registry", Event())
    schemas.add({1: SchemaText(json.dumps(SCHEMA))})
    return schemas


def test_record_in_avro_is_read_by_its_table() -> None:
    """An event, a skip, and rejections; nothing where there is no value."""
    setting = settings(a=TABLE, b=TABLE | {"format": "json"})
    read = readers(setting, known(setting))["a"].read
    value = framed(1, SCHEMA, {"kind": "on", "id": 7, "at": T - 1})
    assert read(b"s", value, None, T) == MappedEvent(True, "7", "s", "pc", T - 1)
    other = framed(1, SCHEMA, {"kind": "settings", "id": 7, "at": T})
    assert read(b"s", other, None, T) == Skipped("other")
    missing = read(b"s", framed(1, SCHEMA, {"kind": "on", "id": None, "at": T}), None, T)
    assert missing == Rejected(
        "not_an_event",
        "field id is missing: text or a whole number of 1 to 128 characters is needed",
    )
    future = read(b"s", framed(1, SCHEMA, {"kind": "on", "id": 7, "at": T * 2}), None, T)
    assert isinstance(future, Rejected)
    assert future.reason == "in_the_future"
    unknown = read(b"s", b"\0\0\0\0\2" + value[5:], None, T)
    assert unknown == Rejected("unknown_schema", "the registry has no schema 2")
    assert read(b"s", None, None, T) == Skipped("other")
    event = json.dumps({"kind": "on", "id": 7, "at": "2025-11-01T00:06:45Z"}).encode()
    assert isinstance(readers(setting, known(setting))["b"].read(b"s", event, None, T), MappedEvent)


def test_any_bytes_are_an_event_a_skip_or_a_rejection() -> None:
    """Never an exception, with any header as well."""
    setting = settings(a=TABLE)
    read = readers(setting, known(setting))["a"].read
    value = framed(1, SCHEMA, {"kind": "on", "id": "d", "at": T})
    rng = random.Random(7)
    kinds: Counter[str] = Counter()
    for _ in range(5_000):
        data = bytearray(value if rng.random() < 0.9 else rng.randbytes(rng.randrange(30)))
        for _ in range(rng.randrange(3)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        header = rng.choice([None, b"", b"\0\0\0\0\1", rng.randbytes(17)])
        headers = rng.choice([None, [], [("__value_schema_id", header)]])
        found = read(b"s", bytes(data)[: rng.randrange(60)], headers, T)
        kinds[found.reason if isinstance(found, Rejected) else type(found).__name__] += 1
    assert {"MappedEvent", "Skipped", "not_avro", "unknown_schema", "in_the_future"} <= kinds.keys()


def test_records_wait_only_where_their_value_is_needed() -> None:
    """Key and headers may tell all."""
    setting = settings(a=TABLE, b=BESIDE, c=TABLE | {"format": "json"})
    schemas = known(setting)
    assert gates(setting, schemas).keys() == {"a"}
    headers = [("kind", b"on")]
    read = readers(setting, schemas)["b"].read
    assert read(b"s", b"\0\0\0\0\2", headers, T) == MappedEvent(True, "s", "s", "pc", None)


def test_run_without_topics_in_avro_asks_no_registry() -> None:
    """It needs no extra either."""
    setting = settings(c=TABLE | {"format": "json"})
    assert open_schemas(setting, Event()) is None
    assert gates(setting, None) == {}
    assert open_schemas(settings(a=TABLE), Event()) is not None


def test_missing_extra_is_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told at the start."""
    monkeypatch.setitem(sys.modules, "fastavro", None)
    for name in ("schemas", "schema"):
        monkeypatch.delitem(sys.modules, f"dataflows.avro.{name}", raising=False)
    with pytest.raises(ConfigError) as raised:
        open_schemas(settings(a=TABLE), Event())
    assert str(raised.value) == (
        "HEARTWHEEL_INPUTS, a has format avro, for which a package is missing (fastavro): "
        "pip install 'heartwheel[avro]'"
    )
