"""The oracle finds every planted difference, and nothing in output that is right."""

from collections.abc import Callable
from itertools import product

import pytest
from msgspec import UNSET, Raw
from msgspec.structs import replace

from session_logic.events import (
    Fact,
    Heartbeat,
    OutputEvent,
    SessionActive,
    SessionEnd,
    Watermark,
)
from session_logic.rules import Rules
from tests.support.check import (
    TRANSITIONS,
    Check,
    Difference,
    State,
    check_output,
    check_whole,
    expected,
)
from tests.support.model import Model

RULES = Rules(1_000, 10_000)
T = 1_700_000_000_000
NOW = T + 20_500
FACTS = [
    Fact(True, "a", "replaced", "pc", T),
    Fact(True, "b", "ended", "console", T + 100),
    Fact(True, "a", "timed out", "pc", T + 2_500, carried=b'"account":"x"'),
    Fact(False, "b", "ended", "console", T + 3_300, carried=b'"seconds":3'),
    Fact(True, "c", "active", "pc", T + 16_000),
]
Output = list[OutputEvent]


def right() -> Output:
    """Return the output that the facts must have."""
    model = Model(RULES)
    output = [event for fact in FACTS for event in model.apply(fact, Watermark(-1))]
    output += model.advance(-1, NOW, newest_only=False)
    return output


def checked(output: Output, through_ms: int = NOW) -> Check:
    """Check an output."""
    return check_output(output, expected(FACTS, RULES, NOW), RULES, through_ms)


def of(output: Output, session: str) -> Output:
    """Return the records of a session."""
    return [event for event in output if event.session_id == session]


def at(output: Output, session: str, kind: type, number: int = 0) -> int:
    """Return where a record is."""
    found = [n for n, e in enumerate(output) if e.session_id == session and isinstance(e, kind)]
    return found[number]


def test_right_output_has_no_difference() -> None:
    """All four ends of a session are there: replaced, ended, timed out, and none yet."""
    check = checked(right())
    assert check.differences == {}
    assert (check.sessions, check.raced) == (4, 0)
    assert check.records == len(right()) == 4 + 3 + 2 + 3 + 9 + 4
    assert check.examples == []


def test_any_interleaving_of_devices_is_right() -> None:
    """Only the order within a device counts, because other devices may be in other partitions."""
    by_device = [e for device in "cba" for e in right() if e.device_id == device]
    assert checked(by_device).differences == {}


def lose(session: str, kind: type, number: int = 0) -> Callable[[Output], None]:
    def change(output: Output) -> None:
        del output[at(output, session, kind, number)]

    return change


def double(session: str, kind: type, number: int = 0) -> Callable[[Output], None]:
    def change(output: Output) -> None:
        place = at(output, session, kind, number)
        output.insert(place, output[place])

    return change


def repeat_at_the_end(session: str, kind: type, number: int = 0) -> Callable[[Output], None]:
    def change(output: Output) -> None:
        output.append(output[at(output, session, kind, number)])

    return change


def swap(session: str, one: int, other: int) -> Callable[[Output], None]:
    """Change the places of two of a session's records."""

    def change(output: Output) -> None:
        places = [n for n, event in enumerate(output) if event.session_id == session]
        a, b = places[one], places[other]
        output[a], output[b] = output[b], output[a]

    return change


def alter(session: str, kind: type, **fields: object) -> Callable[[Output], None]:
    def change(output: Output) -> None:
        place = at(output, session, kind)
        output[place] = replace(output[place], **fields)

    return change


def beat_after_the_end(output: Output) -> None:
    end = output[at(output, "ended", SessionEnd)]
    time_ms = end.started_ms + 4_000
    output.append(Heartbeat("b", "ended", "console", end.started_ms, time_ms, 4))


def lose_the_session(output: Output) -> None:
    for event in of(output, "active"):
        output.remove(event)


def begin_before_the_end_of_the_one_before(output: Output) -> None:
    output.insert(0, output.pop(at(output, "timed out", SessionActive)))


def end_what_is_active(output: Output) -> None:
    output.append(SessionEnd("c", "active", "pc", T + 16_000, T + 20_000, "ended", 4_000))


def add_a_session(output: Output) -> None:
    output.append(SessionActive("d", "nobody's", "pc", T, T))


D = Difference
# What is planted -> what must be found, and how often.
PLANTED: dict[str, tuple[Callable[[Output], None], dict[Difference, int]]] = {
    "lost heartbeat": (lose("ended", Heartbeat, 1), {D.MISSING_HEARTBEAT: 1}),
    "lost first heartbeat": (lose("active", Heartbeat), {D.MISSING_HEARTBEAT: 1}),
    "lost last heartbeat": (lose("ended", Heartbeat, -1), {D.MISSING_HEARTBEAT: 1}),
    "lost last heartbeat of an active session": (
        lose("active", Heartbeat, -1),
        {D.MISSING_HEARTBEAT: 1},
    ),
    "lost end": (lose("ended", SessionEnd), {D.MISSING_END: 1}),
    "lost timeout": (lose("timed out", SessionEnd), {D.MISSING_END: 1}),
    "lost end of a replaced session": (
        lose("replaced", SessionEnd),
        {D.MISSING_END: 1, D.MISORDERED: 1},
    ),
    "session that never begins": (lose_the_session, {D.MISSING_SESSION: 1}),
    "lost start": (lose("active", SessionActive), {D.MISSING_SESSION: 1, D.MISORDERED: 4}),
    "doubled start": (double("ended", SessionActive), {D.DOUBLED: 1}),
    "doubled heartbeat": (double("ended", Heartbeat, 1), {D.DOUBLED: 1}),
    "doubled end": (double("ended", SessionEnd), {D.DOUBLED: 1}),
    "start again after the end": (repeat_at_the_end("ended", SessionActive), {D.DOUBLED: 1}),
    "old heartbeat again after the end": (repeat_at_the_end("ended", Heartbeat), {D.DOUBLED: 1}),
    "old heartbeat again": (repeat_at_the_end("active", Heartbeat), {D.DOUBLED: 1}),
    "heartbeat after the end": (beat_after_the_end, {D.MISORDERED: 1}),
    "heartbeat before the start": (swap("active", 0, 1), {D.MISORDERED: 1}),
    "heartbeats swapped": (swap("active", 1, 2), {D.MISORDERED: 1}),
    "end before a heartbeat": (swap("ended", -1, -2), {D.MISORDERED: 1}),
    "next session before the end of the last": (
        begin_before_the_end_of_the_one_before,
        {D.MISORDERED: 1},
    ),
    "foreign session": (add_a_session, {D.FOREIGN: 1}),
    "end of an active session": (end_what_is_active, {D.WRONG: 1}),
    "wrong duration": (alter("ended", SessionEnd, duration_ms=1), {D.WRONG: 1}),
    "wrong reason": (alter("ended", SessionEnd, reason="timed_out"), {D.WRONG: 1}),
    "wrong time of a heartbeat": (alter("active", Heartbeat, time_ms=T), {D.WRONG: 1}),
    "wrong start": (alter("active", Heartbeat, started_ms=T), {D.WRONG: 1}),
    "wrong device": (alter("active", SessionActive, device_id="a"), {D.WRONG: 1}),
    "wrong platform": (alter("active", SessionActive, platform="console"), {D.WRONG: 1}),
    "no context in a start": (
        alter("timed out", SessionActive, context=UNSET),
        {D.WRONG: 1},
    ),
    "no context in a heartbeat": (
        alter("timed out", Heartbeat, context=UNSET),
        {D.WRONG: 1},
    ),
    "context of another session": (
        alter("timed out", Heartbeat, context=Raw(b'{"account":"y"}')),
        {D.WRONG: 1},
    ),
    "no context in an end": (alter("ended", SessionEnd, context=UNSET), {D.WRONG: 1}),
}


# What shows in a session alone; that its last record is missing does not.
NOT_WHOLE = ("doubled", "old", "heartbeat", "end before", "lost heartbeat", "lost first", "start")


@pytest.mark.parametrize("name", PLANTED)
def test_planted_difference_is_found_and_named(name: str) -> None:
    """The oracle behind every count of lost and doubled records is able to fail."""
    plant, found = PLANTED[name]
    output = right()
    plant(output)
    check = checked(output)
    assert check.differences == found, check
    assert check.examples


def test_everything_lost_is_found() -> None:
    """An empty topic has none of the sessions."""
    assert checked([]).differences == {D.MISSING_SESSION: 4}


def test_everything_doubled_is_found() -> None:
    """A run that wrote all its output again has each record twice."""
    assert checked(right() * 2).differences == {D.DOUBLED: len(right())}


def test_what_is_due_after_the_stop_may_be_missing() -> None:
    """A run that was stopped about then may have sent it or not."""
    output = right()
    plant = lose("active", Heartbeat, -1)
    plant(output)
    assert checked(output, through_ms=T + 19_999).differences == {}
    assert checked(output, through_ms=T + 20_000).differences == {D.MISSING_HEARTBEAT: 1}


def test_heartbeat_sent_before_an_earlier_end_was_read_is_counted_apart() -> None:
    """It is due after the end, but comes before it: the one race that is left."""
    output = right()
    place = at(output, "ended", SessionEnd)
    end = output[place]
    late = Heartbeat("b", "ended", "console", end.started_ms, end.started_ms + 4_000, 4)
    output.insert(place, late)
    assert checked(output).differences == {D.WRONG: 1}  # an end before a heartbeat that is out
    output[place + 1] = replace(end, time_ms=late.time_ms, duration_ms=4_000)
    check = checked(output)
    assert (check.differences, check.raced) == ({}, 1)


WATCHED = [
    Fact(True, "s", "silent", "pc", T, idle_timeout_ms=4_000),
    Fact(True, "p", "pings", "pc", T, idle_timeout_ms=4_000),
    *(
        Fact(False, "p", "pings", "pc", T + ms, ping=True, idle_timeout_ms=4_000)
        for ms in range(3_000, 21_000, 3_000)
    ),
]


def silence(*, late_ms: int = 0, beats: int = 0) -> Output:
    """Return the output of WATCHED; the silent session may end later, after more heartbeats."""
    model = Model(Rules(1_000, 30_000))
    output = [event for fact in WATCHED for event in model.apply(fact, Watermark(-1))]
    output += model.advance(-1, NOW, newest_only=False)
    place = at(output, "silent", SessionEnd)
    end = output.pop(place)
    more = [Heartbeat("s", "silent", "pc", T, T + n * 1_000, n) for n in range(5, 5 + beats)]
    return [*output, *more, replace(end, time_ms=end.time_ms + late_ms)]


def of_watched(output: Output, *, outages: bool) -> Check:
    """Check the output of WATCHED."""
    rules = Rules(1_000, 30_000)
    return check_output(output, expected(WATCHED, rules, NOW), rules, NOW, outages=outages)


def test_silent_end_may_be_put_off_by_an_outage_and_heartbeats_go_on_until_then() -> None:
    """Without outages it is at its moment; with some, no heartbeat before it may be missing."""
    for outages in (False, True):
        check = of_watched(silence(), outages=outages)
        assert (check.differences, check.silent, check.put_off) == ({}, 1, 0)
    late = silence(late_ms=2_500, beats=2)
    assert of_watched(late, outages=False).differences == {D.WRONG: 1}
    check = of_watched(late, outages=True)
    assert (check.differences, check.silent, check.put_off) == ({}, 1, 1)
    beatless = silence(late_ms=2_500, beats=1)
    assert of_watched(beatless, outages=True).differences == {D.MISSING_HEARTBEAT: 1}


@pytest.mark.parametrize("outages", [False, True])
def test_silent_end_that_is_early_missing_or_of_one_who_pings_is_found(*, outages: bool) -> None:
    """No outage excuses any of them."""
    early = of_watched(silence(late_ms=-1), outages=outages)
    assert early.differences == {D.WRONG: 1}
    assert of_watched(silence()[:-1], outages=outages).differences == {D.MISSING_END: 1}
    active = next(event for event in silence() if event.session_id == "pings")
    end = SessionEnd(
        "p", "pings", "pc", active.started_ms, T + 19_000, "went_silent", 15_000,
        last_seen_ms=T + 15_000,
    )  # fmt: skip
    assert D.WRONG in of_watched([*silence(), end], outages=outages).differences


def test_transitions_are_complete() -> None:
    """Each record has a meaning in each state."""
    kinds = (SessionActive, Heartbeat, SessionEnd)
    assert TRANSITIONS.keys() == set(product(State, kinds))


def by_session(output: Output) -> dict[str, Output]:
    return {session: of(output, session) for session in {event.session_id for event in output}}


def test_whole_sessions_are_whole() -> None:
    """The check without a model takes right output."""
    check_whole(by_session(right()))


@pytest.mark.parametrize("name", [name for name in PLANTED if name.startswith(NOT_WHOLE)])
def test_session_that_is_not_whole_is_found_without_a_model(name: str) -> None:
    """A doubled record, above all, is never tolerated."""
    output = right()
    PLANTED[name][0](output)
    with pytest.raises(AssertionError):
        check_whole(by_session(output))
