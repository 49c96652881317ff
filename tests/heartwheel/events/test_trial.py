"""What a record would become: the same as in a run, with the reason."""

import random
import time
from typing import Any

import pytest
from msgspec.structs import replace

from dataflows.decode import Decode
from dataflows.messages import DeadLetter, LaneBatch, PartitionBatch
from dataflows.run_state import RunState
from dataflows.settings import Settings
from heartwheel.events.records import SeenRecord
from heartwheel.events.trial import EVENTS, Outcome, Trial
from session_logic.event_table import EventTable
from tests.support.own_events import record

TABLE = EventTable(
    platform="pc",
    type="type",
    start=("begin",),
    end=("finish",),
    ping=("beat",),
    device=("device", "key"),
    session="session",
    time="ts",
    time_unit="ms",
    carry={"title": "title"},
)
NOW_MS = int(time.time() * 1000)
EVENT = {"type": "begin", "device": "d1", "session": 7, "ts": NOW_MS - 50}


def settings(**changes: Any) -> Settings:
    """Return settings with a topic that has a table, own, and one that has none, plain."""
    return Settings(input_topics={"plain": "console"}, inputs={"own": TABLE}, **changes)


def tried(value: object, time_ms: int | None = NOW_MS, topic: str = "own", **other: Any) -> Outcome:
    """Return what a record becomes."""
    one = replace(record(1, 0, value, **other), time_ms=time_ms)
    return Trial(settings(), topic).of(one)


def test_start_and_end_have_their_parts() -> None:
    """Device, session, platform, and the time that a field has."""
    found = tried(EVENT)
    assert (found.becomes, found.device_id, found.session_id) == ("start", "d1", "7")
    assert (found.platform, found.time_ms, found.late) == ("pc", NOW_MS - 50, False)
    assert tried(EVENT | {"type": "finish"}).becomes == "end"
    assert tried(EVENT | {"device": None}, key="d9").device_id == "d9"


@pytest.mark.parametrize(
    ("changes", "becomes", "detail"),
    [
        ({"type": "beat"}, "ping", ""),
        ({"type": "other"}, "skipped", "field type is 'other'"),
        ({"type": "x" * 5_000}, "skipped", "field type is 'xxx"),
        ({"type": None}, "skipped", "field type is missing"),
        ({"session": True}, "rejected", "field session is true: text or a whole number"),
        ({"session": None}, "rejected", "field session is missing"),
        ({"ts": "soon"}, "rejected", 'field ts is "soon": milliseconds since 1970'),
        ({"ts": NOW_MS + 999_999}, "rejected", "after the record's timestamp"),
    ],
)
def test_what_is_no_event_has_its_reason(
    changes: dict[str, object], becomes: str, detail: str
) -> None:
    """The field and the value that was seen are named."""
    found = tried(EVENT | changes)
    assert found.becomes == becomes
    assert detail in found.detail
    assert len(found.detail) <= 200


def test_time_long_ago_is_late_and_the_timestamp_is_taken() -> None:
    """As a run does."""
    found = tried(EVENT | {"ts": NOW_MS - 90_000_000})
    assert (found.becomes, found.late, found.time_ms) == ("start", True, NOW_MS)


@pytest.mark.parametrize(
    ("time_ms", "reason"),
    [(-1, "no_timestamp"), (NOW_MS + 10**8, "in_the_future")],
    ids=["none", "ahead"],
)
def test_timestamp_that_cannot_be_is_a_reason(time_ms: int, reason: str) -> None:
    """Of a record, not of a line in a file."""
    value = {"type": "GameStart", "device_id": "d", "session_id": "s"}
    assert tried(value, time_ms, topic="plain").reason == reason


def test_line_of_a_file_needs_no_timestamp() -> None:
    """Its time is that of its field, or not known."""
    assert tried(EVENT | {"ts": 1_700_000_000_000}, None).time_ms == 1_700_000_000_000
    value = {"type": "GameStart", "device_id": "d", "session_id": "s"}
    found = tried(value, None, topic="plain")
    assert (found.becomes, found.time_ms, found.platform) == ("start", None, "console")


def test_session_that_a_time_names_has_no_name_where_that_is_not_known() -> None:
    """A line of a file has no timestamp, so a start is named only if a field has the time."""
    table = EventTable(platform="pc", type="type", start="begin", end="finish", device="device")
    one = replace(record(1, 0, EVENT), time_ms=None)
    setting = Settings(inputs={"own": table})
    assert Trial(setting, "own").of(one).session_id == ""
    setting = Settings(inputs={"own": replace(table, time="ts", time_unit="ms")})
    assert Trial(setting, "own").of(one).session_id == str(NOW_MS - 50)


def any_value(rng: random.Random) -> object:
    """Return what may be sent: events, faulty events, and what is no JSON."""
    choice = rng.randrange(12)
    if choice == 0:
        return rng.choice([None, b"", b"\xff", b"[1]", b"{", b"\0\0\0\0\1{}", b"x" * 70_000])
    own: dict[str, object] = {"type": rng.choice(["GameStart", "GameEnd", "Game", 1]),
                              "device_id": rng.choice(["d", "", 1]), "session_id": "s"}  # fmt: skip
    mapped = EVENT | {
        "type": rng.choice(["begin", "finish", "beat", "no", None, 1]),
        "session": rng.choice([1, "s", "", None, [], 1.5]),
        "title": rng.choice(["Astro", None, 7, "x" * 300]),
        "ts": rng.choice([NOW_MS, NOW_MS - 10**8, NOW_MS + 10**6, str(NOW_MS), "x", None]),
    }
    return own if choice % 2 else mapped


@pytest.mark.parametrize("topic", ["plain", "own"])
def test_any_record_becomes_what_the_decode_step_makes_of_it(topic: str) -> None:
    """The same events with the same times, the same reasons, and nothing where that has nothing."""
    rng = random.Random(topic)
    kept = settings()
    trial, made = Trial(kept, topic), set()
    for number in range(1_000):
        time_ms = rng.choice([NOW_MS, -1, NOW_MS + 10**8])
        one = record(number, time_ms, any_value(rng), rng.choice([None, "k"]))
        outcome = trial.of(one)
        made.add((outcome.becomes, outcome.reason, outcome.late))
        assert decoded(kept, topic, one, number) == as_decoded(outcome)
    assert len(made) > 6


def decoded(kept: Settings, topic: str, one: SeenRecord, number: int) -> tuple[object, ...]:
    """Return what the decode step of a run makes of a record."""
    decode = Decode(1, kept.max_clock_skew_ms, RunState(), kept.max_record_bytes, kept.mappings())
    message = (number, one.time_ms or 0, one.key, one.value, True, one.headers)
    batch = PartitionBatch(topic, 0, kept.input_topics.get(topic, ""), [message], None)
    for _, item in decode([batch]):
        if isinstance(item, DeadLetter):
            return ("rejected", item.reason)
        assert isinstance(item, LaneBatch)
        (fact,) = item.facts
        kind = "start" if fact.is_start else "end"
        return (kind, fact.device_id, fact.session_id, fact.platform, fact.time_ms, fact.carried)
    return ("nothing",)


def as_decoded(one: Outcome) -> tuple[object, ...]:
    """Return an outcome in the same way."""
    if one.becomes in EVENTS:
        return (one.becomes, one.device_id, one.session_id, one.platform, one.time_ms,
                one.carried)  # fmt: skip
    return ("rejected", one.reason) if one.becomes == "rejected" else ("nothing",)


def test_large_record_is_rejected_with_its_size() -> None:
    """And with the setting that limits it."""
    found = tried(EVENT | {"text": "x" * 70_000})
    assert found.reason == "too_large"
    assert "HEARTWHEEL_MAX_RECORD_BYTES is 65,536" in found.detail
