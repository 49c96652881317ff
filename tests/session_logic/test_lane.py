"""A lane's way back: which rows it takes, which it refuses, and what it does once all are there."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from msgspec.structs import replace

from session_logic import journal
from session_logic.clock import PartitionProgress
from session_logic.errors import ConfigError, SnapshotError, StateMismatchError
from session_logic.events import Fact, Heartbeat, OutputEvent
from session_logic.journal import BaseRow, JournalRow, Row
from session_logic.lane import Lane
from session_logic.restoring import read_lane_state
from session_logic.rules import Rules
from tests.support.events import decoded
from tests.support.lanes import (
    DEVICES,
    LANE,
    LANES,
    RULES,
    Store,
    T,
    give,
    resumed,
    start,
    stored,
)


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 1)  # a segment for every call


def by_age(store: Store) -> list[JournalRow]:
    """Return the journal rows, oldest first."""
    rows = [row for row in store.rows.values() if isinstance(row, JournalRow)]
    return sorted(rows, key=lambda row: row.segment)


@pytest.mark.parametrize("place", [0, 3, -1])
def test_ring_row_that_is_needed_no_more_is_passed_over_wherever_it_comes(place: int) -> None:
    """The ring has one row more than are needed; it may come after the last needed one."""
    store = stored(20)
    old, *needed = by_age(store)
    assert [b.segment - a.segment for a, b in pairwise([old, *needed])] == [1] * len(needed)
    rows = [row for row in store.rows.values() if row is not old]
    rows.insert(place % (len(rows) + 1), old)
    lane = resumed(store)
    assert give(lane, rows) == []
    assert not lane.restoring
    assert lane.table.active == len(DEVICES)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (BaseRow, lambda row: replace(row, through=row.through - 1)),
        (BaseRow, lambda row: replace(row, through=row.through + 1)),
        (JournalRow, lambda row: replace(row, segment=row.segment + 100)),
    ],
)
def test_row_of_another_moment_is_refused(kind: type, change: Callable[[Row], Row]) -> None:
    """A store put together from two copies is never taken for a whole one."""
    store = stored(20)
    row = next(row for row in store.rows.values() if isinstance(row, kind))
    with pytest.raises(SnapshotError, match=f"{row.row} is from another moment"):
        resumed(store).restore(change(row), T)


def test_row_for_a_lane_without_state_is_refused() -> None:
    """Rows without the lane's own state are half a store."""
    for row in stored(3).rows.values():
        with pytest.raises(SnapshotError, match=f"{row.row} is there but the lane's own"):
            Lane(LANE, LANES, RULES).restore(row, T)


def test_row_that_comes_twice_is_refused_once_all_are_there() -> None:
    """A needed row has been taken in already: the second one is a fault."""
    store = stored(20)
    lane = resumed(store)
    rows = list(store.rows.values())
    give(lane, rows)
    with pytest.raises(SnapshotError):
        lane.restore(by_age(store)[-1], T)


def test_missing_rows_are_named_until_they_come() -> None:
    """The error for a lost row can say which."""
    store = stored(20)
    lane = resumed(store)
    needed = [row for row in store.rows.values() if row is not by_age(store)[0]]
    assert len(lane.missing_rows()) == len(needed)
    for left, row in enumerate(needed):
        assert len(lane.missing_rows()) == len(needed) - left
        lane.restore(row, T)
    assert lane.missing_rows() == []


def test_journal_is_replayed_as_it_comes_after_the_bases() -> None:
    """No row is a long step then; what has a gap before it waits."""
    store = stored(4)
    lane = resumed(store)
    give(lane, [row for row in store.rows.values() if isinstance(row, BaseRow)])
    first, second, third, fourth = by_age(store)
    active = []
    for row in (first, third, second, fourth):
        lane.restore(row, T)
        active.append(lane.table.active)
    assert active == [1, 1, 3, 4]
    assert not lane.restoring


@pytest.mark.parametrize("crashes", [1, 2, 3])
def test_fact_that_waited_for_rows_is_acted_on_after_any_number_of_crashes(crashes: int) -> None:
    """Its offset is stored while rows are missing: its records must come from the store then."""
    store = stored(20)
    waiting = [start(100 + number) for number in range(crashes)]
    for fact in waiting:
        lane = resumed(store)
        first, *_ = store.rows.values()
        lane.restore(first, T)
        output = lane.apply([fact], T + 500)
        assert not output.records
        store.write(output.rows)
        store.commit(lane)
    lane = resumed(store)
    sent = give(lane, list(store.rows.values()))
    active = [e.session_id for e in sent if type(e).__name__ == "SessionActive"]
    assert active == [fact.session_id for fact in waiting]
    store.commit(lane)
    assert give(resumed(store), list(store.rows.values())) == []


def test_lane_far_behind_leaps_over_more_than_a_whole_session() -> None:
    """A step longer than any session is taken at once; ends and beats are the same."""
    lane = Lane(LANE, LANES, Rules(30_000, 90_000, catch_up="all"))
    lane.update(PartitionProgress("t/0", 1, T))
    lane.apply([start(0)], T)
    lane.advance(T)
    lane.update(PartitionProgress("t/0", 1, T + 10**9))
    sent = decoded(lane.advance(T + 10**9).records)
    assert [type(event).__name__ for event in sent] == ["Heartbeat", "Heartbeat", "SessionEnd"]
    assert lane.watermark_ms == T + 10**9
    assert lane.table.active == 0


def test_outage_fires_nothing_before_the_log_is_read_to_its_end() -> None:
    """An end that happened meanwhile is seen first; then only the newest heartbeat is sent."""
    store = stored(20)
    before = resumed(store)
    give(before, list(store.rows.values()))
    before.update(PartitionProgress("t/0", 1, None))
    before.advance(T + 1_000)
    store.commit(before)
    lane = resumed(store)
    give(lane, list(store.rows.values()))
    now_ms = T + 300_000
    lane.update(PartitionProgress("t/0", 1, T + 200_000))
    assert not lane.advance(now_ms).records
    assert not lane.behind(now_ms)
    end = Fact(False, DEVICES[0], "s12", "pc", T + 250_000)
    sent = decoded(lane.apply([end], now_ms).records)
    assert [type(event).__name__ for event in sent] == ["Heartbeat", "SessionEnd"]
    lane.update(PartitionProgress("t/0", 1, None))
    beats = decoded(lane.advance(now_ms).records)
    assert len(beats) == len(DEVICES) - 1
    assert {type(event).__name__ for event in beats} == {"Heartbeat"}
    assert all(0 <= now_ms - event.time_ms < 30_000 for event in beats)


def test_state_of_other_groups_or_lanes_is_refused_with_what_to_do() -> None:
    """What fixes the place of a device in the store cannot be changed by a setting."""
    state = read_lane_state(stored(1).state or [])
    with pytest.raises(ConfigError, match="made for 128 key groups"):
        Lane(LANE, LANES, RULES, replace(state, groups=128))
    with pytest.raises(StateMismatchError) as caught:
        Lane(LANE, 16, RULES, state)
    assert (caught.value.stored, caught.value.wanted) == (LANES, 16)


def test_lag_is_that_of_the_sessions_or_of_the_clock_where_there_are_none() -> None:
    """Unknown before all partitions have reported; then what is fired, or could be, counts."""
    lane = Lane(LANE, LANES, RULES)
    assert lane.lag_ms(T) is None
    lane.update(PartitionProgress("t/0", 1, T - 7_000))
    assert lane.lag_ms(T) == 7_000
    lane.apply([start(0)], T)
    assert lane.lag_ms(T + 50) == 7_050
    lane.update(PartitionProgress("t/0", 1, None))
    assert lane.lag_ms(T + 60) == 0
    lane.advance(T + 60)
    assert lane.lag_ms(T + 61) == 1
    assert lane.lag_ms(T + 59) == 0  # asked before the lane has turned


def test_lag_of_a_lane_that_resumes_is_that_of_its_outage() -> None:
    """No row has come yet, and no partition reported: what it has fired before is known."""
    store = stored(20)
    before = resumed(store)
    give(before, list(store.rows.values()))
    before.update(PartitionProgress("t/0", 1, None))
    before.advance(T + 1_000)
    store.commit(before)
    assert resumed(store).lag_ms(T + 300_000) == 299_000


def test_records_after_others_keep_what_their_latency_counts_from() -> None:
    """Held records are put together, and none loses its moment."""
    lane = Lane(LANE, LANES, RULES)
    records = lane.apply([start(0)], T).records
    records.extend(lane.apply([start(1), replace(start(0), is_start=False)], T).records)
    assert len(records) == len(records.values) == 3
    assert records.input_ms == [(T, 1), (T + 1, 1), (T, 1)]
    assert records.due_ms == []


def test_lane_whose_time_moves_by_an_outage_at_once_sends_the_newest_heartbeat_only() -> None:
    """Also while a partition is still read: the clock was set forward, or the process paused."""
    lane = Lane(LANE, LANES, RULES)
    for part in ("t/0", "t/1"):
        lane.update(PartitionProgress(part, 2, None))
    lane.apply([Fact(True, DEVICES[0], "s", "pc", T)], T)
    lane.advance(T)
    later_ms = T + 20 * RULES.heartbeat_ms
    lane.update(PartitionProgress("t/0", 2, later_ms - 1))
    assert lane.advance(later_ms).records.due_ms == [(later_ms - RULES.heartbeat_ms, 1)]
    lane.update(PartitionProgress("t/0", 2, None))
    assert lane.advance(later_ms).records.due_ms == [(later_ms, 1)]


def test_heartbeats_apart_are_all_and_only_the_heartbeats() -> None:
    """What a lane gives out is the same, and each part of it in the same order."""
    rules = replace(RULES, max_session_ms=90_000)
    whole = Lane(LANE, LANES, rules)
    split = Lane(LANE, LANES, replace(rules, apart=("heartbeats",)))
    rest: list[OutputEvent] = []
    beats: list[OutputEvent] = []
    together: list[OutputEvent] = []
    now_ms = T
    for lane in (whole, split):
        lane.update(PartitionProgress("t/0", 1, None))
    for number in range(40):
        now_ms += 3_500
        facts = [start(number), replace(start(number), time_ms=now_ms - 31_000)]
        for one, two in [
            (whole.apply(facts, now_ms), split.apply(facts, now_ms)),
            (whole.advance(now_ms), split.advance(now_ms)),
        ]:
            assert len(one.records) == one.records.count() == two.records.count()
            assert bool(one.records) == bool(two.records)
            together += decoded(one.records)
            rest += decoded(two.records)
            beats += decoded(two.records.apart["heartbeats"])
    assert beats == [event for event in together if isinstance(event, Heartbeat)] != []
    assert rest == [event for event in together if not isinstance(event, Heartbeat)] != []


def test_lane_of_any_number_restores_the_sessions_of_all_its_devices() -> None:
    """By the route `partition` there may be 12 lanes, and any device may be in any of them."""
    lane, store = Lane(5, 12, RULES), Store()
    for number in range(300):
        store.write(lane.apply([Fact(True, f"d{number}", "s", "pc", T + number)], T).rows)
        store.commit(lane)
    assert store.state is not None
    again = Lane(5, 12, RULES, read_lane_state(store.state))
    give(again, list(store.rows.values()))
    assert not again.restoring
    assert all(again.table.find(f"d{number}") for number in range(300))
    assert again.table.active == 300
