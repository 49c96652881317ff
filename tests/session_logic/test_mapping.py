"""Records of a topic's own shape: what each becomes by its table, and why one is rejected."""

import json
from typing import Any

import pytest

from session_logic.event_table import read_table
from session_logic.events import Rejected
from session_logic.mapping import OTHER, PING, Found, Headers, MappedEvent, Mapping

# 2025-11-01T00:06:45.123Z
T = 1_761_955_605_123
DAY_MS = 86_400_000
TABLE: dict[str, Any] = {
    "platform": "pc",
    "type": "eventId",
    "start": ["Started"],
    "end": ["Ended"],
    "ping": ["Alive"],
    "device": "hostPcId",
    "session": "appSessionId",
}
RECORD = {"eventId": "Started", "hostPcId": "d", "appSessionId": 7}
START = MappedEvent(True, "d", "7", "pc", None)


def read(
    value: object,
    key: bytes | None = b"k",
    headers: Headers | None = None,
    time_ms: int = T,
    **table: Any,
) -> Found:
    """Return what a record is by a table with some keys changed; text is taken as JSON."""
    plain = {k: v for k, v in (TABLE | table).items() if v is not None}
    mapping = Mapping(read_table(plain), 60_000, DAY_MS)
    data = value if isinstance(value, bytes | None) else json.dumps(value).encode()
    return mapping.read(key, data, headers, time_ms)


def why(found: Found, reason: str = "not_an_event") -> str:
    """Return why a record is rejected."""
    assert isinstance(found, Rejected)
    assert found.reason == reason
    return found.detail


def test_start_and_end_are_told_by_their_words() -> None:
    """Each with device and session; unknown fields are passed over."""
    assert read(RECORD | {"more": [1]}) == START
    assert read(RECORD | {"eventId": "Ended"}) == MappedEvent(False, "d", "7", "pc", None)
    assert read(RECORD | {"eventId": "Over"}, end=["Ended", "Over"]) == MappedEvent(
        False, "d", "7", "pc", None
    )


def test_sign_of_life_and_what_is_none_of_the_words_are_skipped() -> None:
    """Whatever else they hold, as topics carry more than sessions."""
    assert read({"eventId": "Alive"}) is PING
    for word in ("started", "", None, 5, 1.5, ["Started"], {"Started": 1}):
        assert read({"eventId": word, "hostPcId": [1]}) is OTHER, word
    assert read({}) is OTHER


def test_ping_is_an_event_where_somebody_listens() -> None:
    """It needs no session id, carries nothing, and is rejected without a device."""
    mapping = Mapping(read_table(TABLE | {"carry": {"a": "account"}}), 0, 0, listens=True)
    unnamed = Mapping(read_table(TABLE | {"session": []}), 0, 0, listens=True)
    record = {"eventId": "Alive", "hostPcId": "d", "appSessionId": 7, "account": "x"}
    found = mapping.read(None, json.dumps(record).encode(), None, T)
    assert found == MappedEvent(False, "d", "7", "pc", None, ping=True)
    assert isinstance(found, MappedEvent)
    assert found.kind == "ping"
    assert unnamed.read(None, json.dumps(record).encode(), None, T) == MappedEvent(
        False, "d", "", "pc", None, ping=True
    )
    lost = {"eventId": "Alive", "appSessionId": 7}
    assert "hostPcId" in why(mapping.read(None, json.dumps(lost).encode(), None, T))


def test_ping_that_opens_is_a_start_where_none_is_active() -> None:
    """So it carries what a start does; in a topic without types each record is one."""
    alive = {"eventId": "Alive", "hostPcId": "d", "appSessionId": 7, "account": "x"}
    carry = {"account": "account"}
    want = MappedEvent(True, "d", "7", "pc", None, b'"account":"x"', ping=True)
    assert read(alive, open_on_ping=True, carry=carry) == want
    untyped = {"type": None, "start": None, "end": None, "ping": None, "session": None}
    found = read(alive, open_on_ping=True, carry=carry, **untyped)
    assert found == MappedEvent(True, "d", "", "pc", None, b'"account":"x"', ping=True)


def test_kind_of_an_event_is_one_of_three() -> None:
    """A start, an end or a ping."""
    assert [START.kind, MappedEvent(False, "d", "7", "pc", None).kind] == ["start", "end"]


def test_other_type_is_rejected_where_the_table_says_so() -> None:
    """The detail names the words."""
    needed = "one of Started, Ended, Alive is needed"
    assert why(read({"eventId": "Pause"}, other="reject")) == f'field eventId is "Pause": {needed}'
    assert why(read({"eventId": None}, other="reject")) == f"field eventId is missing: {needed}"
    assert why(read({"eventId": []}, other="reject")) == f"field eventId is an array: {needed}"


def test_type_may_be_a_number_or_a_boolean() -> None:
    """The table has it as it stands in JSON."""
    assert read(RECORD | {"eventId": True}, start="true", end="false") == START
    assert read(RECORD | {"eventId": 1}, start="1", end="0") == START
    assert read(RECORD | {"eventId": 1.0}, start="1", end="0") is OTHER


def test_table_without_a_type_takes_every_record_for_a_start() -> None:
    """Whether that can be is not asked here."""
    plain = {"type": None, "start": None, "end": None, "ping": None}
    assert read({"hostPcId": "d", "appSessionId": 7}, **plain) == START


@pytest.mark.parametrize(
    ("value", "text"),
    [("x", "x"), (0, "0"), (-5, "-5"), (2**64, str(2**64)), ("é" * 128, "é" * 128), ("7", "7")],
)
def test_id_is_text_or_a_whole_number(value: object, text: str) -> None:
    """A number becomes text."""
    assert read(RECORD | {"hostPcId": value, "appSessionId": value}) == MappedEvent(
        True, text, text, "pc", None
    )


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        (None, "is missing"), ("", 'is ""'), (True, "is true"), (1.5, "is 1.5"), (1.0, "is 1.0"),
        ([1], "is an array"), ({"a": 1}, "is an object"), ("x" * 129, f'is "{"x" * 59}...'),
        (10**128, f"is 1{'0' * 59}..."), ("a\n\x1b", 'is "a\\n\\u001b"'),
    ],
)  # fmt: skip
def test_what_is_no_id_is_rejected_with_the_field_and_what_it_has(value: object, seen: str) -> None:
    """Nothing is guessed: a fraction is no id, though it may be meant as one."""
    if value == "a\n\x1b":
        value = {"a\n\x1b": 1}
        seen = "is an object"
    detail = why(read(RECORD | {"appSessionId": value}))
    needed = "text or a whole number of 1 to 128 characters is needed"
    assert detail == f"field appSessionId {seen}: {needed}"


def test_path_goes_into_objects() -> None:
    """What is no object, or not there, leads nowhere."""
    paths = {"device": "data.device.id", "session": "data.session"}
    good = {"eventId": "Started", "data": {"device": {"id": "d"}, "session": 7}}
    assert read(good, **paths) == START
    missing = "field data.device.id is missing"
    for data in ({}, None, "x", [1], {"device": None}, {"device": "d"}, {"device": {"id": None}}):
        assert why(read(good | {"data": data}, **paths)).startswith(missing), data


def test_first_source_that_is_there_counts() -> None:
    """Null is not there; what is there and wrong is not passed over."""
    paths = {"device": ["after.id", "before.id", "key"]}
    assert read(RECORD | {"after": {"id": "d"}, "before": {"id": "x"}}, **paths) == START
    assert read(RECORD | {"after": None, "before": {"id": "d"}}, **paths) == START
    assert read(RECORD | {"after": {"id": None}}, b"d", **paths) == START
    detail = why(read(RECORD, None, **paths))
    assert detail.startswith("field after.id or field before.id or the key is missing: text or")
    assert why(read(RECORD | {"after": {"id": []}, "before": {"id": "d"}}, **paths))


def test_value_and_what_is_in_it_can_both_be_sources() -> None:
    """Some senders have a text where others have an object."""
    paths = {"device": ["client.id", "client"], "platform": {"field": ["client.os.name", "os"]}}
    assert read(RECORD | {"client": "d", "os": "pc"}, **paths) == START
    assert read(RECORD | {"client": {"id": "d", "os": {"name": "pc"}}}, **paths) == START
    assert why(read(RECORD | {"client": {"os": 5}, "os": "pc"}, **paths)).startswith("field client")
    assert why(read(RECORD | {"os": "pc"}, **paths)).startswith("field client.id or field client")


def test_key_is_a_source() -> None:
    """As text; a field that is called so is reached from the root."""
    assert read(RECORD, b"d", device="key") == START
    assert read(RECORD | {"key": "d"}, b"x", device="$.key") == START
    assert why(read(RECORD, None, device="key")).startswith("the key is missing: text or a whole")
    assert why(read(RECORD, b"", device="key")).startswith('the key is "": text or a whole number')
    assert why(read(RECORD, b"\xff", device="key")).startswith("the key is no UTF-8 text: text or")


def test_header_is_a_source() -> None:
    """Of several with a name the last one counts."""
    headers = [("type", b"Ended"), ("device", None), ("type", b"Started"), ("device", b"d")]
    sources = {"type": "header:type", "device": "header:device"}
    assert read(RECORD, headers=headers, **sources) == START
    assert read(RECORD, **sources) is OTHER
    headers.append(("device", None))
    assert why(read(RECORD, headers=headers, **sources)).startswith("header device is missing")
    headers.append(("device", b"\xff"))
    assert why(read(RECORD, headers=headers, **sources)).startswith("header device is no UTF-8")


def test_value_that_no_source_needs_is_not_read() -> None:
    """It may be anything, or not there."""
    sources = {"type": "header:ce_type", "device": "header:ce_subject", "session": "header:ce_id"}
    headers = [("ce_type", b"Started"), ("ce_subject", b"d"), ("ce_id", b"7")]
    for value in (b"\x00\xff", None, b"", b"{}"):
        assert read(value, headers=headers, **sources) == START


def test_platform_may_be_in_the_event() -> None:
    """It is text or a whole number as an id is."""
    assert read(RECORD | {"os": "pc"}, platform={"field": "os"}) == START
    assert why(read(RECORD, platform={"field": "os"})).startswith("field os is missing: text or a")


def test_time_in_a_field_is_the_time_of_the_event() -> None:
    """In the unit of the table."""
    found = read(RECORD | {"at": "2025-11-01T00:06:45.124Z"}, time="at")
    assert found == MappedEvent(True, "d", "7", "pc", T + 1)
    assert read(RECORD | {"at": T + 1}, time="at", time_unit="ms") == found
    assert read(RECORD, b"1761955605.124", time="key", time_unit="s") == found


def test_what_is_no_time_is_rejected_with_what_it_has() -> None:
    """And says what is needed."""
    needed = "a time such as 2025-11-01T00:06:45.000Z is needed"
    assert why(read(RECORD, time="at")) == f"field at is missing: {needed}"
    assert why(read(RECORD | {"at": T}, time="at")) == f"field at is {T}: {needed}"
    detail = why(read(RECORD | {"at": "noon"}, time="at", time_unit="us"))
    assert detail == 'field at is "noon": microseconds since 1970 is needed'


def test_time_is_bounded_by_the_timestamp_of_the_record() -> None:
    """What is further ahead is rejected, what is longer ago has that timestamp."""

    def at(time_ms: int) -> Found:
        return read(RECORD | {"at": time_ms}, time="at", time_unit="ms")

    assert at(T + 60_000) == MappedEvent(True, "d", "7", "pc", T + 60_000)
    detail = why(at(T + 60_001), "in_the_future")
    assert detail == f"field at is {T + 60_001}: 60001 ms after the record's timestamp, limit 60000"
    assert at(T - DAY_MS) == MappedEvent(True, "d", "7", "pc", T - DAY_MS)
    assert at(T - DAY_MS - 1) == MappedEvent(True, "d", "7", "pc", None, late=True)
    assert at(0) == at(-5) == MappedEvent(True, "d", "7", "pc", None, late=True)


def test_time_before_1970_is_late_however_old_the_record() -> None:
    """No record of the output has such a time."""
    found = read(RECORD | {"at": -1}, time="at", time_unit="ms", time_ms=5)
    assert found == MappedEvent(True, "d", "7", "pc", None, late=True)


def test_record_without_a_timestamp_has_no_bounds() -> None:
    """It is rejected for that, and not for its field."""
    found = read(RECORD | {"at": T}, time="at", time_unit="ms", time_ms=-1)
    assert found == MappedEvent(True, "d", "7", "pc", T)


def test_session_without_a_name_is_called_after_its_start() -> None:
    """By its time in milliseconds; an end names none."""
    record = {"eventId": "Started", "hostPcId": "d", "at": T + 1}
    at = {"session": None, "time": "at", "time_unit": "ms"}
    assert read(record, **at) == MappedEvent(True, "d", str(T + 1), "pc", T + 1)
    assert read(record | {"at": 0}, **at) == MappedEvent(True, "d", str(T), "pc", None, late=True)
    assert read(record, session=None) == MappedEvent(True, "d", str(T), "pc", None)
    ended = record | {"eventId": "Ended"}
    assert read(ended, **at) == MappedEvent(False, "d", "", "pc", T + 1)


FRAMED = b"\x00\x00\x00\x00\x07" + json.dumps(RECORD).encode()


def test_frame_of_a_registry_is_passed_over_where_it_is_there() -> None:
    """With json_sr; in newer clients the id is in a header, and the value has no frame."""
    assert read(FRAMED, format="json_sr") == START
    assert read(RECORD, format="json_sr", headers=[("__value_schema_id", b"\x01")]) == START
    assert why(read(FRAMED[:5], format="json_sr", other="reject"), "empty")
    assert why(read(FRAMED), "not_json").startswith("it looks like JSON framed for a schema regis")
    assert "format json_sr" in why(read(FRAMED), "not_json")


def test_record_without_a_value_is_skipped_or_rejected_as_other_types_are() -> None:
    """Compacted topics have such records for what was deleted."""
    for value in (None, b""):
        assert read(value) is OTHER
        assert why(read(value, other="reject"), "empty") == "the record has no value"
        started = [("type", b"Started")]
        assert why(read(value, headers=started, type="header:type"), "empty")


def test_value_that_is_no_json_is_rejected() -> None:
    """Unless it need not be read to know that it is to be skipped."""
    for value in (
        b"{",
        b"\xff",
        b'{"a":' + b"[" * 100_000,
        b'{"eventId":"\xff"}',
        b'{"hostPcId":"\xff"}{',
    ):
        assert why(read(value), "not_json"), value
    assert read(b"{", headers=[("type", b"Pause")], type="header:type") is OTHER
    assert why(read(b"{", headers=[("type", b"Started")], type="header:type"), "not_json")


def test_json_that_is_no_object_is_rejected() -> None:
    """As an array of events would be, of which none would be read."""
    for value in (b"[]", b"5", b"null", b'"Started"'):
        assert why(read(value)).startswith("the value cannot be read: Expected `object`"), value


def test_wrong_bytes_matter_only_where_they_are_needed() -> None:
    """A device id that is no UTF-8 is no JSON in an event, and nothing in what is skipped."""
    wrong = b'{"eventId":"%s","hostPcId":"\xff","appSessionId":7}'
    assert why(read(wrong % b"Started"), "not_json")
    assert read(wrong % b"Pause") is OTHER
    assert read(b'{"eventId":"Started","hostPcId":"d","appSessionId":7,"x":"\xff"}') == START


def test_number_that_cannot_be_held_is_rejected() -> None:
    """Of a field that the table names."""
    value = b'{"eventId":"Started","hostPcId":"d","appSessionId":1e999}'
    assert why(read(value)) == "the value cannot be read: Number out of range"
    assert why(read(value.replace(b"1e999", b"1" * 5_000))).startswith("the value cannot be read")


def test_field_that_is_there_twice_has_its_last_value() -> None:
    """As for most readers of JSON."""
    assert read(b'{"eventId":"x","hostPcId":"d","appSessionId":7,"eventId":"Started"}') == START


def carried(record: dict[str, Any] | bytes, **table: Any) -> bytes:
    """Return what is carried of a record."""
    found = read(RECORD | record if isinstance(record, dict) else record, **table)
    assert isinstance(found, MappedEvent), found
    return found.carried


def test_fields_are_carried_as_members_in_the_order_of_the_table() -> None:
    """What is absent is left out, null stays, and nothing changes its form."""
    carry = {"account": "psnAccountId", "title": "game.title", "b": "more", "missing": "x.y"}
    record = (
        b'{"eventId":"Started","hostPcId":"d","appSessionId":7,"game":{"title":1.50},'
        b'"psnAccountId":"\\u00e9","more":null}'
    )
    assert carried(record, carry=carry) == b'"account":"\\u00e9","title":1.50,"b":null'
    assert carried({}, carry=carry) == b""
    assert carried({"x": {"y": [1, {"z": None}]}}, carry=carry) == b'"missing":[1,{"z":null}]'


def test_of_several_fields_the_first_that_is_there_is_carried() -> None:
    """Null only where none of them has a value."""
    carry = {"a": ["x", "y", "z"]}
    assert carried({"x": None, "y": 5, "z": 6}, carry=carry) == b'"a":5'
    assert carried({"z": None}, carry=carry) == b'"a":null'
    assert carried({}, carry=carry) == b""


def test_key_and_headers_are_carried_as_text() -> None:
    """Without UTF-8 they cannot be."""
    carry = {"k": "key", "h": "header:h", "n": "header:n"}
    headers = [("h", b'a"b'), ("n", None)]
    found = read(RECORD, b"7", headers, carry=carry)
    assert found == MappedEvent(True, "d", "7", "pc", None, b'"k":"7","h":"a\\"b"')
    assert why(read(RECORD, b"\xff", carry=carry)).startswith("the key is not valid JSON")


def test_value_that_is_carried_can_be_a_part_of_the_event_as_well() -> None:
    """Also what is in it, and what it is in."""
    carry = {"s": "appSessionId", "whole": "host", "id": "host.id"}
    record = {"host": {"id": "d", "n": [1, 2]}}
    found = carried(record, carry=carry, device="host.id")
    assert found == b'"s":7,"whole":{"id":"d","n":[1,2]},"id":"d"'
    assert why(read(RECORD | {"host": "d"}, carry=carry, device="host.id")).startswith(
        "field host."
    )
    assert carried({"host": "d"}, carry=carry, device=["host.id", "host"]) == b'"s":7,"whole":"d"'


def test_start_and_end_carry_what_is_theirs() -> None:
    """Of the other kind's table nothing is looked at."""
    tables = {"carry": {"a": "x"}, "end_carry": {"b": "y"}}
    record = {"x": 1, "y": 2}
    assert carried(record, **tables) == b'"a":1'
    assert carried(record | {"eventId": "Ended"}, **tables) == b'"b":2'
    assert carried({"y": "y" * 300}, **tables) == b""


def test_too_much_to_carry_is_rejected() -> None:
    """At most 256 bytes of a field, and 1,024 together."""
    carry = {f"n{n}": f"f{n}" for n in range(5)}
    fields = {f"f{n}": "x" * 254 for n in range(4)}
    assert len(carried(fields, carry=carry)) == 4 * (256 + 5) + 3
    assert why(read(RECORD | fields | {"f4": 1}, carry=carry)) == (
        "what is carried has 1025 bytes, limit 1024"
    )
    assert why(read(RECORD | {"f0": "x" * 255}, carry=carry)) == (
        "field f0 has 257 bytes: at most 256 are carried"
    )
