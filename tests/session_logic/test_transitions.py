"""What comes first when facts disagree: their times decide, in whatever order they are read.

A step is `READ kind session @TIME`: when a fact is read, and the time that its sender gave it;
without @TIME the broker gave it the time at which it is read. The session `-` is none: an end of
whatever is active. The heartbeat is 1 s, a session lasts 60 s at most, ends are remembered for 5 s.
"""

import pytest
from msgspec import Struct

from session_logic.clock import PartitionProgress
from session_logic.codec import decode_output, encode_output
from session_logic.events import EndIfOpen, Fact, Heartbeat, OutputEvent, SessionActive, Watermark
from session_logic.key_group import MAX_ENDED
from session_logic.keys import KEY_GROUPS
from session_logic.lane import Lane
from session_logic.rules import MAX_MISSED_HEARTBEATS, Rules
from session_logic.table import SessionTable
from session_logic.transitions import apply_fact
from tests.support.events import decoded

T = 1_700_000_000_000
RULES = Rules(1_000, 60_000, 5_000)


class Case(Struct):
    """Steps, the records that they bring about, and the outcomes that are counted."""

    steps: str
    records: str
    counts: dict[str, int]


CASES = {
    "an older start does not replace a newer session": Case(
        """
        0    start s2 @0
        1500 start s1 @-10000
        3000 end   s1 @3000
        """,
        "A(s2) h1 h2 h3",
        {"started": 1, "late_start": 1, "stale_end": 1},
    ),
    "an older start whose successor has ended is late, too": Case(
        """
        0    start s2 @0
        100  end   s2 @100
        200  start s1 @-10000
        """,
        "A(s2) E(ended, 100)",
        {"started": 1, "ended": 1, "late_start": 1},
    ),
    "of equal times the order of reading decides": Case(
        """
        0    start s1 @0
        10   start s2 @0
        """,
        "A(s1) E(replaced, 0) A(s2)",
        {"started": 2, "replaced": 1},
    ),
    "an end read before its start closes it": Case(
        """
        0    end   s1 @0
        1000 start s1 @-2500
        """,
        "A(s1) h1 h2 E(ended, 0)",
        {"unknown_end": 1, "started": 1, "ended_early": 1},
    ),
    "an end read before its start, while another session is active": Case(
        """
        0    start s0 @0
        500  end   s1 @400
        600  start s1 @200
        700  end   s0 @650
        """,
        "A(s0) E(replaced, 200) A(s1) E(ended, 400)",
        {"started": 2, "replaced": 1, "stale_end": 1, "ended_early": 1, "unknown_end": 1},
    ),
    "an early end is that of no session that starts after it": Case(
        """
        0    end   s1 @0
        10   start s1 @1
        """,
        "A(s1)",
        {"unknown_end": 1, "started": 1},
    ),
    "an early end is remembered for the window and a heartbeat": Case(
        """
        0    end   s1 @0
        5999 start s1 @-1
        """,
        "A(s1) E(ended, 0)",
        {"unknown_end": 1, "started": 1, "ended_early": 1},
    ),
    "an end is not before its session's start": Case(
        """
        0    start s1 @0
        10   end   s1 @-5
        """,
        "A(s1) E(ended, 0)",
        {"started": 1, "ended": 1},
    ),
    "an end is not before a heartbeat that is out": Case(
        """
        0    start s1 @0
        3500 end   s1 @1500
        """,
        "A(s1) h1 h2 h3 E(ended, 3000)",
        {"started": 1, "ended": 1},
    ),
    "a replaced session does not end before a heartbeat that is out": Case(
        """
        0    start s1 @0
        3500 start s2 @1500
        """,
        "A(s1) h1 h2 h3 E(replaced, 3000) A(s2) h1 h2",
        {"started": 2, "replaced": 1},
    ),
    "a relaunch after the end is a new session where the sender sets the time": Case(
        """
        0    start s1 @0
        10   end   s1 @10
        20   start s1 @11
        """,
        "A(s1) E(ended, 10) A(s1)",
        {"started": 2, "ended": 1},
    ),
    "a duplicate with the old time is one, however late in the window": Case(
        """
        0    start s1 @0
        10   end   s1 @10
        6009 start s1 @0
        """,
        "A(s1) E(ended, 10)",
        {"started": 1, "ended": 1, "late_duplicate_start": 1},
    ),
    "a start within the window is a duplicate where the broker sets the time": Case(
        """
        0    start s1
        10   end   s1
        5009 start s1
        5010 start s1
        """,
        "A(s1) E(ended, 10) A(s1)",
        {"started": 2, "ended": 1, "late_duplicate_start": 1},
    ),
    "a late end of the life before does not end the relaunch": Case(
        """
        0    start s1 @0
        10   end   s1 @10
        100  start s1 @100
        200  end   s1 @10
        """,
        "A(s1) E(ended, 10) A(s1)",
        {"started": 2, "ended": 1, "stale_end": 1},
    ),
    "an end beyond the known life closes the relaunch that comes after it": Case(
        """
        0    start s1 @0
        10   end   s1 @10
        200  end   s1 @150
        300  start s1 @100
        """,
        "A(s1) E(ended, 10) A(s1) E(ended, 150)",
        {"started": 2, "ended": 1, "unknown_end": 1, "ended_early": 1},
    ),
    "an end without an id ends what is active": Case(
        """
        0    start s1 @0
        500  end   -  @400
        """,
        "A(s1) E(ended, 400)",
        {"started": 1, "ended": 1},
    ),
    "an end without an id ends a session that began in the same moment": Case(
        """
        0    start s1 @0
        10   end   -  @0
        """,
        "A(s1) E(ended, 0)",
        {"started": 1, "ended": 1},
    ),
    "an end without an id does not end a session that began later": Case(
        """
        0    start s1 @0
        10   end   -  @-1
        """,
        "A(s1)",
        {"started": 1, "stale_end": 1},
    ),
    "an end without an id that comes twice ends no session after it": Case(
        """
        0    start s1 @0
        10   end   -  @10
        20   end   -  @10
        30   start s2 @10
        40   start s3 @20
        50   end   -  @10
        """,
        "A(s1) E(ended, 10) A(s2) E(replaced, 20) A(s3)",
        {"started": 3, "ended": 1, "replaced": 1, "unknown_end": 1, "stale_end": 1},
    ),
    "an end without an id soon after another is its duplicate where the broker sets the time": Case(
        """
        0    start s1
        10   end   -
        20   end   -
        30   start s2
        40   end   -
        """,
        "A(s1) E(ended, 10) A(s2) E(ended, 40)",
        {"started": 2, "ended": 2, "unknown_end": 1},
    ),
    "an end without an id read before the start closes it": Case(
        """
        0    end   -  @0
        5    end   -  @0
        10   start s1 @-5
        20   end   -  @0
        30   start s2 @1
        """,
        "A(s1) E(ended, 0) A(s2)",
        {"unknown_end": 3, "started": 2, "ended_early": 1},
    ),
    "each session ends by the first of several early ends without an id": Case(
        """
        200  end   -  @130
        210  end   -  @100
        220  start s1 @90
        230  start s2 @110
        240  start s3 @131
        """,
        "A(s1) E(ended, 100) A(s2) E(ended, 130) A(s3)",
        {"unknown_end": 2, "started": 3, "ended_early": 2},
    ),
    "of early ends with and without an id the first one counts": Case(
        """
        100  end   -  @50
        110  end   s1 @40
        120  end   s2 @90
        130  start s1 @30
        140  start s2 @45
        """,
        "A(s1) E(ended, 40) A(s2) E(ended, 50)",
        {"unknown_end": 3, "started": 2, "ended_early": 2},
    ),
    "an end without an id of before a session that has ended is of none that is known": Case(
        """
        100  start s2 @100
        200  end   s2 @200
        210  end   -  @80
        220  start s1 @70
        """,
        "A(s2) E(ended, 200)",
        {"started": 1, "ended": 1, "unknown_end": 1, "late_start": 1},
    ),
    "an early end without an id is remembered for the window and a heartbeat": Case(
        """
        0    end   -  @0
        5999 start s1 @-1
        6001 start s2 @-1
        """,
        "A(s1) E(ended, 0) A(s2) h1 h2 h3 h4 h5 h6",
        {"unknown_end": 1, "started": 2, "ended_early": 1},
    ),
}


def shown(event: OutputEvent) -> str:
    """Return a record as the cases write it."""
    if isinstance(event, SessionActive):
        return f"A({event.session_id})"
    if isinstance(event, Heartbeat):
        return f"h{event.sequence}"
    return f"E({event.reason}, {event.time_ms - T})"


def fact_of(line: str) -> tuple[int, Fact]:
    """Return when a fact is read, and the fact."""
    read, kind, session, *given = line.split()
    time_ms = int(given[0].removeprefix("@")) if given else int(read)
    session = session.removeprefix("-")
    return int(read), Fact(kind == "start", "d", session, "pc", T + time_ms, bool(given))


@pytest.mark.parametrize("name", CASES)
def test_facts_that_disagree_give_the_records_named(name: str) -> None:
    """Nothing that is out is contradicted, and what is ignored is counted under its name."""
    case, lane, records = CASES[name], Lane(0, 1, RULES), []
    lane.update(PartitionProgress("topic/0", 1, None))
    lane.advance(T - 20_000)
    for line in case.steps.strip().splitlines():
        read_ms, fact = fact_of(line)
        records += decoded(lane.advance(T + read_ms).records)
        records += decoded(lane.apply([fact], T + read_ms).records)
    assert " ".join(map(shown, records)) == case.records
    outcomes = lane.table.counts.outcomes.items()
    assert {what: count for (what, platform), count in outcomes} == case.counts


@pytest.mark.parametrize(
    ("session", "start_ms", "ends"),
    [
        ("s", 0, 0),
        ("s", -1, 1),
        ("s", 500, 1),
        ("s2", 1_000, 0),
        ("s2", 1_500, 1),
        ("other", 500, 1),
    ],
)
def test_ignored_start_of_no_known_session_brings_an_end_for_it(
    session: str, start_ms: int, ends: int
) -> None:
    """A crashed run may have announced that session; that of a known one is at its time."""
    table = SessionTable(RULES, range(KEY_GROUPS))
    for name, time_ms in [("s", 0), ("s2", 1_000), (session, start_ms)]:
        fact = Fact(True, "d", name, "pc", T + time_ms, created=True)
        events = apply_fact(table, fact, Watermark(T))
    assert [type(event) for event in events] == [EndIfOpen] * ends


def test_device_remembers_a_bounded_number_of_ends() -> None:
    """One device with very many sessions costs no more than any other, on the wheel included."""
    table = SessionTable(RULES, range(KEY_GROUPS))
    for number in range(1_000):
        for is_start in (True, False):
            fact = Fact(is_start, "d", f"s{number}", "pc", T + number, created=True)
            apply_fact(table, fact, Watermark(T))
    assert len(list(table.group("d").ended("d"))) == len(table.wheel) == MAX_ENDED


def test_start_finds_its_end_though_the_session_that_it_replaces_crowds_that_out() -> None:
    """What a device remembers is full, and the early end is the oldest of it."""
    table = SessionTable(RULES, range(KEY_GROUPS))

    def read(kind: str, session: str, after_ms: int) -> list[str]:
        fact = Fact(kind == "start", "d", session, "pc", T + after_ms, created=True)
        return [shown(event) for event in apply_fact(table, fact, Watermark(T))]

    read("end", "early", 900)
    for number in range(MAX_ENDED - 1):
        read("start", f"s{number}", number)
        read("end", f"s{number}", number)
    read("start", "replaced", 100)
    assert read("start", "early", 200) == ["E(replaced, 200)", "A(early)", "E(ended, 900)"]


def test_start_that_comes_late_brings_a_bounded_number_of_heartbeats() -> None:
    """However old it is, one fact does not make hundreds of records."""
    table = SessionTable(Rules(1_000, 10**9), range(KEY_GROUPS))
    events = apply_fact(table, Fact(True, "d", "s", "pc", T), Watermark(T + 500_000_500))
    sequences = [event.sequence for event in events if isinstance(event, Heartbeat)]
    assert sequences == list(range(500_001 - MAX_MISSED_HEARTBEATS, 500_001))


@pytest.mark.parametrize("is_start", [True, False])
@pytest.mark.parametrize("first_ms", [0, 1, 999, 1_000, 59_999, 60_000, 60_001])
@pytest.mark.parametrize("second_ms", [0, 1, 999, 1_000, 59_999, 60_000, 60_001])
def test_whatever_comes_out_is_readable_by_the_own_decoder(
    first_ms: int, second_ms: int, *, is_start: bool
) -> None:
    """From the first moment that there is, in any order: times and durations are never negative."""
    table = SessionTable(RULES, range(KEY_GROUPS))
    facts = [Fact(True, "d", "s1", "pc", first_ms), Fact(is_start, "d", "s2", "pc", second_ms)]
    facts += [Fact(False, "d", session, "pc", 0, created=True) for session in ("s1", "s2")]
    for fact in facts:
        for event in apply_fact(table, fact, Watermark(-1)):
            if isinstance(event, EndIfOpen):
                continue  # it is no record
            value = encode_output(event)
            assert encode_output(decode_output(value)) == value
