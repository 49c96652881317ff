"""What is made from the code is as the code is now."""

import pytest

from docs.generate import pages, renewed, settings_table, transitions_table
from session_logic.transitions import State
from tests.support.pages import page


@pytest.mark.parametrize("name", pages())
def test_generated_part_is_current(name: str) -> None:
    """The page has what `make docs` writes."""
    text = page(name).text
    assert renewed(name, text) == text, "run: make docs"


def test_every_setting_has_a_meaning() -> None:
    """No row of the settings table is without a sentence on what it means."""
    rows = settings_table().splitlines()[2:]
    assert len(rows) > 25
    for row in rows:
        assert row.rsplit("|", 2)[1].strip().endswith("."), row


def test_transitions_have_a_column_for_each_state() -> None:
    """The table is complete, as the code's own is."""
    head, _, start, end = transitions_table().splitlines()[:4]
    assert [cell.strip() for cell in head.split("|")[2:-1]] == [state.name for state in State]
    assert start.startswith("| START |")
    assert end.startswith("| END |")
