"""The active sessions of a store, key group by key group: never a whole lane is in memory."""

from collections.abc import Iterator

from msgspec import Struct

from heartwheel.store.contents import Contents
from heartwheel.store.part_file import Entry
from session_logic.errors import HeartwheelError, SnapshotError
from session_logic.journal import BaseRow, JournalRow
from session_logic.keys import key_groups_of
from session_logic.lane_groups import LaneGroups
from session_logic.table import SessionTable

SEE = "see `heartwheel store check`"


class StoredLane(Struct, frozen=True):
    """A lane of a store."""

    contents: Contents
    number: int

    @property
    def watermark_ms(self) -> int:
        """The moment up to which everything due has been sent; negative before the first."""
        return self.contents.states[self.number].watermark_ms

    def tables(self) -> Iterator[SessionTable]:
        """Yield the sessions of each key group, as a start from the store would have them.

        Raises SnapshotError if a row is damaged or missing.
        """
        state, bases, journal = self.contents.states[self.number], {}, []
        for entry in self.contents.rows(self.number):
            if entry.key.startswith("base"):
                bases[entry.key] = entry
            else:
                row = self._row(entry)
                assert isinstance(row, JournalRow)
                journal.append(row)
        groups = LaneGroups(state, self.contents.rules_of(self.number), journal)
        for group in key_groups_of(self.number, state.lanes):
            stored = bases.get(f"base-{group:03}")
            base = None if stored is None else self._row(stored)
            assert base is None or isinstance(base, BaseRow)
            try:
                table = groups.table(group, base)
            except SnapshotError as error:
                where = f"{self.contents.recovery.folder}: lane {self.number}"
                raise SnapshotError(f"{where}: {error}; {SEE}") from None
            yield table

    def _row(self, entry: Entry) -> BaseRow | JournalRow:
        try:
            return self.contents.row(entry)
        except HeartwheelError as error:
            raise SnapshotError(f"{entry.where}: {error}; {SEE}") from None


def stored_lanes(contents: Contents) -> list[StoredLane]:
    """Return the lanes of a store; raises SnapshotError if the state of one is not there."""
    if contents.state_faults:
        raise SnapshotError(f"{contents.state_faults[0]}; {SEE}")
    folder = contents.recovery.folder
    for number in contents.own_lanes:
        if number not in contents.states:
            raise SnapshotError(f"{folder}: lane {number}: its state is missing; {SEE}")
    for entry in contents.step("store"):
        if contents.lane_of(entry) not in contents.states:
            raise SnapshotError(f"{entry.where}: the state of its lane is missing; {SEE}")
    return [StoredLane(contents, number) for number in contents.own_lanes]
