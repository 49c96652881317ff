"""The rows of the store: which there are, and whose they are."""

import pytest

from session_logic.journal import (
    SEGMENT_BYTES,
    SEGMENT_EPOCHS,
    Journal,
    lane_of_row,
    row_names,
)
from session_logic.keys import LaneKeys, key_groups_of


def test_rows_of_a_group_and_of_a_ring_belong_to_one_lane() -> None:
    """A base belongs to the lane of its group, a journal row to the lane of its ring."""
    for lane in range(4):
        assert {lane_of_row(f"base-{group:03}", 4) for group in key_groups_of(lane, 4)} == {lane}
        assert lane_of_row(f"journal-{65 * lane:03}", 4) == lane


@pytest.mark.parametrize("lanes", [1, 3, 8, 12, 100, 200, 256])
def test_lanes_of_any_number_share_no_row_and_each_device_has_a_group(lanes: int) -> None:
    """By the route `partition` their number need be no power of two."""
    names = []
    for lane in range(lanes):
        groups = key_groups_of(lane, lanes)
        slots = range(lane * (len(groups) + 1), (lane + 1) * (len(groups) + 1))
        names += [f"base-{group:03}" for group in groups]
        names += [f"journal-{slot:03}" for slot in slots]
        assert {lane_of_row(name, lanes) for name in names[-len(groups) - len(slots) :]} == {lane}
        keys = LaneKeys(lane, lanes)
        assert {keys.group_of(f"d{n}") for n in range(10 * len(groups) + 50)} == set(groups)
    assert len(set(names)) == len(names)
    assert set(names) <= set(row_names())


def test_names_have_a_bound_whatever_the_number_of_lanes() -> None:
    """What Bytewax walks at every snapshot does not grow with the sessions."""
    assert len(row_names()) == 768


@pytest.mark.parametrize("name", ["base-256", "journal-260", "journal-7", "other-001"])
def test_name_of_no_row_is_refused(name: str) -> None:
    """It is another program's, or of a store with other lanes."""
    with pytest.raises(ValueError, match=f"{name} is no row of a store with 4 lanes"):
        lane_of_row(name, 4)


def test_group_that_is_left_over_is_no_row() -> None:
    """Of 256 groups 12 lanes have 21 each."""
    assert lane_of_row("base-251", 12) == 11
    with pytest.raises(ValueError, match="base-252 is no row of a store with 12 lanes"):
        lane_of_row("base-252", 12)


@pytest.mark.parametrize(
    ("base_bytes", "epochs"),
    [
        (0, SEGMENT_EPOCHS),  # none is known
        (10_000, SEGMENT_EPOCHS),  # it has cost 36,000 by then
        (100_000, 24),  # 1,000 + 2,000 + ... + 24,000 = 300,000
        (100_000_000, -(-SEGMENT_BYTES // 1_000)),
    ],
)
def test_segment_is_full_once_it_has_cost_what_a_base_costs(base_bytes: int, epochs: int) -> None:
    """A row of 1,000 bytes more in each epoch is stored whole in each; a base costs three times."""
    journal = Journal(0, 64)
    journal.roll()
    journal.base(journal.roll() or 0, bytes(base_bytes))
    stored = 0
    while not journal.full():
        journal.append(bytes(1_000))
        journal.state()
        journal.state()  # an epoch without a fact stores nothing anew
        stored += 1
    assert stored == epochs
