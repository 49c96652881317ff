"""A stored lane that is read key group by key group, through random histories with crashes."""

from itertools import chain
from typing import Any

import pytest

from session_logic import journal, lane, lane_groups
from session_logic.codec import encode_sessions
from session_logic.errors import SnapshotError
from session_logic.handover import settled
from session_logic.journal import BaseRow, JournalRow
from session_logic.keys import key_groups_of
from session_logic.lane import Lane
from session_logic.lane_groups import LaneGroups
from session_logic.restoring import LaneState, read_lane_state
from session_logic.rules import Session
from tests.simulation.lane import Simulation
from tests.support.lanes import LANE, LANES, Store

GROUPS = key_groups_of(LANE, LANES)
HISTORIES = 60


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 300)
    monkeypatch.setattr(lane, "MAX_FIRED_RECORDS", 2)


def state_of(store: Store) -> LaneState:
    """Return the state of the lane that was stored."""
    assert store.state is not None
    return read_lane_state(store.state)


def by_group(store: Store, simulation: Simulation) -> dict[int, list[Session]]:
    """Return the active sessions as they are read group by group."""
    state, rows = state_of(store), store.rows.values()
    rules = state.rules_or(simulation.rules)
    groups = LaneGroups(state, rules, [r for r in rows if isinstance(r, JournalRow)])
    bases = {row.group: row for row in rows if isinstance(row, BaseRow)}
    tables = {group: groups.table(group, bases.get(group)) for group in GROUPS}
    found = {group: list(table.groups[group].active.values()) for group, table in tables.items()}
    _, places = settled(rules, state.watermark_ms)  # which a start goes over to
    for session in chain.from_iterable(found.values()):
        session.interval = places[session.interval]
    return found


def whole(store: Store, simulation: Simulation) -> dict[int, list[Session]]:
    """Return the active sessions as a lane that is restored has them."""
    state = state_of(store)
    made = Lane(LANE, LANES, state.rules_or(simulation.rules), state)
    for row in store.rows.values():
        made.restore(row, state.watermark_ms)
    assert not made.restoring
    return {group: list(made.table.groups[group].active.values()) for group in GROUPS}


def sorted_bytes(sessions: list[Session]) -> bytes:
    """Return sessions as they are stored, in one order."""
    return encode_sessions(sorted(sessions, key=lambda session: session.device_id))


def compare(simulation: Simulation, seen: dict[str, int]) -> None:
    """Compare both ways, and note what the stored lane had."""
    store = simulation.store
    got, want = by_group(store, simulation), whole(store, simulation)
    assert {g: sorted_bytes(s) for g, s in got.items()} == {
        g: sorted_bytes(s) for g, s in want.items()
    }
    state = state_of(store)
    seen["sessions"] += sum(map(len, got.values()))
    seen["waiting"] += state.waiting > 0
    seen["carrying"] += state.carries
    seen["listening"] += state.listens
    seen["hearing anew"] += state.hearing_ms > 0
    seen["between groups"] += state.next_group > 0
    seen["bases"] += len(state.journal.through)


def compare_all(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Compare at every snapshot of many histories; return what was seen."""
    seen = dict.fromkeys(
        ("sessions", "waiting", "carrying", "listening", "hearing anew", "between groups", "bases"),
        0,
    )
    commit = Simulation.commit

    def compared(self: Simulation) -> None:
        commit(self)
        compare(self, seen)

    monkeypatch.setattr(Simulation, "commit", compared)
    for seed in range(HISTORIES):
        simulation = Simulation(seed)
        for _ in range(3):
            simulation.run(40)
    return seen


def test_groups_together_have_the_sessions_of_the_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    """At every snapshot: while rows are missing, between key groups, with what is carried."""
    seen = compare_all(monkeypatch)
    assert all(count > 5 for count in seen.values()), str(seen)


def test_fact_that_is_lost_in_between_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison can fail."""
    apply = lane_groups.apply_fact

    def lossy(table: Any, fact: Any, watermark: Any) -> Any:
        return apply(table, fact, watermark) if fact.is_start else []

    monkeypatch.setattr(lane_groups, "apply_fact", lossy)
    with pytest.raises(AssertionError):
        compare_all(monkeypatch)


def test_missing_row_is_named() -> None:
    """A segment, or the base of a group."""
    simulation = Simulation(1)
    while not simulation.store.state or len(state_of(simulation.store).journal.through) < 2:
        simulation.facts()
        simulation.commit()
    state, rows = state_of(simulation.store), simulation.store.rows
    group = next(iter(state.journal.through))
    with pytest.raises(SnapshotError, match=f"^base-{group:03} missing$"):
        LaneGroups(
            state, simulation.rules, [r for r in rows.values() if isinstance(r, JournalRow)]
        ).table(group, None)
    base = rows[f"base-{group:03}"]
    assert isinstance(base, BaseRow)
    with pytest.raises(SnapshotError, match=r"^journal segment \d+, .* missing$"):
        LaneGroups(state, simulation.rules, []).table(group, base)
