"""The way of the rows from the store back to the lanes."""

from dataflows.store import Inbox
from session_logic.journal import BaseRow, JournalRow


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
