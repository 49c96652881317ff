"""The lane against the slow model, through crashes, and faults that must be found."""

from collections.abc import Iterator
from itertools import count

import pytest

from session_logic import hearing, journal, lane, restoring, table
from session_logic.clock import PartitionProgress
from session_logic.errors import SnapshotError
from session_logic.events import Fact, OutputEvent, Watermark
from session_logic.journal import JournalRow
from session_logic.lane import Lane
from session_logic.restoring import read_lane_state
from session_logic.table import SessionTable
from tests.simulation.lane import Simulation, simulate
from tests.support.lanes import LANE, LANES, Store

HISTORIES = 300
# The other tests cover session_logic whole; measuring these, too, would take several times as long.
pytestmark = pytest.mark.no_cover


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 300)
    monkeypatch.setattr(lane, "MAX_FIRED_RECORDS", 2)
    monkeypatch.setattr(hearing, "STALL_MS", 100)
    monkeypatch.setattr(hearing, "GAP_MS", 500)


@pytest.mark.parametrize(
    "first",
    [
        0,
        *(pytest.param(n, marks=pytest.mark.slow) for n in range(100, HISTORIES, 100)),
    ],
)
def test_random_histories_with_crashes_match_the_model(first: int) -> None:
    """Every record of every step is what the model says, whatever crashes in between."""
    assert sum(simulate(seed).sent for seed in range(first, first + 100)) > 10_000


def seeds() -> Iterator[int]:
    """Yield enough seeds for any fault that matters."""
    return iter(range(300))


def test_off_by_one_in_due_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong boundary differs from the model."""
    monkeypatch.setattr(table, "is_due", lambda due_ms, now_ms: due_ms < now_ms)
    with pytest.raises((AssertionError, KeyError)):
        for seed in seeds():
            simulate(seed)


def test_dropped_journal_segment_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost row never lets a lane finish its restore."""
    crash = Simulation.crash

    def lossy(self: Simulation) -> None:
        crash(self)
        rows = [row for row in self.to_restore if isinstance(row, JournalRow)]
        if rows:
            self.to_restore.remove(max(rows, key=lambda row: row.segment))

    monkeypatch.setattr(Simulation, "crash", lossy)
    with pytest.raises((AssertionError, SnapshotError)):
        for seed in seeds():
            simulate(seed)


def test_forgotten_chunk_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that lost one of its chunks restores other sessions."""
    commit, calls = Store.commit, count()

    def lossy(self: Store, lane: object) -> None:
        if self._written and next(calls) % 7 == 0:
            self._written.pop()
        commit(self, lane)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "commit", lossy)
    with pytest.raises((AssertionError, SnapshotError)):
        for seed in seeds():
            simulate(seed)


def test_old_row_that_comes_last_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows come from several processes in any order: one no longer needed may come after all."""
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 1)
    simulation = Simulation(0)
    simulation.lane.update(PartitionProgress("topic/0", 1, None))
    for _ in range(20):
        simulation.facts()
        simulation.commit()
    state = read_lane_state(simulation.store.state or [])
    rows = sorted(simulation.store.rows.values(), key=lambda row: row.row)
    old = min((r for r in rows if isinstance(r, JournalRow)), key=lambda row: row.segment)
    lane = Lane(LANE, LANES, simulation.rules, state)
    for row in [*(row for row in rows if row is not old), old]:
        lane.restore(row, simulation.now_ms)
    assert not lane.restoring


def test_ping_forgotten_at_a_restore_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its session goes silent too early."""
    apply = restoring.apply_fact

    def forgetful(
        table: SessionTable, fact: Fact, watermark: Watermark, group: int
    ) -> list[OutputEvent]:
        return [] if fact.ping and not fact.is_start else apply(table, fact, watermark, group)

    monkeypatch.setattr(restoring, "apply_fact", forgetful)
    with pytest.raises(AssertionError):
        for seed in seeds():
            simulate(seed)


@pytest.mark.parametrize("sign", ["was_deaf", "has_restarted"])
def test_silent_end_during_an_outage_is_found(sign: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence that counts through an outage ends sessions that could not be heard."""
    monkeypatch.setattr(hearing.Hearing, sign, lambda *_: False)
    with pytest.raises(AssertionError):
        for seed in seeds():
            simulate(seed)


def test_outage_that_a_restore_does_not_know_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was silent before it comes back to life, or who was not is ended."""
    monkeypatch.setattr(restoring.Restoration, "_pass_silence", lambda *_: None)
    with pytest.raises(AssertionError):
        for seed in seeds():
            simulate(seed)
