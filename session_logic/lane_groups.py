"""A stored lane, restored one key group at a time, for whoever only reads its sessions.

A run restores a lane as a whole, because it needs all sessions in memory. Here only the journal of
the lane is held, which has a bound, and the sessions of one key group. What is guaranteed: the
sessions of all groups together are those of the lane as it would be restored at its watermark.

How. Devices know nothing of each other. So the entries of the journal are split by key group, each
part with the watermark of the whole, and every group is restored as a lane of its own.

What would break it: a rule by which what one device does depends on another one.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable

from msgspec.structs import replace

from session_logic.codec import decode_entry, encode_entry
from session_logic.errors import SnapshotError
from session_logic.events import Fact, JournalEntry, Watermark
from session_logic.journal import BaseRow, Journal, JournalRow, JournalState
from session_logic.keys import LaneKeys, key_groups_of
from session_logic.restoring import LaneState, Restoration
from session_logic.rules import Rules
from session_logic.table import SessionTable
from session_logic.transitions import apply_fact


class LaneGroups:
    """The key groups of a stored lane, each restored when it is asked for."""

    def __init__(self, state: LaneState, rules: Rules, journal: Iterable[JournalRow]) -> None:
        """Split the journal of a lane that went by these rules."""
        self._state = state
        self._keys = LaneKeys(state.lane, state.lanes)
        self._rules = rules
        self._oldest = Journal(state.lane, state.lanes, state.journal).oldest
        needed = (row for row in journal if row.segment >= self._oldest)
        self._journal = sorted(needed, key=lambda row: row.segment)
        # By key group and segment; and how many of a group's last entries were not applied yet.
        self._entries: defaultdict[tuple[int, int], list[bytes]] = defaultdict(list)
        self._waiting: Counter[int] = Counter()
        self._split()

    def _split(self) -> None:
        entries = [(row.segment, data) for row in self._journal for data in row.entries]
        applied = len(entries) - self._state.waiting
        hearing_ms = -1
        for place, (segment, data) in enumerate(entries):
            entry = decode_entry(data)
            facts: defaultdict[int, list[Fact]] = defaultdict(list)
            for fact in entry.facts:
                facts[self._keys.group_of(fact.device_id)].append(fact)
            if entry.hearing_ms != hearing_ms:  # which matters to all of them
                hearing_ms = entry.hearing_ms
                groups: Iterable[int] = key_groups_of(*self._keys)
            else:
                groups = list(facts)
            for group in groups:
                part = encode_entry(JournalEntry(entry.watermark, facts[group], hearing_ms))
                self._entries[group, segment].append(part)
                self._waiting[group] += place >= applied

    def table(self, group: int, base: BaseRow | None) -> SessionTable:
        """Return the sessions of a key group alone, from its base if it has one.

        Raises SnapshotError if a row is missing, or does not fit the state of the lane.
        """
        state = self._state
        table = SessionTable(self._rules, [group], keys=self._keys)
        table.carries, table.listens = state.carries, state.listens
        if state.journal.segment < 0:  # of a moved lane, which has no entry to tell
            table.wheel.silence.hearing_ms = state.hearing_ms
        restoration = Restoration(self._state_of(group), self._oldest, table, self._rules)
        if base is not None:
            restoration.take(base)
        for row in self._journal:
            entries = tuple(self._entries.get((group, row.segment), ()))
            restoration.take(JournalRow(row.lane, row.slot, row.segment, entries))
        if not restoration.done():
            raise SnapshotError(f"{', '.join(restoration.missing())} missing")
        now = Watermark(state.watermark_ms, next_group=state.next_group)
        for entry in restoration.finish():
            if entry.hearing_ms != table.wheel.silence.hearing_ms:
                table.hear_anew(entry.hearing_ms)
            for fact in entry.facts:
                apply_fact(table, fact, now)
        return table

    def _state_of(self, group: int) -> LaneState:
        """Return what a lane of this key group alone would have stored."""
        state = self._state
        through, moved = state.journal.through, state.moved_watermarks
        return replace(
            state,
            journal=JournalState(state.journal.segment, _only(through, group)),
            waiting=self._waiting[group],
            moved_watermarks=_only(moved, group),
        )


def _only(by_group: dict[int, int], group: int) -> dict[int, int]:
    return {group: by_group[group]} if group in by_group else {}
