"""Values in Avro, and bytes that are none: fields or a rejection, never an exception."""

import json
import random
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from dataflows.avro.registry import SchemaText
from dataflows.avro.schema import Schema, UnreadableSchemaError
from session_logic.event_time import Micros, Millis, Nanos
from session_logic.events import Rejected
from tests.support.avro import written

EVENT = {
    "type": "record",
    "name": "Event",
    "namespace": "example.games",
    "fields": [
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["ON", "OFF"]}},
        {"name": "before", "type": ["null", "Kind"], "default": None},
        {"name": "device", "type": ["null", "long", "string"]},
        {"name": "title", "type": {"type": "map", "values": ["null", "string"]}},
        {"name": "scores", "type": {"type": "array", "items": "double"}},
        {"name": "raw", "type": {"type": "fixed", "name": "Raw", "size": 2}},
    ],
}
VALUE = {
    "kind": "ON", "before": None, "device": 9402035216, "title": {"a": None, "b": "é"},
    "scores": [1.5, -2.0], "raw": b"\0\xff",
}  # fmt: skip


def schema_of(schema: Any, *needs: Any) -> Schema:
    """Return a schema that is ready."""
    return Schema(SchemaText(json.dumps(schema), needs=[json.dumps(need) for need in needs]))


def field(type_: Any, data: bytes) -> Any:
    """Return the value of the only field of a record."""
    record = {"type": "record", "name": "R", "fields": [{"name": "f", "type": type_}]}
    found = schema_of(record).read(data, 0)
    assert isinstance(found, dict), found
    return found["f"]


def test_value_is_its_fields() -> None:
    """Enums, unions, maps, arrays and bytes, from the byte on where they begin."""
    assert schema_of(EVENT).read(b"frame" + written(EVENT, VALUE), 5) == VALUE


@pytest.mark.parametrize(
    ("type_", "data", "value"),
    [
        ({"type": "long", "logicalType": "timestamp-millis"}, b"\x0a", Millis(5)),
        (["null", {"type": "long", "logicalType": "timestamp-micros"}], b"\x02\x0a", Micros(5)),
        ({"type": "long", "logicalType": "timestamp-nanos"}, b"\x0a", Nanos(5)),
        ({"type": "long", "logicalType": "local-timestamp-millis"}, b"\x09", Millis(-5)),
        (
            {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2},
            b"\x04\x04\xe2",
            Decimal("12.50"),
        ),
        (
            {"type": "fixed", "name": "D", "size": 2, "logicalType": "decimal", "precision": 4},
            b"\xff\xfe",
            Decimal(-2),
        ),
        ({"type": "string", "logicalType": "uuid"}, b"\x02x", "x"),
        (
            {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"},
            UUID(int=7).bytes,
            "00000000-0000-0000-0000-000000000007",
        ),
        ({"type": "int", "logicalType": "date"}, b"\x0a", 5),
        ({"type": "long", "logicalType": "no-such-type"}, b"\x0a", 5),
    ],
)
def test_logical_type_is_a_value_of_its_own_or_what_it_is_made_of(
    type_: Any, data: bytes, value: Any
) -> None:
    """A moment keeps its unit, a decimal its digits, and a UUID is text."""
    found = field(type_, data)
    assert (found, type(found)) == (value, type(value))


def test_schema_is_read_with_all_that_it_refers_to() -> None:
    """One that is needed by several comes first."""
    place = {"type": "record", "name": "x.Place", "fields": [{"name": "n", "type": "string"}]}
    pair = {"type": "record", "name": "x.Pair", "fields": [{"name": "p", "type": "x.Place"}]}
    both = {
        "type": "record",
        "name": "x.Both",
        "fields": [{"name": "a", "type": "x.Pair"}, {"name": "b", "type": "Place"}],
    }
    assert schema_of(both, place, pair).read(b"\x02a\x02b", 0) == {
        "a": {"p": {"n": "a"}},
        "b": {"n": "b"},
    }


def test_several_kinds_of_records_are_one_schema() -> None:
    """A topic may have a union of them."""
    kinds = [
        {"type": "record", "name": name, "fields": [{"name": name, "type": "int"}]}
        for name in ("start", "end")
    ]
    assert schema_of(kinds).read(b"\x02\x0e", 0) == {"end": 7}


@pytest.mark.parametrize(
    ("field", "data", "value"),
    [
        ({"type": "int", "default": "x"}, b"\x02", 1),
        ({"type": ["string", "int"], "default": None}, b"\x02\x02", 1),
        ({"type": {"type": {"type": "int", "connect.version": 1}}, "doc": "y"}, b"\x02", 1),
        ({"type": {"type": ["null", "int"]}, "order": "ignore"}, b"\x02\x02", 1),
        (
            {"type": {"type": "enum", "name": "E", "symbols": ["A", "B"], "default": "Z"}},
            b"\x02",
            "B",
        ),
    ],
)
def test_schema_that_other_libraries_take_is_read_by(
    field: dict[str, Any], data: bytes, value: Any
) -> None:
    """A default of a wrong type, a type in a type, and words of other programs."""
    record = {"type": "record", "name": "a-b.R", "fields": [{"name": "f", **field}]}
    assert schema_of(record).read(data, 0) == {"f": value}


LINKED = {"type": "record", "name": "L", "fields": [{"name": "next", "type": ["null", "L"]}]}
DEEP: Any = "int"
for _ in range(100):
    DEEP = {"type": "array", "items": DEEP}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (json.dumps(LINKED), "L contains itself"),
        (json.dumps(DEEP), "more than 64 types deep"),
        (json.dumps({"type": "array", "items": "null"}), "items without a byte"),
        (
            json.dumps(
                {"type": "array", "items": {"type": "record", "name": "None", "fields": []}}
            ),
            "items without a byte",
        ),
        (
            json.dumps({"type": "map", "values": {"type": "array", "items": "null"}}),
            "items without a byte",
        ),
        ("{", "."),
        ('"NoSuchType"', "NoSuchType"),
        ('{"type":"record"}', "."),
        ("[" * 100_000, "."),
        ("7", "."),
        ('{"type":"fixed","name":"F","size":"many"}', "."),
        ("\ud800", "."),
    ],
)
def test_schema_that_cannot_be_read_by_safely_is_refused(text: str, problem: str) -> None:
    """By some, a few bytes would take the process with them, or take for ever."""
    with pytest.raises(UnreadableSchemaError, match=problem):
        Schema(SchemaText(text))


def test_schema_of_another_kind_is_refused() -> None:
    """A registry has schemas of JSON and Protobuf as well."""
    with pytest.raises(UnreadableSchemaError, match="it is PROTOBUF, not AVRO"):
        Schema(SchemaText("x", "PROTOBUF"))


def test_value_that_is_cut_off_or_too_long_is_rejected() -> None:
    """Each cut, and bytes that are left over."""
    schema, value = schema_of(EVENT), written(EVENT, VALUE)
    for cut in range(len(value)):
        found = schema.read(value[:cut], 0)
        assert isinstance(found, Rejected)
        assert found.reason == "not_avro"
    found = schema.read(value + b"\0\0", 0)
    assert isinstance(found, Rejected)
    assert "2 bytes are left over" in found.detail


def test_any_bytes_are_fields_or_a_rejection() -> None:
    """Whatever they are: no exception, and nothing that does not end."""
    odd = {
        "type": "record",
        "name": "Odd",
        "fields": [
            {"name": "d", "type": {"type": "bytes", "logicalType": "decimal", "precision": 2}},
            {"name": "t", "type": {"type": "long", "logicalType": "timestamp-micros"}},
            {"name": "u", "type": ["null", "boolean", "float", {"type": "map", "values": "bytes"}]},
            {"name": "a", "type": {"type": "array", "items": {"type": "array", "items": "int"}}},
        ],
    }
    rng = random.Random(13)
    kinds = set()
    for schema, value in ((schema_of(EVENT), written(EVENT, VALUE)), (schema_of(odd), b"\0" * 8)):
        for _ in range(3_000):
            data = bytearray(value if rng.random() < 0.5 else rng.randbytes(rng.randrange(40)))
            for _ in range(rng.randrange(3)):
                if data:
                    data[rng.randrange(len(data))] = rng.choice([0, 1, 127, 128, 255])
            kinds.add(type(schema.read(bytes(data), 0)))
    assert kinds == {dict, Rejected}
    assert isinstance(schema_of("string").read(b"\x02x", 0), Rejected)
