"""The way of the rows from the store back to the lanes."""

from collections import Counter
from contextlib import suppress
from functools import partial

import pytest

from dataflows.formats import ROW_VERSION
from dataflows.messages import lane_key
from dataflows.run_state import RunState
from dataflows.store import Inbox, RestoredSource, StoreSink, has_row
from session_logic.journal import BaseRow, JournalRow, lane_of_row, row_names


def test_rows_are_given_out_lane_by_lane_with_the_bases_before_the_journal() -> None:
    """Bytewax restores them in any order; segments come in theirs, whatever slots they are in."""
    bases = [BaseRow(lane, group, 7, b"") for lane, group in ((0, 0), (0, 2), (1, 1))]
    journal = [
        JournalRow(lane, slot, segment, ()) for lane, slot, segment in ((0, 4, 7), (0, 3, 8))
    ]
    inbox = Inbox()
    for row in (bases[2], journal[1], journal[0], *bases[:2]):
        inbox.put(row)
    given = []
    while inbox:
        given += inbox.take(2)
    assert given == [*bases[:2], *journal, bases[2]]


@pytest.mark.parametrize("lanes", [1, 4, 256])
def test_row_is_named_by_the_process_of_its_lane(lanes: int) -> None:
    """So it is written there, and no row is left out: Bytewax counts on all of them."""
    named: Counter[str] = Counter()
    for number in range(3):
        run = RunState(has_lane=lambda lane, number=number: lane % 3 == number)
        here = StoreSink(Inbox(), partial(has_row, run, lanes)).list_parts()
        used = {name for name in here if name.startswith("base")}
        assert {lane_of_row(name, lanes) % 3 for name in used} <= {number}
        named.update(here)
    assert named.keys() == set(row_names())
    assert all(named[name] == 1 for name in named if name.startswith("base"))
    assert StoreSink(Inbox()).list_parts() == sorted(row_names())


def test_parts_of_one_worker_give_out_one_row_in_a_turn() -> None:
    """All but one end at once: what is restored already goes on between two rows."""
    inbox = Inbox()
    for group in (0, 1):
        inbox.put(BaseRow(0, group, 7, b""))
    source = RestoredSource(inbox, RunState())
    parts = [source.build_part("restored", name, None) for name in source.list_parts()]
    given = []
    for part in parts:
        with suppress(StopIteration):
            given += part.next_batch()
        assert part.snapshot() == ROW_VERSION
    assert [key for key, _ in given] == [lane_key(0)]
    assert len(inbox.take(2)) == 1
