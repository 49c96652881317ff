"""Shards through random histories: none loses or doubles what another has, however many there are.

`python -m tests.simulation.shards 100` runs more of them.
"""

from collections import Counter
from collections.abc import Callable

import pytest

from dataflows.kafka.lease import Lease
from dataflows.messages import DEAD_LETTER_KEY
from dataflows.shard import Shard
from session_logic.errors import HeartwheelError
from session_logic.journal import lane_of_row
from tests.simulation import regrouping
from tests.simulation.engine import Database
from tests.simulation.shards import simulate

# A fault must be found in fewer histories than this.
SEARCH = 40


@pytest.mark.parametrize(
    ("first", "count", "lanes", "steps"),
    [
        (0, 3, 8, 100),
        pytest.param(3, 17, 8, 100, marks=pytest.mark.slow),
        pytest.param(0, 3, 64, 60, marks=pytest.mark.slow),  # and 128 in one of them
    ],
)
def test_output_of_all_shards_is_that_of_the_model(
    first: int, count: int, lanes: int, steps: int
) -> None:
    """Each record is there once, whichever shards were killed, stopped, regrouped or refused."""
    counts: Counter[str] = Counter()
    for seed in range(first, first + count):
        counts += simulate(seed, lanes, steps).counts
    assert counts["records"] > 100 * count
    assert all(counts[name] for name in ("kills", "stops", "rescales")), counts
    assert counts["partitions added"] == sum(seed % 2 for seed in range(first, first + count))


def take_the_next_lane_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let shards share a lane."""

    def of(self: Shard, partitions: int) -> list[int]:
        own = list(range(self.number, partitions, self.shards))
        return sorted({*own, (own[0] + 1) % partitions} if self.shards > 1 else own)

    monkeypatch.setattr(Shard, "of", of)


def leave_a_lane_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the last shard have one lane less."""

    def of(self: Shard, partitions: int) -> range:
        end = partitions - 1 if self.shards > 1 else partitions
        return range(self.number, end, self.shards)

    monkeypatch.setattr(Shard, "of", of)


def ignore_the_leases_of_other_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a shard of any number of shards begin."""
    monkeypatch.setattr(Lease, "_check_shards", lambda *_: None)


def look_only_at_the_lease_of_its_own_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a shard begin where those that have its lanes have other numbers."""
    monkeypatch.setattr(Lease, "_check_others", lambda *_: None)


def _leave_out(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Leave what a step has stored of lane 3 out where stores are regrouped."""
    share_out = regrouping.shared_out

    def lossy(values: regrouping.Values, shard: Shard, lanes: int) -> Database:
        kept = {
            (of, key): value
            for (of, key), value in values.items()
            if of != step or key == DEAD_LETTER_KEY or regrouping.lane_of(of, key, lanes) != 3
        }
        return share_out(kept, shard, lanes)

    monkeypatch.setattr(regrouping, "shared_out", lossy)


def forget_the_input_offsets_of_a_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the input of a lane again from its beginning."""
    _leave_out(monkeypatch, "source")


def forget_the_output_offsets_of_a_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take all of a lane's output for what was written since the last snapshot."""
    _leave_out(monkeypatch, "sink")


def forget_the_sessions_of_a_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the lane and its rows."""
    _leave_out(monkeypatch, "sessions")


def forget_a_journal_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the rows of a lane."""
    _leave_out(monkeypatch, "store")


def leave_sessions_in_the_partitions_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Move none where partitions are added: the ends of those that are active come elsewhere."""
    move = regrouping.moved

    def stubborn(values: regrouping.Values, lanes: int, *others: object) -> regrouping.Values:
        after = move(values, lanes, *others)  # type: ignore[arg-type]
        return {
            (step, key): value
            for (step, key), value in after.items()
            if step != "store" or lane_of_row(key, 2 * lanes) < lanes
        }

    monkeypatch.setattr(regrouping, "moved", stubborn)


FAULTS = [
    take_the_next_lane_as_well,
    leave_a_lane_to_nobody,
    ignore_the_leases_of_other_shards,
    forget_the_sessions_of_a_lane,
    forget_a_journal_row,
]
# Found only after several histories.
RARE_FAULTS = [
    look_only_at_the_lease_of_its_own_number,
    forget_the_input_offsets_of_a_lane,
    forget_the_output_offsets_of_a_lane,
    leave_sessions_in_the_partitions_of_before,
]


@pytest.mark.parametrize(
    "plant", [*FAULTS, *(pytest.param(rare, marks=pytest.mark.slow) for rare in RARE_FAULTS)]
)
def test_planted_fault_of_shards_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each in some of the first histories, and the error names the seed."""
    plant(monkeypatch)
    with pytest.raises((AssertionError, HeartwheelError, LookupError)) as found:
        for seed in range(SEARCH):
            simulate(seed)
    assert any(note.startswith("seed=") for note in found.value.__notes__)
