"""What is written by an input table is read by it as the same event."""

import json
import random
import tomllib
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from dataflows.settings import Settings
from heartwheel.event_writer import BAD_INPUT, OwnWriter, TableWriter, writers_of
from session_logic.codec import decode_input
from session_logic.errors import ConfigError
from session_logic.event_table import EventTable, read_table
from session_logic.events import GameEnd, GameStart, Rejected
from session_logic.mapping import MappedEvent, Mapping
from tests.support.any_mapping import AnyMapping, T
from tests.support.pages import page

SEEDS = range(800)
DEVICE, SESSION = "6fb86ebc-3d88-4e31-b913-ea939acacf56", "9402035216"
PLAIN: dict[str, Any] = {
    "platform": "pc", "type": "data.kind", "start": "on", "end": ["off", "gone"],
    "device": ["data.id", "id"], "session": "session", "time": "header:time", "time_unit": "ms",
    "carry": {"account": "account", "where": "header:where"}, "end_carry": {"s": "data.s"},
}  # fmt: skip


def chooser(seed: int) -> Callable[..., Any]:
    """Return what chooses one of its arguments."""
    seeded = random.Random(seed)
    return lambda *choices: seeded.choice(choices)


def event_of(table: EventTable, choose: Callable[..., Any], *, is_start: bool) -> MappedEvent:
    """Return an event that a table can have; without a session, the time names it."""
    session = choose("s", "07", "7", "-1", "1.5", str(10**30), "é" * 64, "true", "\u2028")
    if not table.session:
        session = str(T) if is_start else ""
    return MappedEvent(
        is_start,
        choose("d", "12", "012", DEVICE, "\x7f", "x" * 128),
        session,
        table.platform if isinstance(table.platform, str) else choose("pc", "1"),
        T if table.time else None,
    )


def carry_of(prefix: str, choose: Callable[..., Any]) -> dict[str, Any]:
    """Return fields to carry that no other part of an event is in, or in the way of."""
    place = f"their {prefix}"
    some = [f"{place}.first", [f"{place}.a.b", f"{place}.never"], f"header:{prefix}"]
    return {f"{prefix}{number}": where for number, where in enumerate(some) if choose(True, False)}


def members_of(carry: dict[str, Any], choose: Callable[..., Any]) -> bytes:
    """Return values for what is carried: text in a header, and any JSON in a field."""
    members = {
        name: choose("x", "é", DEVICE)
        if str(where).startswith("header:")
        else choose("x", DEVICE, 7, None, [1.5], {"a": {}})
        for name, where in carry.items()
    }
    return json.dumps(members, separators=(",", ":"), ensure_ascii=False)[1:-1].encode()


def test_any_table_reads_back_what_was_written() -> None:
    """Whatever an event is and carries; or the table has no inverse."""
    counts: Counter[str] = Counter()
    for seed in SEEDS:
        choose = chooser(seed)
        carry = {"carry": carry_of("x", choose), "end_carry": carry_of("y", choose)}
        table = read_table(AnyMapping(seed).table() | carry)
        mapping = Mapping(table, 0, 0)
        try:
            writer = TableWriter("topic", table)
        except ConfigError as error:
            counts[str(error).partition(" has ")[2][:3]] += 1
            continue
        for is_start, carried in ((True, table.carry), (False, table.end_carry)):
            event = event_of(table, choose, is_start=is_start)
            event = replace(event, carried=members_of(carried, choose))
            try:
                assert writer.carried("start" if is_start else "end") == tuple(carried)
                assert mapping.read(*writer.write(event), T) == event
                bad = writer.bad(event.device_id)
                assert bad
                assert all(isinstance(mapping.read(*sent, T), Rejected) for sent in bad)
            except Exception as error:
                error.add_note(f"seed={seed} {table}")
                raise
            counts["start" if is_start else "end"] += 1
            counts["carried"] += bool(event.carried)
    assert counts["start"] == counts["end"] > 200, counts
    assert counts["carried"] > 100, counts
    assert counts["two"] > 100, counts
    assert counts["no "] > 50, counts


def test_field_that_is_carried_and_the_device_id_is_written_once() -> None:
    """What is carried stands back behind the parts of an event, whatever it was to be."""
    table = read_table(PLAIN | {"carry": {"id": "data.id", "all": "data", "key": "key"}})
    sent = TableWriter("t", table).write(
        MappedEvent(True, "d", "s", "pc", T, b'"id":"other","all":7,"key":"k"')
    )
    assert json.loads(sent.value) == {"data": {"kind": "on", "id": "d"}, "session": "s"}
    assert sent.key == b"d"


def test_record_has_each_part_where_the_table_says() -> None:
    """Ids that are numbers are numbers; the key is the device id where it has no other use."""
    writer = TableWriter("t", read_table(PLAIN))
    carried = b'"account":"x","where":"\xc3\xa9"'
    sent = writer.write(MappedEvent(True, DEVICE, SESSION, "pc", T, carried))
    assert sent.key == DEVICE.encode()
    assert json.loads(sent.value) == {
        "data": {"kind": "on", "id": DEVICE}, "session": 9402035216, "account": "x",
    }  # fmt: skip
    assert sent.headers == [("time", str(T).encode()), ("where", "é".encode())]
    framed = TableWriter("t", read_table(PLAIN | {"format": "json_sr"}))
    sent = framed.write(MappedEvent(False, DEVICE, "007", "pc", T, b'"s":12'))
    assert sent.value.startswith(b"\0\0\0\0\1{")
    assert json.loads(sent.value[5:]) == {
        "data": {"kind": "off", "id": DEVICE, "s": 12}, "session": "007",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("unit", "written"),
    [
        ("iso", "2025-11-01T00:06:45.123+00:00"),
        ("s", 1761955605.123),
        ("ms", 1761955605123),
        ("us", 1761955605123000),
    ],
)
def test_time_is_written_in_the_unit_of_the_table(unit: str, written: object) -> None:
    """In a field, where it is a number but for ISO 8601."""
    table = PLAIN | {"time": "at", "time_unit": unit}
    sent = TableWriter("t", read_table(table)).write(MappedEvent(True, "d", "s", "pc", T))
    assert json.loads(sent.value)["at"] == written


def test_table_without_an_inverse_is_one_line() -> None:
    """Two parts in a field, one in the way of another, no word for an end, a binary format."""
    wrong = {
        "two parts of an event in field session": PLAIN | {"device": "session"},
        "two parts of an event in field data.kind.id": PLAIN | {"device": "data.kind.id"},
        "two parts of an event in field data": PLAIN | {"session": "data"},
        "two parts of an event in header time": PLAIN | {"device": "header:time"},
        "two parts of an event in the key": PLAIN | {"device": "key", "session": "key"},
        "inputs.t has no end": {key: PLAIN[key] for key in PLAIN if key != "end"},
    }
    for problem, plain in wrong.items():
        with pytest.raises(ConfigError, match=problem):
            TableWriter("t", read_table(plain))
    with pytest.raises(ConfigError, match=r"inputs.t has the format avro: .*json and json_sr only"):
        TableWriter("t", read_table(PLAIN | {"format": "avro"}))


def test_ready_tables_can_be_written() -> None:
    """So a new user may try each of them with a load, before his own senders are there."""
    for text in page("events.md").blocks("toml"):
        for topic, plain in tomllib.loads(text).get("inputs", {}).items():
            table = read_table(plain)
            if table.format == "avro":
                continue
            writer = TableWriter(topic, table)
            for is_start in (True, False):
                time_ms = T if "time" in plain else None
                event = MappedEvent(is_start, DEVICE, SESSION, plain["platform"], time_ms)
                assert Mapping(table, 0, 0).read(*writer.write(event), T) == event, topic


def test_topic_without_a_table_has_our_own_format() -> None:
    """Each topic of the settings has what writes to it."""
    settings = Settings(input_topics={"a": "pc"}, inputs={"b": read_table(PLAIN)})
    own, by_table = writers_of(settings).values()
    assert isinstance(own, OwnWriter)
    assert isinstance(by_table, TableWriter)
    sent = own.write(MappedEvent(True, "d", "s", "", None))
    assert (sent.key, decode_input(sent.value), sent.headers) == (b"d", GameStart("d", "s"), [])
    ended = own.write(MappedEvent(False, "d", "s", "", None))
    assert decode_input(ended.value) == GameEnd("d", "s")
    assert [sent.value for sent in own.bad("d")] == list(BAD_INPUT)
    assert all(isinstance(decode_input(value), Rejected) for value in BAD_INPUT)
