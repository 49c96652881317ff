"""The likeliest cause where nearly nothing becomes an event."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from dataflows.settings import Settings
from heartwheel.events.cause import likely_causes
from heartwheel.events.records import SeenRecord
from heartwheel.events.trial import Trial
from session_logic.event_table import EventTable
from tests.support.own_events import cloud_events, reference

TABLE = EventTable(
    platform="pc",
    type="eventId",
    start=("ApplicationSessionStart",),
    end=("ApplicationSessionEndBi",),
    device="hostPcId",
    session="appSessionId",
    time="timestamp",
)
Change = Callable[[SeenRecord], SeenRecord]


def causes(table: EventTable | None, records: Sequence[SeenRecord]) -> list[str]:
    """Return the causes for a topic with a table, or for one in our own format."""
    settings = (
        Settings(input_topics={"t": "pc"})
        if table is None
        else Settings(input_topics={}, inputs={"t": table})
    )
    trial = Trial(settings, "t")
    return likely_causes(table, [trial.of(one) for one in records])


def only_cause(table: EventTable | None, records: Sequence[SeenRecord]) -> str:
    """Return the one cause."""
    (found,) = causes(table, records)
    return found


def values(change: Callable[[bytes], bytes]) -> list[SeenRecord]:
    """Return the reference topic with other values."""
    return [replace(one, value=change(one.value or b"")) for one in reference()]


def fields(change: Callable[[dict[str, Any]], dict[str, Any]]) -> list[SeenRecord]:
    """Return the reference topic with other fields."""
    return values(lambda value: json.dumps(change(json.loads(value))).encode())


def test_topic_that_is_read_well_has_no_cause() -> None:
    """Nor has one of which a part is rejected."""
    records = reference()
    assert causes(TABLE, records) == []
    half = [replace(one, value=b"x") if number % 2 else one for number, one in enumerate(records)]
    assert causes(TABLE, half) == []
    assert causes(TABLE, []) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: b"\0\0\0\0\7" + v, 'format = "json_sr"'),
        (lambda v: b"\0\0\0\0\7\x02" + v, "Avro or Protobuf"),
        (lambda v: b"\xef\xbb\xbf" + v, "byte order mark"),
        (lambda v: v.decode().encode("utf-16"), "UTF-16"),
        (lambda v: v.decode().encode("utf-16-be"), "UTF-16"),
        (lambda v: b"\x1f\x8b" + v, "gzip"),
        (lambda v: b"[" + v + b"]", "no objects"),
        (lambda _: b"", "are empty"),
        (lambda _: b"no json", "are no JSON"),
    ],
)
@pytest.mark.parametrize("table", [TABLE, None])
def test_values_that_are_written_otherwise_are_the_cause(
    table: EventTable | None, change: Callable[[bytes], bytes], words: str
) -> None:
    """Whatever else is wrong with them."""
    assert words in only_cause(table, values(change))


def test_own_events_without_a_table_are_told_to_need_one() -> None:
    """The command that proposes one is named, beside what is wrong with most."""
    found = only_cause(None, reference())
    assert found.startswith("32 of 32 records: Object missing required field `type`; ")
    assert "`heartwheel events guess` proposes a table" in found


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"type": "eventID"}, "type: there is no field eventID in 32 of 32 records; the near"),
        ({"device": "host_pc_id"}, "host_pc_id in 32 of 32 records; the nearest is hostPcId"),
        ({"device": ("a.b", "key")}, "there is no field a.b and no key in 32 of 32 records"),
        ({"device": "data.hostPcId"}, "the nearest is hostPcId"),
        ({"session": "session"}, "the nearest is appSessionId"),
        ({"device": "qqqq"}, "seen are eventId, appSessionId"),
        ({"device": "key"}, "device: there is no key in 32"),
        ({"type": "header:ce_type"}, "type: there is no header ce_type in 32"),
        ({"time": "time"}, "time: there is no field time in 32"),
    ],
)  # fmt: skip
def test_source_that_is_in_no_record_is_named_with_the_nearest(
    changes: dict[str, str], found: str
) -> None:
    """Another case, another folder, a part of the name."""
    assert found in only_cause(replace(TABLE, **changes), reference())


def test_header_of_another_name_is_the_nearest() -> None:
    """Headers are compared with headers."""
    table = EventTable(
        platform="pc",
        type="header:ce-type",
        start=("com.example.session.started.v1",),
        end=("com.example.session.ended.v1",),
        device="header:ce_subject",
        session="sessionId",
    )
    assert "the nearest is header:ce_type" in only_cause(table, cloud_events(binary=True))


def test_words_that_the_table_does_not_have_are_the_cause() -> None:
    """They are counted; one that differs in case only is named."""
    lower = fields(lambda event: event | {"eventId": event["eventId"].lower()})
    found = only_cause(TABLE, lower)
    assert "type has 'applicationsessionstart' (16), 'applicationsessionendbi' (16)" in found
    assert "the table has 'ApplicationSessionStart', and capitals and spaces count" in found
    other = fields(lambda event: event | {"eventId": "Login"})
    assert only_cause(TABLE, other) == "type has 'Login' (32): none is in start, end or ping"


@pytest.mark.parametrize(
    ("time", "unit", "right"),
    [
        (1_764_000_000, "ms", "s"),
        (1_764_000_000_123, "us", "ms"),
        (1_764_000_000_123, "s", "ms"),
        (1_764_000_000_123_456, "ms", "us"),
        (1_764_000_000_123, "iso", "ms"),
        ("1764000000", "iso", "s"),
        ("2025-11-24T16:00:00Z", "ms", "iso"),
    ],
)
def test_time_in_another_unit_is_the_cause(time: object, unit: str, right: str) -> None:
    """Also where every record is an event, with the timestamp for its time because it is late."""
    table = replace(TABLE, time_unit=unit)
    found = only_cause(table, fields(lambda event: event | {"timestamp": time}))
    assert f'write time_unit = "{right}"' in found
    assert str(time) in found


def test_times_long_before_the_timestamps_are_the_cause_of_lateness() -> None:
    """The right unit, and old events."""
    records = [replace(one, time_ms=(one.time_ms or 0) + 300 * 86_400_000) for one in reference()]
    found = only_cause(TABLE, records)
    assert found.startswith("time is 300 d before the records' timestamps")


def test_times_after_the_timestamps_are_the_cause() -> None:
    """As of a sender that writes local time as UTC."""
    records = [replace(one, time_ms=(one.time_ms or 0) - 3 * 3_600_000) for one in reference()]
    assert "time is 3 h after the records' timestamps" in only_cause(TABLE, records)


def test_time_that_is_none_is_the_cause() -> None:
    """Whatever time_unit says."""
    records = fields(lambda event: event | {"timestamp": "yesterday"})
    assert "time has 'yesterday'" in only_cause(TABLE, records)


def test_reason_that_is_the_same_for_all_is_told_where_nothing_better_is_known() -> None:
    """The most frequent one."""
    records = fields(lambda event: event | {"appSessionId": True})
    assert "32 of 32 records: field appSessionId is true" in only_cause(TABLE, records)


def own(table: EventTable | None, records: list[SeenRecord]) -> list[SeenRecord]:
    """Return records that are well but for their timestamps."""
    event = b'{"type":"GameStart","device_id":"d","session_id":"s"}'
    return records if table else [replace(one, value=event) for one in records]


def test_large_records_and_wrong_clocks_are_told_before_fields() -> None:
    """A field cannot help there; an example is enough."""
    large = fields(lambda event: {"text": "x" * 70_000} | event)
    assert only_cause(TABLE, large).startswith("32 of 32 records: 70,")
    undated = [replace(one, time_ms=-1) for one in reference()]
    for table in (TABLE, None):
        assert "has no timestamp" in only_cause(table, own(table, undated))
    ahead = [replace(one, time_ms=10**14) for one in reference()]
    for table in (TABLE, None):
        found = only_cause(table, own(table, ahead))
        assert found.startswith("32 of 32 records: the record's timestamp is ")
    words = fields(lambda event: event | {"eventId": "x" * 500})
    assert "type has 'xxx" in only_cause(TABLE, words)
    assert len(only_cause(TABLE, words)) < 120


def test_nothing_but_pings_has_no_cause() -> None:
    """They are known to the table."""
    table = replace(TABLE, start=("Start",), end=("End",), ping=(*TABLE.start, *TABLE.end))
    assert causes(table, reference()) == []
