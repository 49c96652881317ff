"""One lane: its table, clock and journal, and the order in which they are used."""

from typing import Any

from msgspec import Struct, ValidationError, convert, field

from session_logic.clock import LaneClock, PartitionProgress
from session_logic.codec import (
    decode_chunk,
    decode_sessions,
    encode_chunk,
    encode_output,
    encode_sessions,
)
from session_logic.errors import ConfigError, SnapshotError
from session_logic.events import Fact, JournalEntry, OutputBatch, OutputEvent, Watermark
from session_logic.journal import BaseRow, Journal, JournalRow, JournalState, Restore, Row
from session_logic.keys import KEY_GROUPS, key_group_of, key_groups_of
from session_logic.rules import Rules, Session
from session_logic.table import SessionTable

STATE_VERSION = 2
NEVER_MS = -1
# A lane that stood still for longer, though it runs, has had an outage.
PAUSE_MS = 10_000
# One call fires at most about this many records, so that input is read and sent in between.
FIRE_LIMIT = 20_000


class LaneState(Struct, frozen=True, gc=False, array_like=True):
    """A lane's own snapshot: a few numbers; its sessions are in the rows that journal names.

    waiting is how many of the last stored chunks were not acted on yet, as rows were missing.
    late_ms is how far time has come for the groups that were moved here from a lane that was
    behind this one: what they owe from then to fired_ms is sent when they are restored.
    """

    version: int
    lanes: int
    lane: int
    fired_ms: int
    journal: JournalState
    waiting: int = 0
    groups: int = KEY_GROUPS
    late_ms: dict[int, int] = {}


class LaneOutput(Struct, gc=False):
    """What a call to a lane brings about: records to send and rows to store, each in order."""

    records: OutputBatch = field(default_factory=lambda: OutputBatch([], []))
    rows: list[Row] = []

    def add(self, events: list[OutputEvent]) -> None:
        """Add records."""
        for event in events:
            self.records.add(event, encode_output(event))


class Lane:
    """The sessions of one lane, from its facts and the time."""

    def __init__(self, lane: int, lanes: int, rules: Rules, state: LaneState | None = None) -> None:
        """Make a lane, new or from its state; then it first wants its rows.

        Raises ConfigError if the state was stored for another number of lanes or groups.
        """
        if state is not None:
            check_state(state, lanes)
        self.lane = lane
        self.lanes = lanes
        self._rules = rules
        self.table = SessionTable(rules, key_groups_of(lane, lanes))
        self.clock = LaneClock()
        self._journal = Journal(lane, lanes, None if state is None else state.journal)
        self.fired_ms = NEVER_MS if state is None else state.fired_ms
        self._late_ms = {} if state is None else dict(state.late_ms)
        # After an outage, nothing is fired before the lane's time has come to its end.
        self._outage = state is not None and state.fired_ms != NEVER_MS
        self._outage_end_ms: int | None = None
        self._restore: Restore | None = None
        self._waiting: list[list[Fact]] = []
        self._stored_waiting = 0 if state is None else state.waiting
        if state is not None:
            self._restore = Restore(lane, state.journal, self._journal.oldest)
            self._finish_restore()

    @property
    def restoring(self) -> bool:
        """Whether rows are still missing; facts wait until then."""
        return self._restore is not None

    @property
    def resuming(self) -> bool:
        """Whether the lane has not yet made up for the time before its start."""
        return self.restoring or self._outage

    def missing_rows(self) -> list[str]:
        """Name the rows that the lane still waits for."""
        restore = self._restore  # another thread may ask, too
        return [] if restore is None else restore.missing()

    def lag_ms(self, now_ms: int) -> int | None:
        """Return how far the lane's time is behind now_ms, or None while that is not known.

        A lane without sessions fires nothing: its time is what its clock says.
        """
        if self.fired_ms != NEVER_MS and (self.table.wheel or self.resuming):
            return now_ms - self.fired_ms
        time_ms = self.clock.time_ms(now_ms)
        return None if time_ms is None else now_ms - time_ms

    def hear(self, report: PartitionProgress) -> None:
        """Take in what a source partition says of itself."""
        self.clock.hear(report)

    def apply(self, facts: list[Fact], now_ms: int) -> LaneOutput:
        """Store facts, then act on them; while rows are missing they are stored and wait."""
        output = LaneOutput()
        if not self.restoring:
            self._catch_time(now_ms)
        # A moved lane has bases to restore before its first segment has begun.
        if self._journal.full() and (not self.restoring or self._journal.segment < 0):
            self._turn(output)
        chunk = JournalEntry(self.fired(), facts)
        output.rows.append(self._journal.append(encode_chunk(chunk)))
        if self.restoring:
            self._waiting.append(facts)
        else:
            self._act(facts, output, now_ms)
        return output

    def _turn(self, output: LaneOutput) -> None:
        group = self._journal.turn()
        if group is not None:
            blob = encode_sessions(self.table.sessions(group))
            output.rows.append(self._journal.base(group, blob))

    def _act(self, facts: list[Fact], output: LaneOutput, now_ms: int) -> None:
        fired = self.fired()
        after_outage = Watermark(self.fired_ms)
        for fact in facts:
            # What is stamped ahead of now ends after the outage: no heartbeat is left out.
            output.add(self.table.apply(fact, fired if fact.time_ms <= now_ms else after_outage))

    def fired(self) -> Watermark:
        """Say how far time has come, as facts are applied by it."""
        return Watermark(self.fired_ms, self._outage and self._rules.catch_up == "latest")

    def _catch_time(self, now_ms: int) -> None:
        """Let time pass at once for a lane without sessions, for which nothing can be due."""
        if not self.table.wheel and not self._outage:
            self.fired_ms = max(self.fired_ms, self.clock.time_ms(now_ms) or NEVER_MS)

    def advance(self, now_ms: int) -> LaneOutput:
        """Fire what has become due; a call with a lot to do leaves the rest to the next one."""
        output = LaneOutput()
        time_ms = self.clock.time_ms(now_ms)
        if self.restoring or time_ms is None:
            return output
        if self._outage:
            self._outage_end_ms = self._outage_end_ms or now_ms
            if self._rules.catch_up == "latest" and time_ms < self._outage_end_ms:
                return output
        self._leap(output, time_ms)
        if time_ms > self.fired_ms:
            self.fired_ms = self.table.fire(self.fired_ms, time_ms, output.records, FIRE_LIMIT)
        if self.clock.live:
            output.records.settled_ms = self.fired_ms
        return output

    def _leap(self, output: LaneOutput, time_ms: int) -> None:
        """Pass over a step of time that is not to be gone through moment by moment."""
        step_ms = time_ms - self.fired_ms
        beat_ms = self._rules.heartbeat_ms
        paused = self.clock.live and self.fired_ms != NEVER_MS and step_ms > PAUSE_MS
        outage = self._outage or paused
        if outage and self._rules.catch_up == "latest" and step_ms > beat_ms:
            fired = Watermark(self.fired_ms, newest_only=True)
            output.add(self.table.fast_forward(fired, time_ms, timeouts_only=True))
            self.fired_ms = time_ms - beat_ms
        elif step_ms > self._rules.max_session_ms + beat_ms:
            output.add(
                self.table.fast_forward(Watermark(self.fired_ms), time_ms, timeouts_only=False)
            )
            self.fired_ms = time_ms
        self._outage = False

    def behind(self, now_ms: int) -> bool:
        """Say whether something that is due by now has been left to the next `advance`."""
        time_ms = self.clock.time_ms(now_ms)
        return not self.restoring and not self._outage and (time_ms or 0) > self.fired_ms

    def state(self) -> LaneState:
        """Return the lane's snapshot at the end of an epoch."""
        return LaneState(
            STATE_VERSION,
            self.lanes,
            self.lane,
            self.fired_ms,
            self._journal.state(),
            self._stored_waiting + len(self._waiting),
            KEY_GROUPS,
            dict(self._late_ms),
        )

    def restore(self, row: Row, now_ms: int) -> LaneOutput:
        """Take in a row of the store; after the last one, act on the facts that waited."""
        if self._restore is None:
            if isinstance(row, JournalRow) and row.segment < self._journal.oldest:
                return LaneOutput()  # no longer needed, so nothing has waited for it
            msg = (
                f"recovery store, lane {self.lane}: row {row.row} is there but the lane's own "
                "state is not; put back a whole copy of the recovery directory"
            )
            raise SnapshotError(msg)
        output = LaneOutput()
        if self._restore.take(row) and isinstance(row, BaseRow):
            sessions = decode_sessions(row.blob)
            output.add(self._make_up(row.group, sessions))
            self.table.load(row.group, sessions)
        self._finish_restore()
        if not self.restoring:
            for facts in self._waiting:
                self._act(facts, output, now_ms)
            self._waiting, self._stored_waiting = [], 0
        return output

    def _make_up(self, group: int, sessions: list[Session]) -> list[OutputEvent]:
        """Return what a group that was moved here from a lane behind this one still owes."""
        late_ms = self._late_ms.pop(group, None)
        if late_ms is None:
            return []
        table = SessionTable(self._rules, [group])
        table.load(group, sessions)
        fired = Watermark(late_ms, newest_only=self._rules.catch_up == "latest")
        return table.fast_forward(fired, self.fired_ms, timeouts_only=False)

    def _finish_restore(self) -> None:
        """Once every row is there, replay the facts that the bases do not have yet."""
        if self._restore is None or not self._restore.done():
            return
        rows = sorted(self._restore.journal.items())
        chunks = [(segment, data) for segment, row in rows for data in row.chunks]
        acted = len(chunks) - self._stored_waiting
        for segment, data in chunks[:acted]:
            chunk = decode_chunk(data)
            for fact in chunk.facts:
                if segment > self._journal.through.get(key_group_of(fact.device_id), -1):
                    self.table.apply(fact, chunk.fired)
        self._waiting[:0] = [decode_chunk(data).facts for _, data in chunks[acted:]]
        # A timeout that was fired after the base was written is not announced again.
        self.table.fast_forward(Watermark(self.fired_ms), self.fired_ms, timeouts_only=True)
        self.table.counts.clear()
        self._restore = None


def read_lane_state(stored: list[Any]) -> LaneState:
    """Return the state in plain stored values; raises SnapshotError if they are not one."""
    try:
        if stored[0] > STATE_VERSION:
            msg = (
                f"recovery store: state version {stored[0]} is newer than this program knows "
                f"({STATE_VERSION}); run the version of Heartwheel that wrote it, or a later one"
            )
            raise SnapshotError(msg)
        return convert(stored, LaneState)
    except (ValidationError, TypeError, LookupError) as error:
        msg = (
            f"recovery store: the state of a lane cannot be read ({error}); put back a whole "
            "copy of the recovery directory"
        )
        raise SnapshotError(msg) from None


def check_state(state: LaneState, lanes: int) -> None:
    """Raise ConfigError if a state was stored for another number of lanes or groups."""
    if state.groups != KEY_GROUPS:
        msg = (
            f"the recovery store was made for {state.groups} groups of devices, this program has "
            f"{KEY_GROUPS}; run the version of Heartwheel that wrote it"
        )
        raise ConfigError(msg)
    if state.lanes != lanes:
        msg = (
            f"HEARTWHEEL_LANES is {lanes}, but the recovery store was made for {state.lanes}; set "
            f"it back to {state.lanes}, or move to {lanes} lanes with `heartwheel store migrate "
            f"--lanes {lanes}` and a new output topic"
        )
        raise ConfigError(msg)
