"""The decode step: what is too large is not decoded, and what a clock rejected stays rejected."""

import json
from typing import Any

import pytest
from prometheus_client import REGISTRY

from dataflows.decode import Decode
from dataflows.messages import DeadLetter, LaneBatch, Message, PartitionBatch, RejectedByClock
from dataflows.run_state import RunState
from session_logic.clock import PartitionProgress
from session_logic.event_table import read_table
from session_logic.events import Fact
from session_logic.mapping import Mapping
from tests.support.clocks import FixedClock

NOW_MS = 1_700_000_000_000
VALUE = b'{"type":"GameStart","device_id":"d","session_id":"s"}'
KEY = b"key"
SIZE = len(VALUE) + len(KEY)


def decoded(message: Message, limit: int) -> LaneBatch | DeadLetter:
    """Return what becomes of one message."""
    decode = Decode(1, 0, RunState(FixedClock(NOW_MS)), limit)
    ((_, item),) = decode([PartitionBatch("t", 0, "pc", [message], None)])
    return item


def test_record_as_large_as_the_limit_is_an_event() -> None:
    """The limit itself is allowed."""
    item = decoded((7, NOW_MS, KEY, VALUE, True), SIZE)
    assert isinstance(item, LaneBatch)
    assert [fact.session_id for fact in item.facts] == ["s"]


@pytest.mark.parametrize(
    ("key", "value"), [(KEY, VALUE), (KEY * 100, b"{}"), (None, b"?" * 100), (KEY * 100, None)]
)
def test_record_above_the_limit_is_a_letter_without_key_and_value(
    key: bytes | None, value: bytes | None
) -> None:
    """Whichever of the two is large; place and size say where the whole one is."""
    item = decoded((7, NOW_MS, key, value, True), SIZE - 1)
    size = len(key or b"") + len(value or b"")
    assert isinstance(item, DeadLetter)
    assert (item.reason, item.message) == ("too_large", (7, NOW_MS, None, None, True))
    assert str(size) in item.detail


def test_lane_by_partition_is_that_of_the_input_and_progress_goes_to_own_lanes() -> None:
    """Whatever the id of the device would tell."""
    decode = Decode(4, 0, RunState(FixedClock(NOW_MS)))
    decode.route, decode.own_lanes = "partition", range(1, 4, 2)
    message = (7, NOW_MS, KEY, VALUE, True, None)
    polls = [PartitionBatch("t", lane, "pc", [message], None) for lane in (1, 3)]
    report = PartitionBatch("t", 1, "pc", [], PartitionProgress("t/1", 2, None))
    items = [item for _, item in decode([*polls, report])]
    assert all(isinstance(item, LaneBatch) for item in items)
    assert [(item.lane, len(item.facts)) for item in items] == [(1, 1), (3, 1), (1, 0), (3, 0)]


@pytest.mark.parametrize(("beside_ms", "kind"), [(0, LaneBatch), (1, DeadLetter)])
def test_what_an_earlier_run_has_reached_is_not_in_the_future(beside_ms: int, kind: type) -> None:
    """The clock was set back: what is read once more stays the event that it was."""
    run = RunState(FixedClock(NOW_MS), published_ms=lambda: NOW_MS + 3_600_000)
    message = (7, NOW_MS + 3_600_000 + beside_ms, KEY, VALUE, True)
    ((_, item),) = Decode(1, 0, run)([PartitionBatch("t", 0, "pc", [message], None)])
    assert type(item) is kind


def test_record_that_an_earlier_clock_rejected_stays_rejected() -> None:
    """It is known by place and timestamp; the topic is asked once, before the first record."""
    asked = 0

    def earlier() -> RejectedByClock:
        nonlocal asked
        asked += 1
        return {("t", 0): {8: NOW_MS, 9: NOW_MS - 1}}

    decode = Decode(1, 0, RunState(FixedClock(NOW_MS), rejected_earlier=earlier))
    assert decode([PartitionBatch("t", 0, "pc", [], None)]) == []
    assert asked == 0
    reasons = []
    for partition, offset in ((0, 7), (0, 8), (0, 9), (1, 8), (0, 10), (0, 8)):
        poll = PartitionBatch("t", partition, "pc", [(offset, NOW_MS, KEY, VALUE, True)], None)
        ((_, item),) = decode([poll])
        reasons.append(item.reason if isinstance(item, DeadLetter) else "event")
    # 9 has another timestamp, so it is of a topic that was created again; 10 is past them all.
    assert reasons == ["event", "in_the_future", "event", "event", "event", "event"]
    assert asked == 1


TABLE = {
    "platform": "tv",
    "type": "kind",
    "start": "on",
    "end": "off",
    "ping": "alive",
    "device": "id",
    "session": "header:session",
    "time": "at",
    "time_unit": "ms",
    "carry": {"title": "game.title"},
    "end_carry": {"left": "left"},
}
MAPPED = {"kind": "on", "id": 7, "at": NOW_MS - 5}


def mapped(
    topic: str, *changes: dict[str, Any], time_ms: int = NOW_MS, limit: int = 1_000
) -> list[Fact | str]:
    """Return what becomes of messages of a topic with a table: facts, and reasons of letters."""
    mappings = {topic: Mapping(read_table(TABLE), 60_000, 1_000)}
    decode = Decode(1, 60_000, RunState(FixedClock(NOW_MS)), limit, mappings)
    headers = [("session", b"s")]
    messages = [
        (offset, time_ms, b"key", json.dumps(MAPPED | change).encode(), False, headers)
        for offset, change in enumerate(changes)
    ]
    found: list[Fact | str] = []
    for _, item in decode([PartitionBatch(topic, 0, "", messages, None)]):
        if isinstance(item, DeadLetter):
            assert item.message == messages[item.message[0]] or item.reason == "too_large"
            found.append(item.reason)
        else:
            assert isinstance(item, LaneBatch)
            found += item.facts
    return found


def counted(name: str, **labels: str) -> float:
    """Return the value of a counter."""
    return REGISTRY.get_sample_value(f"heartwheel_{name}_total", labels) or 0


def test_topic_with_a_table_is_read_by_it() -> None:
    """Its platform and time are those of the table; the time of a field is set by the sender."""
    assert mapped("m1", {}, {"kind": "off", "at": NOW_MS}) == [
        Fact(True, "7", "s", "tv", NOW_MS - 5, created=True),
        Fact(False, "7", "s", "tv", NOW_MS, created=True),
    ]
    item = decoded((7, NOW_MS, KEY, VALUE, True, None), SIZE)
    assert isinstance(item, LaneBatch)
    assert item.facts[0].platform == "pc"


def test_fact_has_what_its_event_carries() -> None:
    """Of a start what is for the session, of an end what is for its last record."""
    fields = {"game": {"title": 7.50}, "left": None}
    facts = mapped("m6", fields, fields | {"kind": "off"})
    assert [fact.carried for fact in facts if isinstance(fact, Fact)] == [
        b'"title":7.5', b'"left":null',
    ]  # fmt: skip


def test_late_event_has_the_timestamp_of_its_record() -> None:
    """With whoever has set that; it is counted."""
    assert mapped("m2", {"at": NOW_MS - 1_001}, {"at": NOW_MS - 1_000}) == [
        Fact(True, "7", "s", "tv", NOW_MS, created=False),
        Fact(True, "7", "s", "tv", NOW_MS - 1_000, created=True),
    ]
    assert counted("late_events", topic="m2") == 1


def test_what_is_skipped_is_counted_by_topic_and_kind() -> None:
    """Whatever its timestamp; the counters are there from the start."""
    assert mapped("m3") == []
    names = [("skipped_records", {"topic": "m3", "kind": kind}) for kind in ("ping", "other")]
    for name, labels in [*names, ("late_events", {"topic": "m3"})]:
        assert REGISTRY.get_sample_value(f"heartwheel_{name}_total", labels) == 0
    for time_ms in (NOW_MS, -1, NOW_MS + 60_001):
        assert mapped("m3", {"kind": "alive"}, {"kind": "x"}, {"kind": None}, time_ms=time_ms) == []
    assert counted("skipped_records", topic="m3", kind="ping") == 3
    assert counted("skipped_records", topic="m3", kind="other") == 6


def test_mapped_record_is_bounded_as_any_other_is() -> None:
    """By its size, by its timestamp, and by its own time."""
    assert mapped("m4", {"more": "x" * 1_000}) == ["too_large"]
    assert mapped("m4", {}, time_ms=-1) == ["no_timestamp"]
    assert mapped("m4", {"at": NOW_MS + 60_000}, time_ms=NOW_MS + 60_001) == ["in_the_future"]
    assert mapped("m4", {"at": NOW_MS + 60_001}, {"id": True}) == ["in_the_future", "not_an_event"]


def test_key_of_a_mapped_record_may_be_anything() -> None:
    """The table says where the device id is; that a device is in two partitions is told."""
    before = counted("misplaced_events", cause="key")
    assert len(mapped("m5", {})) == 1
    assert counted("misplaced_events", cause="key") == before
    assert isinstance(decoded((7, NOW_MS, KEY, VALUE, True, None), SIZE), LaneBatch)
    assert counted("misplaced_events", cause="key") == before + 1
