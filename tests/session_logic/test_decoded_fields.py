"""Records that come decoded, from a format that is not JSON."""

import json
from decimal import Decimal
from typing import Any

import pytest

from session_logic.event_table import read_table
from session_logic.event_time import Micros, Millis, Nanos, time_reader
from session_logic.events import Rejected
from session_logic.mapping import PING, MappedEvent, Mapping

T = 1_761_955_605_123
TABLE = {
    "platform": "pc",
    "type": "kind",
    "start": ["on", "1", "true"],
    "end": "off",
    "ping": "up",
    "other": "reject",
    "device": "who.id",
    "session": "session",
    "time": "at",
    "time_unit": "ms",
    "carry": {"x": "x"},
    "format": "avro",
}
FIELDS = {"kind": "on", "who": {"id": "d"}, "session": 5, "at": T}


def read(changes: dict[str, Any], **table: Any) -> Any:
    """Return what a record with these fields is."""
    mapping = Mapping(read_table(TABLE | table), 60_000, 1_000)
    return mapping.read_decoded(FIELDS | changes, b"key", None, T)


def test_record_is_an_event_as_it_would_be_in_json() -> None:
    """By the same table, the same fields give the same event."""
    expected = MappedEvent(True, "d", "5", "pc", T, b'"x":[1,null]')
    assert read({"x": [1, None]}) == expected
    mapping = Mapping(read_table(TABLE), 60_000, 1_000)
    value = json.dumps(FIELDS | {"x": [1, None]}).encode()
    assert mapping.read(b"key", value.replace(b", ", b","), None, T) == expected
    assert read({"kind": "up"}) is PING


@pytest.mark.parametrize(
    ("value", "session"),
    [
        (Millis(7), "7"), (2**63 - 1, "9223372036854775807"), (Decimal(12), "12"), (b"s", "s"),
        ("\u00e9", "\u00e9"),
    ],
)  # fmt: skip
def test_text_and_whole_numbers_of_every_kind_are_ids(value: Any, session: str) -> None:
    """Also those that JSON does not have."""
    assert read({"session": value}).session_id == session


@pytest.mark.parametrize(
    "value",
    [None, True, 1.5, Decimal("1.50"), b"\xff", {}, [], "", float("nan"), Decimal(10) ** 200],
)
def test_what_is_no_id_is_rejected(value: Any) -> None:
    """The detail names the field."""
    found = read({"session": value})
    assert isinstance(found, Rejected)
    assert (found.reason, found.detail[:14]) == ("not_an_event", "field session ")


def test_path_that_leads_nowhere_finds_nothing() -> None:
    """An object where none is, or none where one should be."""
    for who in ("d", None, {}, [{"id": "d"}]):
        assert "field who.id is missing" in read({"who": who}).detail


@pytest.mark.parametrize("unit", ["iso", "s", "ms", "us"])
@pytest.mark.parametrize("at", [Millis(T), Micros(T * 1000 + 999), Nanos(T * 1_000_000)])
def test_time_with_a_unit_of_its_own_is_read_by_it(unit: str, at: Any) -> None:
    """Whatever the table says of others."""
    assert read({"at": at}, time_unit=unit).time_ms == T
    assert time_reader("us")(Millis(-1)) == -1


def test_decimal_may_be_a_time() -> None:
    """In seconds with a fraction."""
    assert read({"at": Decimal("1761955605.123")}, time_unit="s").time_ms == T


@pytest.mark.parametrize(
    ("value", "carried"),
    [
        ("\u00e9", '"\u00e9"'), (None, "null"), (True, "true"), (-7, "-7"), (1.5, "1.5"),
        (Millis(T), str(T)), (Decimal("12.50"), "12.50"), (b"\0\xff", '"AP8="'),
        (float("inf"), "null"), ({"a": [Micros(5), b""]}, '{"a":[5,""]}'),
    ],
)  # fmt: skip
def test_value_is_carried_as_json(value: Any, carried: str) -> None:
    """A time as the number that it is, bytes in Base64, and a decimal with all its digits."""
    assert read({"x": value}).carried == f'"x":{carried}'.encode()


def test_field_that_is_not_there_is_not_carried() -> None:
    """Unlike one that is null."""
    assert read({}).carried == b""


def test_value_that_cannot_be_read_is_a_problem_unless_headers_tell_to_skip_it() -> None:
    """The type may stand beside the value."""
    problem = Rejected("not_avro", "cut off")
    mapping = Mapping(read_table(TABLE), 60_000, 1_000)
    assert mapping.read_unreadable(problem, b"up", None, T) is problem
    beside = Mapping(read_table(TABLE | {"type": "key"}), 60_000, 1_000)
    assert beside.read_unreadable(problem, b"up", None, T) is PING
    assert beside.read_unreadable(problem, b"on", None, T) is problem
