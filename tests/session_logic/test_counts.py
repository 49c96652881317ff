"""What is counted by platform: each by its name, in bounded memory whatever the events say."""

import pytest
from msgspec.structs import replace

from session_logic.counts import MAX_FOUND, OTHER, Counts, PlatformNames
from session_logic.events import Fact, Watermark
from session_logic.handover import handed_over
from session_logic.keys import KEY_GROUPS
from session_logic.lane import Lane
from session_logic.rules import Rules, Session
from session_logic.table import SessionTable
from session_logic.transitions import apply_fact

RULES = Rules(30_000, 28_800_000)
T = 1_700_000_000_000
FIRED = Watermark(T)


def start(number: int, platform: str) -> Fact:
    """Return the start of a device's session."""
    return Fact(True, f"d{number}", "s", platform, T)


def end(number: int, platform: str) -> Fact:
    """Return the end of it."""
    return Fact(False, f"d{number}", "s", platform, T + 1)


def filled(devices: int) -> SessionTable:
    """Return a table with a session of each device, on a platform of its own."""
    table = SessionTable(RULES, range(KEY_GROUPS))
    for number in range(devices):
        apply_fact(table, start(number, f"p{number}"), FIRED)
    return table


def test_outcome_is_counted_on_the_platform_of_the_event_or_of_the_session_that_ends() -> None:
    """An end may come by the topic of another platform than the start did."""
    table = SessionTable(RULES, range(KEY_GROUPS))
    apply_fact(table, start(1, "console"), FIRED)
    apply_fact(table, start(1, "pc"), FIRED)
    apply_fact(table, end(1, "pc"), FIRED)
    apply_fact(table, end(2, "pc"), FIRED)
    assert table.counts.outcomes == {
        ("started", "console"): 1,
        ("duplicate_start", "pc"): 1,
        ("ended", "console"): 1,
        ("unknown_end", "pc"): 1,
    }
    assert table.platforms == {"console": 0}


def test_platforms_beyond_the_limit_are_counted_together() -> None:
    """Whatever a field of the events has: the first ones keep their names, and all come to 0."""
    devices = 3 * MAX_FOUND
    table = filled(devices)
    names = {f"p{number}" for number in range(MAX_FOUND)}
    assert table.platforms == dict.fromkeys(names, 1) | {OTHER: devices - MAX_FOUND}
    assert table.counts.outcomes["started", OTHER] == devices - MAX_FOUND
    for number in range(devices):
        apply_fact(table, end(number, f"p{number}"), FIRED)
    assert table.platforms == dict.fromkeys({*names, OTHER}, 0)
    assert len(table.counts.outcomes) == 2 * (MAX_FOUND + 1)


def test_known_platform_has_its_name_however_many_were_found_before() -> None:
    """What the settings name is not crowded out."""
    names = PlatformNames()
    names.know(["console", "pc"])
    found = {names[f"p{number}"] for number in range(10 * MAX_FOUND)}
    assert len(found) == MAX_FOUND + 1
    assert (names["pc"], names["later"]) == ("pc", OTHER)


def test_last_place_that_threads_take_together_is_the_last() -> None:
    """A process may have several worker threads, which do not wait for one another."""
    names = PlatformNames()
    names._room = -1  # both have seen the last place, and both have taken it
    assert {names[f"p{number}"] for number in range(10)} == {OTHER}


def test_lanes_that_share_names_call_a_platform_alike() -> None:
    """A process has a bounded number of series, however many lanes it has."""
    names = PlatformNames()
    lanes = [Lane(number, 4, RULES, platforms=names) for number in range(4)]
    for number in range(400):
        lane = lanes[number % 4]
        group = next(iter(lane.table.groups))
        lane.table.put(Session(f"d{number}", "s", f"p{number}", T), lane.table.groups[group])
    assert len({name for lane in lanes for name in lane.table.platforms}) == MAX_FOUND + 1


def test_counts_go_on_in_a_table_by_other_rules() -> None:
    """Sessions are counted anew by the same names, and nothing is counted twice."""
    table = filled(2 * MAX_FOUND)
    table.counts.heartbeats = 7
    later = handed_over(table, replace(RULES, max_session_ms=30_000), FIRED)
    assert (later.counts, later.platforms) == (table.counts, table.platforms)
    assert later.counts.heartbeats == 7


@pytest.mark.parametrize("heartbeats", [0, 3])
def test_counts_that_are_cleared_begin_at_nothing(heartbeats: int) -> None:
    """As after a restore, which has gone through events that were counted before."""
    counts = Counts()
    counts.add("started", "pc")
    counts.heartbeats = heartbeats
    counts.clear()
    assert (counts.outcomes, counts.heartbeats) == ({}, 0)
