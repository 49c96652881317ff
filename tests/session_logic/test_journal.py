"""The rows of the store: which there are, and whose they are."""

import pytest

from session_logic.journal import lane_of_row, row_names
from session_logic.keys import key_groups_of


def test_rows_of_a_group_and_of_a_ring_belong_to_one_lane() -> None:
    """A base belongs to the lane of its group, a journal row to the lane of its ring."""
    for lane in range(4):
        assert {lane_of_row(f"base-{group:03}", 4) for group in key_groups_of(lane, 4)} == {lane}
        assert lane_of_row(f"journal-{65 * lane:03}", 4) == lane


def test_names_have_a_bound_whatever_the_number_of_lanes() -> None:
    """What Bytewax walks at every snapshot does not grow with the sessions."""
    assert len(row_names()) == 768


@pytest.mark.parametrize("name", ["base-256", "journal-260", "journal-7", "other-001"])
def test_name_of_no_row_is_refused(name: str) -> None:
    """It is another program's, or of a store with other lanes."""
    with pytest.raises(ValueError, match=f"{name} is no row of a store with 4 lanes"):
        lane_of_row(name, 4)
