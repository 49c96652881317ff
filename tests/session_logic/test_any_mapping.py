"""Any table and any record: an event, a skip or a rejection, never an exception, always alike."""

import json
from collections import Counter
from typing import Any, get_args

import msgspec
import pytest
from msgspec.structs import replace

from session_logic.codec import DETAIL_LENGTH, decode_output
from session_logic.event_table import read_table
from session_logic.events import Rejected, RejectReason
from session_logic.mapping import Found, MappedEvent, Mapping, Skipped
from tests.support.any_mapping import BYTES, AnyMapping, T

SEEDS = range(800)


def check(found: Found) -> str:
    """Check that what a record became is whole, and return what that is."""
    if isinstance(found, Skipped):
        return found.kind
    if isinstance(found, Rejected):
        assert found.reason in get_args(RejectReason)
        assert 0 < len(found.detail) <= DETAIL_LENGTH
        found.detail.encode()
        return found.reason
    assert 0 < len(found.device_id) <= 128
    assert 0 < len(found.platform) <= 128
    assert len(found.session_id) <= 128
    assert found.session_id or not found.is_start
    assert found.time_ms is None or found.time_ms >= 0
    assert not found.late or found.time_ms is None
    context = b"{" + found.carried + b"}"
    assert len(json.loads(context)) <= 8
    record = b'{"type":"SessionActive","device_id":"d","session_id":"s","platform":"p",'
    decode_output(record + b'"started_ms":1,"time_ms":1,"context":' + context + b"}")
    return "start" if found.is_start else "end"


def is_text(value: bytes | None) -> bool:
    """Say whether a value is UTF-8: a name that is not is seen by one way of reading only."""
    try:
        return not value or "\ud800" not in str(json.loads(value.lstrip(b"\0\7").decode()))
    except (ValueError, RecursionError):
        return False


def test_any_record_becomes_one_thing_by_any_table() -> None:
    """Both ways of reading find the same, as often as they are asked."""
    counts: Counter[str] = Counter()
    for seed in SEEDS:
        given = AnyMapping(seed)
        try:
            table = given.table()
            mapping = Mapping(read_table(table), 60_000, 86_400_000)
            for _ in range(10):
                key, value, headers, time_ms = given.record(table)
                found = mapping.read(key, value, headers, time_ms)
                assert found == mapping.read(key, value, headers, time_ms)
                counts[check(found)] += 1
                counts["carried"] += isinstance(found, MappedEvent) and bool(found.carried)
                if value and value[0] and is_text(value) and mapping.needs_value:
                    assert found == mapping.read_slowly(key, value, headers, time_ms)
        except Exception as error:
            error.add_note(f"seed={seed}")
            raise
    wanted = {"start", "end", "ping", "other", "carried", *get_args(RejectReason)}
    wanted -= {"no_timestamp", "too_large", "not_avro", "unknown_schema"}
    assert {name for name, count in counts.items() if count > 20} == wanted, counts


def test_decoded_record_becomes_what_its_json_does() -> None:
    """Another format with the same fields gives the same; what is carried means the same."""
    counts: Counter[str] = Counter()
    for seed in SEEDS:
        given = AnyMapping(seed)
        table = given.table()
        mapping = Mapping(read_table(table), 60_000, 86_400_000)
        for _ in range(20):
            key, value, headers, time_ms = given.record(table)
            try:
                fields = msgspec.json.decode(value or b"", type=dict[str, Any])
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue
            found = mapping.read(key, value, headers, time_ms)
            decoded = mapping.read_decoded(fields, key, headers, time_ms)
            counts[check(decoded)] += 1
            if isinstance(found, MappedEvent) and isinstance(decoded, MappedEvent):
                context = json.loads(b"{%b}" % found.carried)
                assert json.loads(b"{%b}" % decoded.carried) == context, f"seed={seed}"
                found, decoded = replace(found, carried=b""), replace(decoded, carried=b"")
                assert decoded == found, f"seed={seed}"
            elif not (table["carry"] or table["end_carry"]):
                assert decoded == found, f"seed={seed} {value!r}"
    assert all(counts[kind] > 100 for kind in ("start", "end", "ping", "other", "not_an_event"))


@pytest.mark.parametrize("value", BYTES)
def test_any_bytes_are_read_alike_by_a_table_of_fields(value: bytes) -> None:
    """Those that stand in the way of the fast way as well."""
    table = read_table(
        {"platform": "pc", "type": "a", "start": "on", "end": "off", "device": "b", "session": "c"}
    )
    mapping = Mapping(table, 0, 0)
    check(mapping.read(None, value, None, T))
    if value:
        assert mapping.read(None, value, None, T) == mapping.read_slowly(None, value, None, T)
