"""Where output resumes, as a store says it."""

from pathlib import Path

import pytest

from dataflows.formats import DEAD_LETTER_VERSION
from heartwheel.store.sinks import dead_letter_ends, lanes_begun
from session_logic.errors import SnapshotError
from tests.support.stores import sink


def test_ends_of_the_dead_letters_are_those_of_the_last_snapshot(store: Path) -> None:
    """By partition of their topic."""
    sink("rejected", DEAD_LETTER_VERSION, {0: 17, 1: 4})(store)
    assert dead_letter_ends(store) == {0: 17, 1: 4}


def test_store_without_dead_letters_does_not_say_where_they_end(
    store: Path, tmp_path: Path
) -> None:
    """Neither does a directory without a store, as other processes of a cluster have it."""
    sink("lane-000", 2, 10, [], [])(store)
    assert dead_letter_ends(store) is None
    assert dead_letter_ends(tmp_path) is None


def test_ends_that_cannot_be_read_are_an_error(store: Path) -> None:
    """A start is refused before anything is written."""
    sink("rejected", DEAD_LETTER_VERSION, 17)(store)
    with pytest.raises(SnapshotError, match="dead letters cannot be read"):
        dead_letter_ends(store)


def test_lanes_have_begun_once_one_of_them_has_stored_where_it_writes(
    store: Path, tmp_path: Path
) -> None:
    """Dead letters alone are of no lane; a directory without a store does not say."""
    sink("rejected", DEAD_LETTER_VERSION, {0: 17})(store)
    assert lanes_begun(store) is False
    sink("lane-000", 2, 10, [], [])(store)
    assert lanes_begun(store) is True
    assert lanes_begun(tmp_path) is None
