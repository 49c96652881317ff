"""The table that is proposed for a topic: what it finds, and what it is unsure of."""

import random
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dataflows.settings import Settings
from dataflows.settings_sources import load_settings
from heartwheel.events.guess import propose
from heartwheel.events.records import SeenRecord, read_lines
from heartwheel.events.trial import EVENTS, Trial
from heartwheel.views.proposal import toml_lines
from tests.support.broker import ROOT
from tests.support.own_events import (
    BEGIN_MS,
    DELAY_MS,
    SAMPLES,
    aws_iot,
    emqx,
    iso,
    moments,
    record,
    reference,
)
from tests.support.pages import page

Table = dict[str, Any]


def toml(topic: str, records: Sequence[SeenRecord]) -> str:
    """Return what is proposed, as it is printed."""
    return "\n".join(toml_lines(propose(topic, records)))


def table(topic: str, records: Sequence[SeenRecord]) -> Table:
    """Return the table that is proposed."""
    inputs = tomllib.loads(toml(topic, records))["inputs"]
    assert list(inputs) == [topic]
    found: Table = inputs[topic]
    return found


def settings(text: str, folder: Path) -> Settings:
    """Return the settings of a file with this text."""
    path = folder / "heartwheel.toml"
    path.write_text(text)
    return load_settings({}, str(path))


EXPECTED: dict[str, Table] = {
    "pc_sessions": {
        "platform": "pc",
        "type": "eventId",
        "start": ["ApplicationSessionStart"],
        "end": ["ApplicationSessionEndBi"],
        "device": "hostPcId",
        "session": "appSessionId",
        "time": "timestamp",
        "time_unit": "iso",
    },
    "console_sessions": {
        "platform": "console",
        "type": "eventId",
        "start": ["ApplicationSessionStart"],
        "end": ["ApplicationSessionEndBi"],
        "device": "openPsid",
        "session": "appSessionId",
        "time": "timestamp",
        "time_unit": "iso",
    },
    "iot-presence": {
        "platform": "iot",
        "type": "eventType",
        "start": ["connected"],
        "end": ["disconnected"],
        "device": "clientId",
        "session": "sessionIdentifier",
        "time": "timestamp",
        "time_unit": "ms",
    },
    "emqx": {
        "platform": "emqx",
        "type": "event",
        "start": ["client.connected"],
        "end": ["client.disconnected"],
        "device": "clientid",
        "time": "timestamp",
        "time_unit": "ms",
    },
    "cloud-events": {
        "platform": "cloud-events",
        "type": "type",
        "start": ["com.example.session.started.v1"],
        "end": ["com.example.session.ended.v1"],
        "device": "subject",
        "session": "data.sessionId",
        "time": "time",
        "time_unit": "iso",
    },
    "cloud.events.binary": {
        "platform": "cloud.events.binary",
        "type": "header:ce_type",
        "start": ["com.example.session.started.v1"],
        "end": ["com.example.session.ended.v1"],
        "device": "header:ce_subject",
        "session": "sessionId",
        "time": "header:ce_time",
        "time_unit": "iso",
    },
    "pg.public.sessions": {
        "platform": "pg.public.sessions",
        "type": "op",
        "start": ["c", "r"],
        "end": ["d"],
        "device": ["after.device_id", "before.device_id"],
        "session": ["after.id", "before.id"],
        "time": "ts_ms",
        "time_unit": "ms",
    },
}


@pytest.mark.parametrize("topic", SAMPLES)
def test_table_for_a_known_system_is_found_and_reads_its_events(topic: str, tmp_path: Path) -> None:
    """What is printed is pasted: it loads as it stands, and nearly all becomes events."""
    records = SAMPLES[topic]()
    assert table(topic, records) == EXPECTED[topic]
    trial = Trial(settings(toml(topic, records), tmp_path), topic)
    outcomes = [trial.of(one) for one in records if one.value is not None]
    assert [one.detail for one in outcomes if one.becomes not in EVENTS] == []
    assert sum(one.becomes == "start" for one in outcomes) == len(outcomes) / 2
    assert not any(one.late for one in outcomes)


@pytest.mark.parametrize("topic", SAMPLES)
def test_same_table_is_found_in_values_alone_where_they_have_all(topic: str) -> None:
    """A file of JSON lines has no keys, headers and timestamps."""
    records = [
        SeenRecord(name=one.name, time_ms=None, key=None, value=one.value, headers=[])
        for one in SAMPLES[topic]()
    ]
    proposal = propose(topic, records)
    if "binary" in topic:
        assert list(proposal.missing) == ["type", "start", "end", "device"]
    else:
        assert tomllib.loads("\n".join(toml_lines(proposal)))["inputs"][topic] == EXPECTED[topic]
        assert not proposal.missing


READY = {
    "pc_sessions": "reference-pc",
    "console_sessions": "reference-console",
    "aws-iot-presence": "aws-iot",
    "emqx-clients": "emqx",
    "players-structured": "cloudevents-structured",
    "presence.public.sessions": "debezium",
}


@pytest.mark.parametrize("topic", READY)
def test_ready_table_of_the_page_is_found_in_a_few_records(topic: str) -> None:
    """Where the parts are that tell one event from another; of two times, either will do."""
    inputs = [tomllib.loads(text).get("inputs", {}) for text in page("events.md").blocks("toml")]
    ready = next(tables[topic] for tables in inputs if topic in tables)
    file = ROOT / "tests" / "fixtures" / "events" / f"{READY[topic]}.jsonl"
    found = table(topic, read_lines(str(file), 100))
    for key in ("type", "start", "end", "device", "session"):
        assert found[key] == ready[key], key
    assert found["time_unit"] == ready.get("time_unit", "iso")


def test_time_of_the_start_names_a_session_where_its_end_has_it_too() -> None:
    """Where nothing else does."""
    assert table("emqx", emqx(version=5))["session"] == "connected_at"
    assert "It is the time of the start, which the end has as well." in toml("emqx", emqx(5))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_few_records_give_the_table_and_are_called_few(count: int) -> None:
    """Names tell what repetitions cannot; an end that was not seen is left out."""
    text = toml("pc_sessions", reference()[:count])
    found = tomllib.loads(text)["inputs"]["pc_sessions"]
    known = EXPECTED["pc_sessions"]
    assert found == {name: known[name] for name in known if name in found}
    assert known.keys() - found.keys() <= {"end"}
    assert "so few tell little" in text
    missing = propose("pc_sessions", reference()[:count]).missing
    assert list(missing) == ([] if "end" in found else ["end"])
    if missing:
        assert "# end: Not found: no word looks like an end. Without one, write an idle_" in text


def test_key_tells_which_of_two_fields_is_the_device() -> None:
    """Kafka's key says by what the producer orders."""
    records = [
        record(one.number, one.time_ms, {"event": "start" if one.is_start else "stop",
               "unit": one.device, "owner": f"of {one.device}", "session": one.session}, one.device)
        for one in moments([f"u{n}" for n in range(6)])
    ]  # fmt: skip
    assert table("t", records)["device"] == "unit"
    assert "The key of the record has the same." in toml("t", records)


def test_device_that_is_only_the_key_is_read_from_there() -> None:
    """The value need not have it."""
    records = [
        record(one.number, one.time_ms, {"event": "start" if one.is_start else "stop",
               "session": one.session}, one.device)
        for one in moments([f"u{n}" for n in range(6)])
    ]  # fmt: skip
    assert table("t", records)["device"] == "key"


def test_field_with_the_name_of_a_source_is_told_from_it() -> None:
    """A field named key is $.key."""
    records = [
        record(one.number, one.time_ms, {"event": "start" if one.is_start else "stop",
               "key": f"device {one.device}", "session": one.session}, "all")
        for one in moments([f"u{n}" for n in range(6)])
    ]  # fmt: skip
    assert table("t", records)["device"] == "$.key"


def test_device_without_a_name_is_what_has_sessions_in_turn() -> None:
    """Its starts and ends alternate; those of a country do not."""
    records = [
        record(one.number, one.time_ms, {"action": "StartTransaction" if one.is_start else "Stop",
               "chargePoint": one.device, "transaction": one.session, "country": "DE"})
        for one in moments([f"u{n}" for n in range(6)], sessions=3)
    ]  # fmt: skip
    assert table("t", records)["device"] == "chargePoint"


def test_session_without_a_name_is_what_has_one_start_and_one_end() -> None:
    """A value that comes once in a start and once in an end."""
    records = [
        record(one.number, one.time_ms, {"event": "open" if one.is_start else "close",
               "device": one.device, "ref": one.session, "nonce": one.number})
        for one in moments([f"u{n}" for n in range(6)], sessions=3)
    ]  # fmt: skip
    assert table("t", records)["session"] == "ref"


@pytest.mark.parametrize(("unit", "factor"), [("s", 0.001), ("ms", 1), ("us", 1000)])
@pytest.mark.parametrize("kind", [int, str])
def test_unit_of_a_time_is_found(unit: str, factor: float, kind: type) -> None:
    """Of numbers, and of numbers written as text; with a name that tells of no time, it is not."""
    for name, expected in {"ts": unit, "sent": None}.items():
        records = [
            record(one.number, one.time_ms + 90_000, {"event": "open" if one.is_start else "close",
                   "device": one.device, name: kind(int(one.time_ms * factor))})
            for one in moments([f"u{n}" for n in range(6)])
        ]  # fmt: skip
        found = table("t", records)
        assert found.get("time_unit") == expected
        assert found.get("time") == (expected and name)


WRITTEN: dict[str, tuple[Callable[[int], object], str]] = {
    "whole seconds": (lambda time_ms: time_ms // 1000, "s"),
    "seconds as text": (lambda time_ms: str(time_ms // 1000), "s"),
    "parts of seconds": (lambda time_ms: time_ms / 1000, "s"),
    "parts of seconds as text": (lambda time_ms: str(time_ms / 1000), "s"),
    "milliseconds as text": (str, "ms"),
    "parts of milliseconds": (lambda time_ms: time_ms + 0.25, "ms"),
    "microseconds": (lambda time_ms: time_ms * 1000 + 7, "us"),
    "ISO 8601": (iso, "iso"),
    "ISO 8601 elsewhere": (lambda time_ms: iso(time_ms).replace("+00:00", "-05:30"), "iso"),
}


def timed(
    name: str, write: Callable[[int], object], delay_ms: int | None = DELAY_MS, factor: float = 1
) -> list[SeenRecord]:
    """Return records with a time under a name, its objects with dots between.

    Without a delay they have no timestamps, and a factor makes their sessions shorter.
    """
    records = []
    for one in moments([f"u{n}" for n in range(6)]):
        time_ms = BEGIN_MS + int((one.time_ms - BEGIN_MS) * factor)
        event: Table = {"event": "open" if one.is_start else "close", "device": one.device,
                        "session": one.session}  # fmt: skip
        value: Any = write(time_ms)
        for part in reversed(name.split(".")):
            value = {part: value}
        event |= value
        found = record(one.number, time_ms + (delay_ms or 0), event)
        records.append(replace(found, time_ms=None) if delay_ms is None else found)
    return records


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("name", ["ts", "at", "date", "when", "t", "epochTime", "meta.at"])
@pytest.mark.parametrize("delay_ms", [None, DELAY_MS, 30 * 86_400_000])
def test_time_is_found_however_it_is_written(written: str, name: str, delay_ms: int | None) -> None:
    """Where it rises in each session, a short name and no timestamp are enough."""
    write, unit = WRITTEN[written]
    found = table("t", timed(name, write, delay_ms))
    assert (found.get("time"), found.get("time_unit")) == (name, unit)


def test_time_in_whole_seconds_is_found_in_sessions_of_less_than_a_second() -> None:
    """Start and end have the same, as their records come in the same second."""
    found = table("t", timed("ts", lambda time_ms: time_ms // 1000, factor=0.01))
    assert (found["time"], found["time_unit"]) == ("ts", "s")
    assert found["session"] == "session"


@pytest.mark.parametrize("name", ["seq", "x", "version"])
def test_number_that_may_be_a_time_is_only_named(name: str) -> None:
    """It rises, as numbers of records do, and nothing else speaks for it."""
    text = toml("t", timed(name, lambda time_ms: time_ms // 1000, delay_ms=None))
    assert "time" not in tomllib.loads(text)["inputs"]["t"]
    assert f"Also possible: {name} (1764000" in text.replace("\n# ", " ")


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (lambda time_ms: time_ms * 1_000_000 + 7, "000007, nanoseconds, which no time_unit reads"),
        (lambda time_ms: f"{time_ms}000000", "000000, nanoseconds, which no time_unit reads"),
        (lambda _: "01.11.2025 00:06", "it has 01.11.2025 00:06, which no time_unit reads"),
        (lambda time_ms: time_ms - BEGIN_MS, ", which no time_unit reads"),
    ],
)
def test_time_that_no_unit_reads_is_named(write: Callable[[int], object], text: str) -> None:
    """With what it has, and what to send instead."""
    printed = toml("t", timed("ts", write))
    assert "time" not in tomllib.loads(printed)["inputs"]["t"]
    found = printed.replace("\n# ", " ")
    assert "By its name ts may be a time, but it has " in found
    assert f"{text}: send ISO 8601, or seconds, milliseconds or microseconds since 1970." in found


def test_time_of_the_start_is_not_taken_for_that_of_the_event() -> None:
    """An end has it as well."""
    records = [
        record(one.number, one.time_ms, {"event": "open" if one.is_start else "close",
               "device": one.device, "session": one.session, "timestamp": one.started_ms})
        for one in moments([f"u{n}" for n in range(6)])
    ]  # fmt: skip
    text = toml("t", records)
    assert "time" not in tomllib.loads(text)["inputs"]["t"]
    assert "# time: Not found: the record's timestamp is the time of its event." in text


def test_times_long_before_the_timestamps_are_told_of() -> None:
    """As where old events are sent again: late_limit_ms would replace their times."""
    later = [
        record(n, (one.time_ms or 0) + 300 * 86_400_000, one.value)
        for n, one in enumerate(reference())
    ]
    text = toml("pc_sessions", later).replace("\n# ", " ")
    assert "It has ISO 8601, 300 d before the record's timestamp (median)." in text
    assert "late_limit_ms" in text
    assert f"{DELAY_MS} ms before" in toml("pc_sessions", reference())


def test_platform_may_be_in_a_field() -> None:
    """Where a field has few values and such a name."""
    records = [
        record(one.number, one.time_ms, {"event": "open" if one.is_start else "close",
               "device": one.device, "session": one.session, "client": {"os": ["iOS", "Android"][
                   one.session % 2]}})
        for one in moments([f"u{n}" for n in range(6)])
    ]  # fmt: skip
    assert table("t", records)["platform"] == {"field": "client.os"}


def test_words_that_are_neither_are_skipped_and_named() -> None:
    """Also what tells that something did not happen."""
    extra = [
        record(n, BEGIN_MS, {"eventType": word, "clientId": "thing-1"})
        for n, word in enumerate(["subscribed", "subscribed", "connect_failed", "ping"])
    ]
    text = toml("iot", [*aws_iot(), *extra])
    found = tomllib.loads(text)["inputs"]["iot"]
    assert (found["start"], found["end"], found["ping"]) == (
        ["connected"],
        ["disconnected"],
        ["ping"],
    )
    assert "# Seen, and skipped: subscribed (2), connect_failed (1)." in text


def worded(*words: str, field: str = "event") -> list[SeenRecord]:
    """Return records of sessions that have the first word in starts, the second in ends.

    The others come in between.
    """
    records = []
    for one in moments([f"u{n}" for n in range(6)]):
        for word in (words[not one.is_start], *words[2:]):
            event = {field: word, "device": one.device, "session": one.session}
            records.append(record(len(records), one.time_ms, event))
    return records


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("PLAY_START", "PLAY_OVER"),
        ("game.opened", "game_closed"),
        ("SessionBegin", "SESSION_STOP"),
        ("login", "logged_out"),
        ("launched", "quit"),
        ("connected", "disconnect"),
        ("SESSIONSTART", "sessionend"),
        ("checked-in", "checked-out"),
        ("stream_up", "stream_down"),
    ],
)
def test_words_of_many_kinds_are_found_and_sure(start: str, end: str) -> None:
    """Whatever stands between their parts, and in capitals or not."""
    text = toml("t", worded(start, end, "level_start"))
    found = tomllib.loads(text)["inputs"]["t"]
    assert (found["type"], found["start"], found["end"]) == ("event", [start], [end])
    assert "something else" not in text
    assert "# Seen, and skipped: level_start (24)." in text


def test_words_that_may_be_a_break_are_skipped_and_named() -> None:
    """Where others are surer."""
    text = toml("t", worded("launched", "quit", "paused", "resumed"))
    found = tomllib.loads(text)["inputs"]["t"]
    assert (found["start"], found["end"]) == (["launched"], ["quit"])
    assert "# Seen: launched (12). Perhaps these as well: resumed (24)." in text
    assert "# Seen: quit (12). Perhaps these as well: paused (24)." in text


@pytest.mark.parametrize(
    ("start", "end", "unsure"),
    [
        ("resume", "suspend", {"start", "end"}),
        ("in", "out", {"start", "end"}),
        ("begin", "done", {"end"}),
        ("resume", "quit", {"start"}),
    ],
)
def test_words_that_may_tell_something_else_are_unsure(
    start: str, end: str, unsure: set[str]
) -> None:
    """They are proposed where no other word says so."""
    text = toml("t", worded(start, end))
    found = tomllib.loads(text)["inputs"]["t"]
    assert (found["start"], found["end"]) == ([start], [end])
    for kind, name in {"start": "a start", "end": "an end"}.items():
        note = f"Unsure: this may tell of something else than {name}."
        assert (note in text) == (kind in unsure)


def test_break_is_not_taken_for_the_end_that_was_not_seen() -> None:
    """Its resumption tells that a session went on."""
    text = toml("t", worded("launched", "launched", "pause", "resume"))
    assert "end" not in tomllib.loads(text)["inputs"]["t"]
    assert "# end: Not found: no word looks like an end. Perhaps these as well: pause (24)." in text


def test_field_of_unknown_words_is_named_as_a_type() -> None:
    """What they say is not made up."""
    proposal = propose("t", worded("FOO", "BAR"))
    assert "type" in proposal.missing
    text = "\n".join(toml_lines(proposal)).replace("\n# ", " ")
    assert "look like a start or an end. Also possible: event (FOO)." in text


def test_words_that_are_a_break_alone_make_no_type_of_any_field() -> None:
    """Its name must speak for it."""
    assert "type" not in table("t", worded("in", "out", field="direction"))


def test_boolean_that_tells_presence_is_a_type() -> None:
    """Words of a table are written as in JSON."""
    records = [
        record(one.number, one.time_ms, {"online": one.is_start, "device": one.device})
        for one in moments([f"u{n}" for n in range(6)])
    ]
    found = table("t", records)
    assert (found["type"], found["start"], found["end"]) == ("online", ["true"], ["false"])


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ([b"\xef\xbb\xbf" + (one.value or b"") for one in reference()], "byte order mark"),
        ([(one.value or b"").decode().encode("utf-16") for one in reference()], "UTF-16"),
    ],
)
def test_values_that_are_rejected_as_they_are_give_a_table_and_a_warning(
    values: list[bytes], note: str
) -> None:
    """The sender must be mended, and then the table is right."""
    records = [record(n, BEGIN_MS, value) for n, value in enumerate(values)]
    text = toml("pc_sessions", records).replace("\n# ", " ")
    assert table("pc_sessions", records)["device"] == "hostPcId"
    assert "32 of 32 values" in text
    assert note in text


def test_json_that_is_framed_for_a_registry_is_named_as_the_format() -> None:
    """Five bytes stand before it."""
    records = [
        record(n, one.time_ms or 0, b"\0\0\0\0\7" + (one.value or b""))
        for n, one in enumerate(reference())
    ]
    assert table("pc_sessions", records) == EXPECTED["pc_sessions"] | {"format": "json_sr"}


@pytest.mark.parametrize(
    "value",
    [
        b"\0\0\0\0\7\x02abc",
        b"no json",
        b"[1]",
        b"",
        None,
        b"{}",
        b'{"a": 1}',
        b'"text"',
        b"\xff\xfe",
    ],
)
def test_topic_without_events_is_told_what_was_not_found(value: bytes | None) -> None:
    """What cannot be read gives no table, and no error."""
    proposal = propose("t", [record(n, BEGIN_MS, value) for n in range(30)])
    assert list(proposal.missing) == ["type", "start", "end", "device"]
    text = "\n".join(toml_lines(proposal))
    assert tomllib.loads(text)["inputs"]["t"] == {"platform": "t"}
    assert "# type: Not found" in text


def test_nothing_that_was_seen_can_leave_its_comment() -> None:
    """Names and values of senders end no line and close no quotes."""
    evil = 'x"\n[kafka]\n"a" = "\x1b[31m\u2028\u202e'
    records = [
        record(one.number, one.time_ms, {"type": f"start {evil}" if one.is_start else "end",
               "device": f"{evil}{one.device}", "session": one.session,
               "user\nname": evil, "client": evil})
        for one in moments([f"u{n}" for n in range(6)])
    ]  # fmt: skip
    text = toml(evil, records)
    found = tomllib.loads(text)
    assert list(found) == ["inputs"]
    assert found["inputs"][evil]["start"] == [f"start {evil}"]
    assert all(line.isprintable() for line in text.split("\n"))


def any_json(rng: random.Random, depth: int = 3) -> Any:
    """Return any JSON value."""
    names = [
        "type",
        "key",
        "device",
        "sessionId",
        "timestamp",
        "op",
        "a.b",
        "header:x",
        "$",
        '"',
        "",
    ]
    kind = rng.randrange(9 if depth else 6)
    if kind < 6:
        return [None, True, rng.randrange(-5, 10**19), rng.random() * 1e300,
                rng.choice(["start", "end", "d", "2025-11-01T00:00:00Z", "\n", "x" * 300, "😀"]),
                rng.choice([1764000000, 1764000000000, "1764000000000"])][kind]  # fmt: skip
    if kind == 6:
        return [any_json(rng, depth - 1) for _ in range(2)]
    return {rng.choice(names): any_json(rng, depth - 1) for _ in range(rng.randrange(6))}


@pytest.mark.parametrize("seed", range(300))
def test_any_records_give_toml_that_loads_unless_something_is_missing(
    seed: int, tmp_path: Path
) -> None:
    """Whatever is sent, there is no error, and what is proposed can be pasted."""
    rng = random.Random(seed)
    records = []
    for number in range(rng.randrange(1, 12)):
        value: object = any_json(rng)
        if rng.random() < 0.2:
            value = rng.choice([None, b"", rng.randbytes(20), b"\0" + rng.randbytes(9)])
        headers = {"ce_type": rng.choice(["start", "end", "\xff"]), "": "x"}
        key = rng.choice([None, "", "device"])
        records.append(record(number, rng.randrange(-1, 2**41), value, key, headers))
    proposal = propose("t", records)
    text = "\n".join(toml_lines(proposal))
    tomllib.loads(text)
    if not proposal.missing:
        trial = Trial(settings(text, tmp_path), "t")
        for one in records:
            assert trial.of(one).becomes
