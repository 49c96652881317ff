"""The session table: every outcome is counted, and time costs what is due, not what is there."""

from collections import Counter

import pytest
from msgspec.structs import replace

from session_logic.codec import encode_output
from session_logic.events import Fact, Heartbeat, OutputEvent, Watermark
from session_logic.keys import KEY_GROUPS, key_group_of
from session_logic.output import OutputBatch
from session_logic.rules import CarryingSession, Rules, Session, owed_heartbeats
from session_logic.table import SessionTable
from session_logic.transitions import Input, State, apply_fact
from tests.support.events import decoded

RULES = Rules(30_000, 28_800_000)
T = 1_700_000_000_000
FIRED = Watermark(T)
EARLY = {"started": 1, "ended_early": 1}
CARRYING = CarryingSession("d", "s", "pc", T, context=b'{"account":"x"}')


def fact(kind: str, session: str, time_ms: int = T) -> Fact:
    """Return a fact of device d."""
    return Fact(kind == "start", "d", session, "pc", time_ms)


def table_in(state: State) -> SessionTable:
    """Return a table in which device d is in a state, as seen from session s."""
    table = SessionTable(RULES, range(KEY_GROUPS))
    before = {
        State.IDLE: [],
        State.BUSY: [("start", "other", 0)],
        State.OVERTAKEN: [("start", "other", 2)],
        State.ACTIVE: [("start", "s", 0)],
        State.ENDED: [("start", "s", 0), ("end", "s", 0)],
        State.EXPECTED: [("end", "s", 2)],
    }
    for kind, session, after_ms in before[state]:
        apply_fact(table, fact(kind, session, T + after_ms), FIRED)
    table.counts.clear()
    return table


@pytest.mark.parametrize(
    ("state", "given", "records", "counts"),
    [
        (State.IDLE, Input.START, ["SessionActive"], {"started": 1}),
        (State.BUSY, Input.START, ["SessionEnd", "SessionActive"], {"replaced": 1, "started": 1}),
        (State.ACTIVE, Input.START, ["EndIfOpen"], {"duplicate_start": 1}),
        (State.ENDED, Input.START, ["EndIfOpen"], {"late_duplicate_start": 1}),
        (State.OVERTAKEN, Input.START, ["EndIfOpen"], {"late_start": 1}),
        (State.EXPECTED, Input.START, ["SessionActive", "SessionEnd"], EARLY),
        (State.OVERTAKEN, Input.END, [], {"stale_end": 1}),
        (State.EXPECTED, Input.END, [], {"unknown_end": 1}),
        (State.IDLE, Input.END, [], {"unknown_end": 1}),
        (State.BUSY, Input.END, [], {"stale_end": 1}),
        (State.ACTIVE, Input.END, ["SessionEnd"], {"ended": 1}),
        (State.ENDED, Input.END, [], {"unknown_end": 1}),
    ],
)
def test_input_in_a_state_has_one_counted_outcome(
    state: State, given: Input, records: list[str], counts: dict[str, int]
) -> None:
    """All pairs of state and input, none left out."""
    table = table_in(state)
    kind = "start" if given is Input.START else "end"
    got = apply_fact(table, fact(kind, "s", T + 1), FIRED)
    assert [type(event).__name__ for event in got] == records
    assert table.counts.outcomes == {(name, "pc"): n for name, n in counts.items()}


def sessions(count: int) -> SessionTable:
    """Return a table with sessions that start evenly over one interval."""
    table = SessionTable(RULES, range(KEY_GROUPS))
    for number in range(count):
        started_ms = T + number * RULES.heartbeat_ms // count
        table.put(Session(f"device-{number}", f"s{number}", "pc", started_ms))
    return table


@pytest.mark.parametrize("count", [1_000, 10_000, 100_000])
def test_tick_touches_only_the_sessions_that_are_due(count: int) -> None:
    """The cost of a heartbeat does not grow with the number of sessions."""
    table = sessions(count)
    touched = sum(
        len(slot) for _, _, slots in table.wheel.turn(T + 30_000, T + 30_300) for _, slot in slots
    )
    records = OutputBatch([], [])
    table.fire(Watermark(T + 30_000), T + 30_300, records, 10**9)
    assert touched == len(records) == count // 100


@pytest.mark.parametrize("carry_in_heartbeats", [True, False])
@pytest.mark.parametrize("session", [Session("d", "s", "pc", T), CARRYING], ids=["plain", "carry"])
@pytest.mark.parametrize("max_session_ms", [900, 950], ids=["divides", "does not divide"])
@pytest.mark.parametrize("edge", ["started", "heartbeat", "timeout"])
@pytest.mark.parametrize("beside_ms", [-1, 0, 1])
def test_fired_heartbeats_equal_the_owed_ones(
    edge: str, beside_ms: int, max_session_ms: int, session: Session, *, carry_in_heartbeats: bool
) -> None:
    """The inlined loop says what rules.owed_heartbeats says, at and beside every edge of an age."""
    rules = Rules(300, max_session_ms, carry_in_heartbeats=carry_in_heartbeats)
    edges = {"started": 0, "heartbeat": rules.heartbeat_ms, "timeout": max_session_ms}
    upto_ms = T + edges[edge] + beside_ms
    for after_ms in range(T - 2, upto_ms):
        table = SessionTable(rules, [key_group_of("d")])
        table.carries = True
        owed = owed_heartbeats(session, rules, after_ms=after_ms, upto_ms=upto_ms)
        table.put(replace(session))
        records = OutputBatch([], [])
        table.fire(Watermark(after_ms), upto_ms, records, 10**9)
        timed_out = after_ms < T + max_session_ms <= upto_ms
        fired = decoded(records)
        assert fired[: len(owed)] == owed
        assert [type(event).__name__ for event in fired[len(owed) :]] == ["SessionEnd"] * timed_out


def test_fire_with_a_limit_goes_on_where_it_stopped() -> None:
    """A step with a lot to do is taken in parts, and nothing is sent twice or left out."""
    whole, parts = OutputBatch([], []), OutputBatch([], [])
    sessions(1_000).fire(Watermark(T), T + 61_000, whole, 10**9)
    table, at = sessions(1_000), Watermark(T)
    calls = 0
    while at != Watermark(T + 61_000):
        part = OutputBatch([], [])
        at = table.fire(at, T + 61_000, part, 100)
        parts.keys += part.keys
        parts.values += part.values
        calls += 1
    assert calls > 10
    assert parts.values == whole.values


@pytest.mark.parametrize("max_session_ms", [60_000, 70_000], ids=["divides", "does not divide"])
def test_moment_with_more_than_the_limit_is_fired_key_group_by_key_group(
    max_session_ms: int,
) -> None:
    """Timestamps of whole seconds put many into one slot: no call fires them all, or ends them."""
    rules, count, limit = Rules(30_000, max_session_ms), 5_000, 100
    table, at, calls = SessionTable(rules, range(KEY_GROUPS)), Watermark(T), 0
    for number in range(count):
        table.put(Session(f"d{number}", "s", "pc", T))
    events: list[OutputEvent] = []
    while at != Watermark(T + 70_000):
        part, before = OutputBatch([], []), at
        at = table.fire(at, T + 70_000, part, limit)
        assert len(part) <= limit + count // KEY_GROUPS * 2
        for event in decoded(part):
            group = key_group_of(event.device_id)
            assert before.of(group).upto_ms < event.time_ms <= at.of(group).upto_ms
            events.append(event)
        calls += 1
    kinds = Counter(type(event).__name__ for event in events)
    beats = 1 if max_session_ms == 60_000 else 2
    assert kinds == {"Heartbeat": beats * count, "SessionEnd": count}
    assert len({(event.device_id, event.time_ms) for event in events}) == len(events)
    assert calls > 50


def test_session_opened_late_while_its_moment_is_being_fired_gets_all_of_its_heartbeats() -> None:
    """Each exactly once, whether its key group has had its turn or not."""
    rules, names = Rules(30_000, 90_000), [f"late{number}" for number in range(50)]
    table = SessionTable(rules, range(KEY_GROUPS))
    for number in range(1_000):
        table.put(Session(f"d{number}", "s", "pc", T))
    records = OutputBatch([], [])
    at = table.fire(Watermark(T), T + 30_000, records, 500)
    assert at.upto_ms == T + 29_999
    turns = {key_group_of(name) < at.next_group for name in names}
    assert turns == {True, False}
    apply_fact(table, Fact(True, "new", "s", "pc", T + 30_001), at)  # it is due later
    for name in names:
        for event in apply_fact(table, Fact(True, name, "s", "pc", T), at):
            records.add(event, encode_output(event))
    while at != Watermark(T + 60_000):
        part = OutputBatch([], [])
        at = table.fire(at, T + 60_000, part, 500)
        records.extend(part)
    got = Counter(
        (event.device_id, event.time_ms)
        for event in decoded(records)
        if isinstance(event, Heartbeat)
    )
    assert {key[1] for key in got} == {T + 30_000, T + 60_000}
    assert set(got.values()) == {1}
    assert len(got) == 2 * (1_000 + len(names))


def test_timeout_off_the_beat_comes_at_its_own_moment() -> None:
    """A longest session that is no multiple of the interval still ends on time."""
    table = SessionTable(Rules(30_000, 70_000), range(KEY_GROUPS))
    table.put(Session("d", "s", "pc", T))
    records = OutputBatch([], [])
    table.fire(Watermark(T), T + 69_999, records, 10)
    assert len(records) == 2
    table.fire(Watermark(T + 69_999), T + 70_000, records, 10)
    end = decoded(records)[-1]
    assert (type(end).__name__, end.time_ms) == ("SessionEnd", T + 70_000)


@pytest.mark.parametrize(
    ("late_ms", "kinds"),
    [
        (29_999, ["SessionActive"]),
        (30_000, ["SessionActive", "Heartbeat"]),
        (69_999, ["SessionActive", "Heartbeat", "Heartbeat"]),
        (70_000, ["SessionActive", "Heartbeat", "Heartbeat", "SessionEnd"]),
        (99_999, ["SessionActive", "Heartbeat", "Heartbeat", "SessionEnd"]),
    ],
)
def test_session_opened_late_gets_what_was_due_at_once(late_ms: int, kinds: list[str]) -> None:
    """The wheel has passed its moments already; the timeout, too."""
    table = SessionTable(Rules(30_000, 70_000), range(KEY_GROUPS))
    got = apply_fact(table, fact("start", "s", T - late_ms), FIRED)
    assert [type(event).__name__ for event in got] == kinds
    assert table.active == (kinds[-1] != "SessionEnd")
    records = OutputBatch([], [])
    table.fire(Watermark(T), T + 30_000, records, 10)
    assert len(records) == table.active + (kinds[-1] != "SessionEnd" and late_ms > 40_000)


def test_leap_sends_what_is_due_of_sessions_that_end_and_that_live_on() -> None:
    """One pass over all sessions gives what the wheel would have given, session by session."""

    def filled() -> SessionTable:
        table = SessionTable(Rules(30_000, 70_000), range(KEY_GROUPS))
        for number, started_ms in enumerate([T, T + 500_000, T + 570_000, T + 629_999]):
            table.put(Session(f"d{number}", "s", "pc", started_ms))
        return table

    leapt = filled().fast_forward(Watermark(T), T + 630_000, timeouts_only=False)
    fired = OutputBatch([], [])
    filled().fire(Watermark(T), T + 630_000, fired, 100)
    assert sorted(map(repr, leapt)) == sorted(map(repr, decoded(fired)))
    assert [type(event).__name__ for event in leapt].count("SessionEnd") == 2
    ends = filled().fast_forward(Watermark(T), T + 630_000, timeouts_only=True)
    assert {event.device_id for event in ends} == {"d0", "d1"}


def test_sessions_loaded_in_bulk_are_those_put_one_by_one() -> None:
    """The fast way of a restore makes the same table, ended sessions and odd timeouts included."""
    rules = Rules(30_000, 70_000)
    stored = [Session("d", "s1", "pc", T, T + 5), Session("d", "s2", "pc", T + 9)]
    (group,) = {key_group_of(session.device_id) for session in stored}
    loaded, put = SessionTable(rules, range(KEY_GROUPS)), SessionTable(rules, range(KEY_GROUPS))
    loaded.load(group, [replace(session) for session in stored])
    for session in stored:
        put.put(session)
    assert loaded.sessions(group) == put.sessions(group)
    found = [OutputBatch([], []), OutputBatch([], [])]
    for table, records in zip((loaded, put), found, strict=True):
        table.fire(Watermark(T), T + 300_000, records, 100)
        assert not table.wheel
    assert found[0].values == found[1].values
    assert len(found[0]) == 3


def test_active_sessions_are_counted_by_platform_whatever_begins_or_ends_them() -> None:
    """Put, loaded, started, replaced by one of the other platform, ended, timed out."""
    rules = replace(RULES, max_session_ms=90_000)
    table = SessionTable(rules, range(KEY_GROUPS))
    table.put(Session("d", "s1", "pc", T - 5))
    table.load(key_group_of("e"), [Session("e", "s2", "pc", T), Session("e", "s3", "tv", T, T + 1)])
    assert table.platforms == {"pc": 2}
    apply_fact(table, Fact(True, "d", "s4", "tv", T + 1), FIRED)
    assert table.platforms == {"pc": 1, "tv": 1}
    apply_fact(table, Fact(False, "d", "s4", "tv", T + 2), FIRED)
    assert table.platforms == {"pc": 1, "tv": 0}
    table.fire(Watermark(T), T + rules.max_session_ms, OutputBatch([], []), 10_000)
    assert table.platforms == {"pc": 0, "tv": 0}


@pytest.mark.parametrize(
    ("state", "found"),
    [(State.IDLE, None), (State.BUSY, "other"), (State.ACTIVE, "s"), (State.ENDED, None)],
)
def test_find_gives_the_active_session_of_a_device(state: State, found: str | None) -> None:
    """What has ended is not found, though it is remembered."""
    session = table_in(state).find("d")
    assert (None if session is None else session.session_id) == found
