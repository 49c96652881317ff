"""Fields of a start are in every record of its session, those of an end in the last one.

Whatever brings a record about, and whatever lies between: a restart, other rules, other lanes.
"""

import sys

import pytest
from msgspec import UNSET, Raw, defstruct, json, structs, to_builtins
from msgspec.structs import replace

from session_logic import journal, lane
from session_logic.codec import decode_sessions, encode_output, encode_sessions
from session_logic.events import (
    Context,
    EndIfOpen,
    Fact,
    Heartbeat,
    OutputEvent,
    SessionActive,
    SessionEnd,
    Watermark,
)
from session_logic.journal import BaseRow
from session_logic.keys import KEY_GROUPS, key_group_of, lane_of
from session_logic.lane import Lane
from session_logic.move import Move
from session_logic.restoring import CARRYING_VERSION, STATE_VERSION, read_lane_state
from session_logic.rules import CarryingSession, Rules, Session
from session_logic.table import SessionTable
from session_logic.transitions import apply_fact
from tests.support.events import decoded
from tests.support.lanes import DEVICES, LANE, LANES, T
from tests.support.restarts import Run

RULES = Rules(1_000, 8_000, 5_000, "all")
START, END = b'"account":"x","title":7', b'"seconds":1.50'
OF_START, OF_BOTH = Raw(b"{%b}" % START), Raw(b"{%b,%b}" % (START, END))
PLAIN, CARRYING = DEVICES[:2]


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 1)  # a segment for every call


def contexts(events: list[OutputEvent]) -> list[tuple[type, Context]]:
    """Return what records are, with what they carry."""
    return [(type(event), event.context) for event in events]


def apply(*facts: Fact) -> list[OutputEvent]:
    """Return what facts cause, one after the other, in a new table."""
    table = SessionTable(RULES, range(KEY_GROUPS))
    return [event for fact in facts for event in apply_fact(table, fact, Watermark(T))]


def start(time_ms: int = T, carried: bytes = START, session: str = "s") -> Fact:
    """Return a start that carries fields."""
    return Fact(True, "d", session, "pc", time_ms, created=True, carried=carried)


def end(time_ms: int, carried: bytes = END) -> Fact:
    """Return an end that carries fields."""
    return Fact(False, "d", "s", "pc", time_ms, created=True, carried=carried)


def test_session_that_ends_has_what_its_start_and_its_end_carry() -> None:
    """The start's in each record, the end's after them in the last one; bytes stay as they were."""
    events = apply(start(), end(T + 1_500))
    assert contexts(events) == [
        (SessionActive, OF_START), (Heartbeat, OF_START), (SessionEnd, OF_BOTH),
    ]  # fmt: skip
    assert encode_output(events[-1]).endswith(
        b'"duration_ms":1500,"context":{"account":"x","title":7,"seconds":1.50}}'
    )


@pytest.mark.parametrize(
    ("of_start", "of_end", "context"),
    [(b"", END, Raw(b"{%b}" % END)), (START, b"", OF_START), (b"", b"", UNSET)],
)
def test_end_has_only_what_there_is(of_start: bytes, of_end: bytes, context: Context) -> None:
    """Either of them may carry nothing; without anything there is no field for it."""
    [*_, last] = apply(start(carried=of_start), end(T + 1, of_end))
    assert last.context == context
    assert (b"context" in encode_output(last)) == bool(of_start or of_end)


def test_end_that_came_first_brings_its_fields_to_the_session_that_it_ends() -> None:
    """They are remembered with it."""
    assert contexts(apply(end(T + 10), start())) == [
        (SessionActive, OF_START), (SessionEnd, OF_BOTH),
    ]  # fmt: skip


def test_session_that_times_out_or_is_replaced_has_what_its_start_carries() -> None:
    """What the other session's start carries is for that one."""
    other = start(T + 10, b'"account":"y"', "other")
    replaced, active, *_, timed_out, _ = apply(start(), other, start(T + 9_000, b"", "last"))[1:]
    assert contexts([replaced, active, timed_out]) == [
        (SessionEnd, OF_START),
        (SessionActive, Raw(b'{"account":"y"}')),
        (SessionEnd, Raw(b'{"account":"y"}')),
    ]


def test_end_for_an_ignored_start_has_what_that_start_carries() -> None:
    """So had the record by which a crashed run has announced the session."""
    assert contexts(apply(start(), start(T - 1)))[1:] == [(EndIfOpen, OF_START)]


def test_heartbeats_have_no_context_where_the_rules_say_so() -> None:
    """The other records have it all the same."""
    run = Run(replace(RULES, carry_in_heartbeats=False))
    events = [*run.send("start", "s", carried=START), *run.wait(1_000), *run.send("end", "s")]
    assert contexts(events) == [
        (SessionActive, OF_START),
        (Heartbeat, UNSET),
        (SessionEnd, OF_START),
    ]
    events = [*run.send("start", "t", carried=START), *run.restart(RULES), *run.wait(1_000)]
    assert contexts(events) == [(SessionActive, OF_START), (Heartbeat, OF_START)]


def test_output_without_anything_carried_is_what_it_was() -> None:
    """Also of a plain session in a lane of which another session carries something."""
    run = Run(RULES)
    run.send("start", "t", CARRYING, START)
    run.send("start", "s", PLAIN)
    values = [encode_output(event) for event in run.wait(1_000) if event.device_id == PLAIN]
    assert values == [
        json.encode({
            "type": "Heartbeat", "device_id": PLAIN, "session_id": "s", "platform": "pc",
            "started_ms": T, "time_ms": T + 1_000, "sequence": 1,
        })
    ]  # fmt: skip


def test_session_without_anything_carried_takes_not_a_byte_more() -> None:
    """There are millions of them: what they would carry has no room in them."""
    bare = defstruct("Bare", structs.asdict(Session("d", "s", "pc", T)), gc=False)
    assert sys.getsizeof(Session("d", "s", "pc", T)) == sys.getsizeof(bare(*"dsp", T, 0, 0))


# What lies between a start and the records after it.


def restarted(run: Run) -> None:
    """Stop and start again."""
    run.restart(RULES)


def restarted_from_bases(run: Run) -> None:
    """Stop and start again when every key group has been written whole."""
    for number in range(2 * KEY_GROUPS // LANES + 2):
        run.send("end", f"unknown{number}", PLAIN)
        run.store.commit(run.lane)
    run.restart(RULES)
    bases = [row for row in run.store.rows.values() if isinstance(row, BaseRow)]
    stored = [session for row in bases for session in decode_sessions(row.blob, plain=False)]
    assert any(isinstance(session, CarryingSession) for session in stored)


def restarted_with_other_rules(run: Run) -> None:
    """Start again with another heartbeat; the session keeps its own."""
    run.restart(replace(RULES, heartbeat_ms=700))


def set_back(run: Run) -> None:
    """Start again with the right clock, after a run whose clock was ahead."""
    run.wait(1_200)
    run.now_ms -= 1_200
    assert run.restart(RULES) == []
    assert run.lane.set_back_ms
    run.wait(1_200)


def moved(run: Run) -> None:
    """Move to half of the lanes, and back."""
    for lanes in (LANES // 2, LANES):
        move = Move(lanes)
        rows = list(move.take(run.lane))
        number = lane_of(key_group_of(CARRYING), lanes)
        (state,) = [state for state in move.states() if state.lane == number]
        assert state.version == CARRYING_VERSION
        run.lane = Lane(number, lanes, RULES, read_lane_state(to_builtins(state)), run.now_ms)
        for row in rows:
            run.lane.restore(row, run.now_ms)
    run.live()


@pytest.mark.parametrize(
    "between",
    [restarted, restarted_from_bases, restarted_with_other_rules, set_back, moved],
)
@pytest.mark.parametrize("end_kind", ["end", "replaced", "timed_out", "late"])
def test_records_have_the_context_whatever_lies_between(between: object, end_kind: str) -> None:
    """The same in every record of the session, and none in those of another one."""
    run = Run(RULES)
    run.send("start", "s", CARRYING, START)
    run.send("start", "t", PLAIN)
    between(run)  # type: ignore[operator]
    events = run.wait(1_000)
    if end_kind == "end":
        events += run.send("end", "s", CARRYING, END)
    elif end_kind == "replaced":
        events += run.send("start", "u", CARRYING)[:-1]
    else:
        events += run.wait(7_000 if end_kind == "timed_out" else 60_000)
    of_session = [event for event in events if event.device_id == CARRYING]
    assert {type(event) for event in of_session} == {Heartbeat, SessionEnd}
    want = OF_BOTH if end_kind == "end" else OF_START
    assert of_session[-1].context == want
    assert all(event.context == OF_START for event in of_session[:-1])
    assert all(event.context is UNSET for event in events if event.device_id == PLAIN)


def test_facts_that_wait_for_rows_keep_what_they_carry() -> None:
    """The state says that it carries before they are acted on."""
    run = Run(RULES)
    for number in range(3):
        run.send("start", f"s{number}")
        run.store.commit(run.lane)
    assert read_lane_state(run.store.state or []).version == STATE_VERSION
    state = read_lane_state(run.store.state or [])
    waiting = Lane(LANE, LANES, RULES, state, run.now_ms)
    fact = Fact(True, CARRYING, "s", "pc", run.now_ms, created=True, carried=START)
    run.store.write(waiting.apply([fact], run.now_ms).rows)
    run.store.commit(waiting)
    run.lane = waiting
    state = read_lane_state(run.store.state or [])
    assert (state.version, state.waiting) == (CARRYING_VERSION, 1)
    assert contexts(run.restart(RULES))[-1] == (SessionActive, OF_START)


def test_state_of_a_lane_that_carries_nothing_is_that_of_the_version_before() -> None:
    """And its rows too, so that this version can be taken back."""
    run = Run(RULES)
    run.send("start", "s", PLAIN)
    assert run.lane.state().version == STATE_VERSION
    run.send("end", "u", PLAIN, END)
    assert run.lane.state().version == CARRYING_VERSION
    assert run.restart(RULES) == []
    assert run.lane.state().version == CARRYING_VERSION


def test_plain_sessions_of_a_lane_that_carries_stay_plain_when_they_come_back() -> None:
    """Those that carry nothing have no room for it, before and after."""
    stored = [
        Session("d", "s", "pc", T),
        CarryingSession("e", "t", "tv", T, context=bytes(OF_START)),
    ]
    back = decode_sessions(encode_sessions(stored), plain=False)
    assert list(map(type, back)) == [Session, CarryingSession]
    assert back == stored


def test_moment_of_many_fires_the_context_key_group_by_key_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also in more calls than one."""
    monkeypatch.setattr(lane, "MAX_FIRED_RECORDS", 3)
    run = Run(RULES)
    for device in DEVICES:
        run.send("start", "s", device, START if device == CARRYING else b"")
    events = run.wait(1_000)
    while run.lane.behind(run.now_ms):
        events += decoded(run.lane.advance(run.now_ms).records)
    assert {event.device_id: event.context for event in events} == {
        device: OF_START if device == CARRYING else UNSET for device in DEVICES
    }
