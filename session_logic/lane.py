"""One lane: its table, clock and journal, and the order in which they are used."""

from typing import Any

from msgspec import Struct, ValidationError, convert, field

from session_logic.clock import LaneClock, Report
from session_logic.codec import (
    decode_chunk,
    decode_sessions,
    encode_chunk,
    encode_output,
    encode_sessions,
)
from session_logic.errors import ConfigError, SnapshotError
from session_logic.events import Chunk, Fact, Fired, OutputEvent, Records
from session_logic.journal import BaseRow, Journal, JournalState, Restore, Row
from session_logic.keys import group_of, groups_of
from session_logic.rules import Rules
from session_logic.table import SessionTable

STATE_VERSION = 2
NEVER_MS = -1
# A lane that stood still for longer, though it runs, has had an outage.
PAUSE_MS = 10_000
# One call fires at most about this many records, so that input is read and sent in between.
FIRE_LIMIT = 20_000


class LaneState(Struct, frozen=True, gc=False, array_like=True):
    """A lane's own snapshot: a few numbers; its sessions are in the rows that journal names.

    waiting counts the chunks at the end of the journal that have not been acted on.
    """

    version: int
    lanes: int
    lane: int
    fired_ms: int
    journal: JournalState
    waiting: int = 0


class LaneOutput(Struct, gc=False):
    """What a call to a lane brings about: records to send and rows to store, each in order."""

    records: Records = field(default_factory=lambda: Records([], []))
    rows: list[Row] = []

    def add(self, events: list[OutputEvent]) -> None:
        """Add records."""
        for event in events:
            self.records.keys.append(event.device_id)
            self.records.values.append(encode_output(event))


class Lane:
    """The sessions of one lane, from its facts and the time."""

    def __init__(self, lane: int, lanes: int, rules: Rules, state: LaneState | None = None) -> None:
        """Make a lane, new or from its state; then it first wants its rows.

        Raises ConfigError if the state was stored for another number of lanes.
        """
        if state is not None:
            _check(state, lanes)
        self.lane = lane
        self._lanes = lanes
        self._rules = rules
        self.table = SessionTable(rules, groups_of(lane, lanes))
        self.clock = LaneClock()
        self._journal = Journal(lane, lanes, None if state is None else state.journal)
        self.fired_ms = NEVER_MS if state is None else state.fired_ms
        # After an outage, nothing is fired before the lane's time has come to its end.
        self._outage = state is not None and state.fired_ms != NEVER_MS
        self._outage_end_ms: int | None = None
        self._restore: Restore | None = None
        self._waiting: list[Fact] = []
        # Chunks of the facts that wait: those of the state, and all.
        self._stored_chunks = self._waiting_chunks = 0 if state is None else state.waiting
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
        return [] if self._restore is None else self._restore.missing()

    def hear(self, report: Report) -> None:
        """Take in what a source partition says of itself."""
        self.clock.hear(report)

    def apply(self, facts: list[Fact], now_ms: int) -> LaneOutput:
        """Store facts, then act on them; while rows are missing they are stored and wait."""
        output = LaneOutput()
        if not self.restoring:
            self._catch_time(now_ms)
            if self._journal.full():
                self._turn(output)
        chunk = Chunk(self.fired(), facts)
        output.rows.append(self._journal.append(encode_chunk(chunk)))
        if self.restoring:
            self._waiting += facts
            self._waiting_chunks += 1
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
        after_outage = Fired(self.fired_ms)
        for fact in facts:
            # What is stamped ahead of now ends after the outage: no heartbeat is left out.
            output.add(self.table.apply(fact, fired if fact.time_ms <= now_ms else after_outage))

    def fired(self) -> Fired:
        """Say how far time has come, as facts are applied by it."""
        return Fired(self.fired_ms, self._outage and self._rules.catch_up == "latest")

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
            fired = Fired(self.fired_ms, newest_only=True)
            output.add(self.table.leap(fired, time_ms, timeouts_only=True))
            self.fired_ms = time_ms - beat_ms
        elif step_ms > self._rules.max_session_ms + beat_ms:
            output.add(self.table.leap(Fired(self.fired_ms), time_ms, timeouts_only=False))
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
            self._lanes,
            self.lane,
            self.fired_ms,
            self._journal.state(),
            self._waiting_chunks,
        )

    def restore(self, row: Row, now_ms: int) -> LaneOutput:
        """Take in a row of the store; after the last one, act on the facts that waited."""
        if self._restore is None:
            msg = (
                f"recovery store, lane {self.lane}: row {row.row} is there but the lane's own "
                "state is not; put back a whole copy of the recovery directory"
            )
            raise SnapshotError(msg)
        if self._restore.take(row) and isinstance(row, BaseRow):
            for session in decode_sessions(row.blob):
                self.table.put(session)
        output = LaneOutput()
        self._finish_restore()
        if not self.restoring:
            self._act(self._waiting, output, now_ms)
            self._waiting = []
            self._waiting_chunks = 0
        return output

    def _finish_restore(self) -> None:
        """Once every row is there, replay the facts that the bases do not have yet."""
        if self._restore is None or not self._restore.done():
            return
        stored: list[Fact] = []
        for segment, row in sorted(self._restore.journal.items()):
            last = segment == self._journal.segment
            acted = len(row.chunks) - (self._stored_chunks if last else 0)
            for index, data in enumerate(row.chunks):
                chunk = decode_chunk(data)
                if index >= acted:
                    stored += chunk.facts
                    continue
                for fact in chunk.facts:
                    if segment > self._journal.through.get(group_of(fact.device_id), -1):
                        self.table.apply(fact, chunk.fired)
        # A timeout that was fired after the base was written is not announced again.
        self.table.leap(Fired(self.fired_ms), self.fired_ms, timeouts_only=True)
        self.table.counts.clear()
        self._waiting = stored + self._waiting
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


def _check(state: LaneState, lanes: int) -> None:
    if state.lanes != lanes:
        msg = (
            f"HEARTWHEEL_LANES is {lanes}, but the recovery store was made for {state.lanes}; set "
            f"it back to {state.lanes}, or start with a new recovery directory and output topic"
        )
        raise ConfigError(msg)
