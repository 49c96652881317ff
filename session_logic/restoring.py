"""Restoring a lane: its sessions on their way back from the store, and the facts that wait.

A lane's own state names the rows that it needs; the store hands back all rows, in any order, and
input may come before them. Bases are loaded as they arrive, journal rows are kept until all before
them are there. Then the entries are replayed in order, each with the watermark under which it was
applied the first time, so the same sessions come out as before, without sending anything again.
Where bases come first and segments in order, each row is a short step: other lanes have their turns
in between, and known ends of input stay known. Facts that arrive meanwhile are stored at once, and
applied after the last row: a crash in between finds them at the end of the journal, and
LaneState.waiting tells how many entries those are.
"""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct, ValidationError, convert

from session_logic.codec import decode_entry, decode_sessions
from session_logic.errors import (
    RESTORE_COPY,
    ConfigError,
    SnapshotError,
    StateMismatchError,
    check_version,
)
from session_logic.events import JournalEntry, OutputEvent, Watermark
from session_logic.journal import BaseRow, JournalRow, JournalState, Row
from session_logic.keys import KEY_GROUPS
from session_logic.rules import Rules, Session, is_due
from session_logic.silence import STALL_MS
from session_logic.table import SessionTable
from session_logic.transitions import apply_fact

STATE_VERSION = 4
# Written only by a lane that has stored something carried: earlier programs read the others.
CARRYING_VERSION = 5
# Written only by a lane that has stored a session that silence may end.
LISTENING_VERSION = 7
# In this one, what was due in the first STALL_MS of an outage had ended before it.
STALLING_VERSION = 6


class StoredRules(Struct, frozen=True, gc=False, array_like=True):
    """The rules by which a lane went; see Rules for intervals_ms and sent_ms."""

    heartbeat_ms: int
    max_session_ms: int
    deduplication_window_ms: int
    intervals_ms: list[int]
    sent_ms: list[int] = []  # none before version 4


class LaneState(Struct, frozen=True, gc=False, array_like=True):
    """A lane's own snapshot: a few numbers; its sessions are in the rows that journal names.

    waiting is how many of the last stored entries were not applied yet, because rows were missing.
    moved_watermarks has the watermark of each key group that was moved here from a lane that was
    behind this one: what it owes from then to watermark_ms is sent when it is restored. next_group
    is that of Watermark. carries says that something carried may be in the rows, listens that a
    session may be that silence ends; hearing_ms is that of the newest journal entry.
    """

    version: int
    lanes: int
    lane: int
    watermark_ms: int
    journal: JournalState
    waiting: int = 0
    groups: int = KEY_GROUPS
    moved_watermarks: dict[int, int] = {}
    rules: StoredRules | None = None  # None before version 3
    next_group: int = 0
    carries: bool = False  # from version 5 on
    listens: bool = False  # from version 6 on
    hearing_ms: int = 0

    def rules_or(self, rules: Rules) -> Rules:
        """Return the rules by which the lane went, or these if they are not stored."""
        if self.rules is None:
            return rules
        return Rules(
            self.rules.heartbeat_ms,
            self.rules.max_session_ms,
            self.rules.deduplication_window_ms,
            rules.catch_up,
            tuple(self.rules.intervals_ms),
            tuple(self.rules.sent_ms),
            rules.carry_in_heartbeats,
            rules.apart,
        )


def stored_rules(rules: Rules) -> StoredRules:
    """Return rules as a lane's state holds them."""
    return StoredRules(
        rules.heartbeat_ms,
        rules.max_session_ms,
        rules.deduplication_window_ms,
        list(rules.intervals_ms),
        list(rules.sent_ms),
    )


def state_version(*, carries: bool, listens: bool = False) -> int:
    """Return the version of a lane's state: the earliest that can hold it."""
    if listens:
        return LISTENING_VERSION
    return CARRYING_VERSION if carries else STATE_VERSION


def read_lane_state(stored: list[Any]) -> LaneState:
    """Return the state in plain stored values; raises SnapshotError if they are not one."""
    try:
        check_version("recovery store, state of a lane", stored[0], LISTENING_VERSION)
        return convert(stored, LaneState)
    except (ValidationError, TypeError, LookupError) as error:
        msg = f"recovery store: the state of a lane cannot be read ({error}); {RESTORE_COPY}"
        raise SnapshotError(msg) from None


def check_state(state: LaneState, lanes: int) -> None:
    """Raise StateMismatchError if a state is of another number of lanes than this.

    Raises ConfigError if it was stored by a program with another number of key groups.
    """
    if state.groups != KEY_GROUPS:
        msg = (
            f"the recovery store was made for {state.groups} key groups, this program has "
            f"{KEY_GROUPS}; run the version of Heartwheel that wrote it"
        )
        raise ConfigError(msg)
    if state.lanes != lanes:
        raise StateMismatchError(stored=state.lanes, wanted=lanes)


class Restoration:
    """Loads the rows of a lane into its table until all that its state names are there."""

    def __init__(self, state: LaneState, oldest: int, table: SessionTable, rules: Rules) -> None:
        """Expect the rows that the state names: bases, and segments from the oldest on."""
        self._lane = state.lane
        self._table = table
        self._rules = rules
        self._watermark = Watermark(state.watermark_ms, next_group=state.next_group)
        self._last_segment = state.journal.segment
        self._through = dict(state.journal.through)
        self._missing_bases = dict(state.journal.through)
        self._missing_segments = set(range(oldest, state.journal.segment + 1))
        self._journal: dict[int, JournalRow] = {}
        self._stored_waiting = state.waiting
        self._waiting: list[JournalEntry] = []
        self._hearing_ms = state.hearing_ms
        self._is_first_entry = True
        self.is_stalling = state.version == STALLING_VERSION
        self._stalled_ms = -1  # the watermark of the last entry that an outage had come before
        self.moved_watermarks = dict(state.moved_watermarks)

    @property
    def waiting(self) -> int:
        """How many entries of the journal are not applied yet."""
        return self._stored_waiting + len(self._waiting)

    def done(self) -> bool:
        """Say whether every row has come."""
        return not self._missing_bases and not self._missing_segments

    def missing(self) -> list[str]:
        """Name the rows that have not come."""
        bases = [f"base-{group:03}" for group in sorted(self._missing_bases)]
        return bases + [f"journal segment {segment}" for segment in sorted(self._missing_segments)]

    def wait(self, entry: JournalEntry) -> None:
        """Keep facts that have been stored until the last row has come."""
        self._waiting.append(entry)

    def take(self, row: Row) -> list[OutputEvent]:
        """Take in a row; return what a moved key group still owes.

        Raises SnapshotError for a row that does not fit the state.
        """
        if isinstance(row, BaseRow):
            if self._missing_bases.pop(row.group, None) != row.through:
                raise self._misfit(row.row)
            plain = not (self._table.carries or self._table.listens)
            stored = decode_sessions(row.blob, plain=plain)
            owed, sessions = self._owed_by_moved_group(row.group, stored)
            self._table.load(row.group, sessions)
            return owed
        if row.segment > self._last_segment:
            raise self._misfit(row.row)
        if row.segment in self._missing_segments:
            self._missing_segments.remove(row.segment)
            self._journal[row.segment] = row
            self._replay_ready()
        return []

    def _replay_ready(self) -> None:
        """Replay the segments that have come, up to the first one that is missing."""
        if self._missing_bases or self._stored_waiting:
            return
        upto = min(self._missing_segments, default=self._last_segment + 1)
        for segment in sorted(self._journal):
            if segment < upto:
                self._replay(segment, self._journal.pop(segment).entries)

    def _replay(self, segment: int, entries: Iterable[bytes]) -> None:
        """Apply the facts of a segment that the bases do not have yet."""
        table, group_of = self._table, self._table.keys.group_of
        to_replay = {group for group in table.groups if segment > self._through.get(group, -1)}
        for data in entries:
            entry = decode_entry(data)
            self._pass_silence(segment, entry)
            for fact in entry.facts:
                group = group_of(fact.device_id)
                if group in to_replay:
                    apply_fact(table, fact, entry.watermark, group)

    def _pass_silence(self, segment: int, entry: JournalEntry) -> None:
        """Where an outage had ended, end what silence had ended before it.

        Bases know of the outages before them, and so all do of those before the first entry.
        """
        silence = self._table.wheel.silence
        if self._is_first_entry:
            self._is_first_entry = False
            silence.hearing_ms = entry.hearing_ms
        elif entry.hearing_ms != silence.hearing_ms:
            self._end_silent(segment, entry.watermark)
            self._table.hear_anew(entry.hearing_ms)

    def _end_silent(self, segment: int, watermark: Watermark) -> None:
        """End what silence had ended by a watermark, in the groups that need a segment."""
        stall_ms = STALL_MS if self.is_stalling else 0
        if self.is_stalling and watermark.upto_ms == self._stalled_ms:
            return  # the outage went on
        self._stalled_ms = watermark.upto_ms
        for number, group in self._table.groups.items():
            if segment <= self._through.get(number, -1):
                continue
            sent = watermark.of(number)
            before_ms = max(sent.upto_ms, watermark.upto_ms + stall_ms)
            for session in list(group.active.values()):
                due_ms, reason = self._table.due_end(session)
                if reason == "went_silent" and is_due(due_ms, before_ms):
                    self._table.end(session, reason, sent, due_ms)

    def _owed_by_moved_group(
        self, group: int, sessions: list[Session]
    ) -> tuple[list[OutputEvent], list[Session]]:
        """Return what is due between the watermark of a moved key group and that of this lane.

        With it come the sessions as they are then.
        """
        watermark_ms = self.moved_watermarks.pop(group, None)
        if watermark_ms is None:
            return [], sessions
        table = SessionTable(self._rules, [group], keys=self._table.keys)
        table.listens = self._table.listens
        table.wheel.silence.hearing_ms = self._hearing_ms
        table.load(group, sessions)
        watermark = Watermark(watermark_ms, newest_only=self._rules.catch_up == "latest")
        owed = table.fast_forward(watermark, self._watermark.upto_ms, timeouts_only=False)
        return owed, table.sessions(group)

    def finish(self) -> list[JournalEntry]:
        """Replay what has not been replayed; return the entries of the facts that waited."""
        assert self.done()
        rows = sorted(self._journal.items())
        entries = [(segment, data) for segment, row in rows for data in row.entries]
        applied = len(entries) - self._stored_waiting
        for segment, data in entries[:applied]:
            self._replay(segment, [data])
        # A timeout that was fired after the base was written is not announced again.
        now = self._watermark
        self._table.fast_forward(now, now.upto_ms, timeouts_only=True)
        self._table.counts.clear()
        self._table.crowded.clear()
        return [decode_entry(data) for _, data in entries[applied:]] + self._waiting

    def _misfit(self, name: str) -> SnapshotError:
        return SnapshotError(
            f"recovery store, lane {self._lane}: row {name} is from another moment than the "
            f"lane's state; {RESTORE_COPY}"
        )
