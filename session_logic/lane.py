"""One lane: its table, clock and journal, and the order in which they are used.

A lane is an output partition, with a fixed part of the devices. What it guarantees: the records
of a lane follow from its facts, in the order in which they are applied, and from the moments at
which time passes; a lane that is stopped anywhere and restored from its last snapshot sends what
it would have sent without the stop. A record that comes twice by that has the same content.

Time (session_logic.lane_time). `advance` raises the watermark to the time of the lane's clock, and
fires what lies between; `apply` applies facts under the watermark there is. While rows of the store
are missing, facts are stored and wait.

Order. What comes first is decided by time, not by the moment of processing: a fact that ends a
session first fires what that session owes up to the fact's time. A fact that is older than the
watermark comes too late for that, because heartbeats after it are out already; it is applied as
if it had come then.

Silence. A session that nothing is heard of ends by time as well (session_logic.silence), but
silence counts only from the end of the last outage on, and a long stop is one
(session_logic.hearing). When that moment moves, it is stored with the next entry of the journal,
and counts from there on. It depends on what was known when, so whatever follows from it rests on
the state: it is sent once that is stored.
Ends for silence that a run which crashed has sent are learned from the output, and come about as
they were (session_logic.silent_ends).

Storing. `apply` appends facts to the journal before it acts on them, with the watermark under
which it does. A replay of the journal needs nothing else, so state() is a few numbers.

Other rules. A lane is restored by the rules that its state names, and then goes over to those of
this run (session_logic.handover). A session that is over the maximum at once ends after the
watermark. Every base is written anew then, so no later restore needs the rules of before.

What would break it: a fact applied but not appended; a watermark that falls while the journal has
entries of before; a record that depends on anything but facts, rules and watermarks (the moment of
processing, the order of a dict).
"""

from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter

from msgspec import Struct, field
from msgspec.structs import replace

from session_logic.clock import Progress
from session_logic.codec import encode_entry, encode_output, encode_sessions
from session_logic.counts import Counts, PlatformNames
from session_logic.errors import RESTORE_COPY, SnapshotError
from session_logic.events import Fact, JournalEntry, OutputEvent, SessionName, Watermark
from session_logic.handover import handed_over, sent_until, settled, with_intervals_of
from session_logic.hearing import Hearing
from session_logic.journal import Journal, JournalRow, Row
from session_logic.keys import KEY_GROUPS, LaneKeys, key_groups_of
from session_logic.lane_time import NEVER_MS, PAUSE_MS, LaneTime, Phase
from session_logic.output import OutputBatch, batch_with
from session_logic.restoring import (
    STALLING_VERSION,
    LaneState,
    Restoration,
    check_state,
    state_version,
    stored_rules,
)
from session_logic.rules import Rules
from session_logic.silent_ends import SilentEnds
from session_logic.table import SessionTable
from session_logic.transitions import apply_fact, changes_nothing

_CARRIED = attrgetter("carried")
_IDLE_TIMEOUT = attrgetter("idle_timeout_ms")
_PING = attrgetter("ping")
# One call fires at most about this many records, so that input is read and sent in between.
MAX_FIRED_RECORDS = 20_000


class LaneOutput(Struct, gc=False):
    """What a call to a lane brings about: records to send and rows to store, each in order."""

    records: OutputBatch = field(default_factory=OutputBatch)
    rows: list[Row] = []

    def add(self, events: list[OutputEvent]) -> None:
        """Add records."""
        for event in events:
            self.records.add(event, encode_output(event))


class Lane:
    """The sessions of one lane, from its facts and the time."""

    def __init__(
        self,
        lane: int,
        lanes: int,
        rules: Rules,
        state: LaneState | None = None,
        now_ms: int | None = None,
        *,
        platforms: PlatformNames | None = None,
        wants_silent_ends: bool = False,
    ) -> None:
        """Make a lane, new or from its state; then it first wants its rows.

        Without now_ms, a state is taken as it is, whatever the time. Lanes may share platforms.
        With wants_silent_ends it is restored once it has learned of them as well.
        Raises StateMismatchError if the state was stored for another number of lanes.
        """
        if state is not None:
            check_state(state, lanes)
        self.lane = lane
        self.lanes = lanes
        self._wanted_rules = rules
        self._rules = rules if state is None else state.rules_or(rules)
        groups = key_groups_of(lane, lanes)
        self.table = SessionTable(self._rules, groups, Counts(platforms), LaneKeys(lane, lanes))
        self._journal = Journal(lane, lanes, None if state is None else state.journal)
        if state is None:
            self.time = LaneTime(NEVER_MS, 0, Hearing(0, ran_before=False))
        else:
            hearing = Hearing(state.hearing_ms, ran_before=True)
            self.time = LaneTime(state.watermark_ms, state.next_group, hearing)
        self.set_back_ms = 0  # by how much the clock of the run before was ahead
        self._silent_ends = SilentEnds(wanted=wants_silent_ends and state is not None)
        self._restoration: Restoration | None = None
        if state is not None:
            self.time.phase = Phase.RESTORING
            self.table.carries, self.table.listens = state.carries, state.listens
            if state.journal.segment < 0:  # of a moved lane, which has no entry to tell
                self.table.wheel.silence.hearing_ms = state.hearing_ms
            self._restoration = Restoration(state, self._journal.oldest, self.table, self._rules)
            self._finish_restoring(LaneOutput(), self.watermark_ms if now_ms is None else now_ms)

    @property
    def watermark_ms(self) -> int:
        """How far time has come."""
        return self.time.watermark_ms

    @property
    def restoring(self) -> bool:
        """Whether rows are still missing; facts wait until then."""
        return self.time.phase is Phase.RESTORING

    @property
    def resuming(self) -> bool:
        """Whether the lane has not yet caught up with the time before its start."""
        return self.time.resuming

    @property
    def wants_silent_ends(self) -> bool:
        """Whether `learn_silent_ends` is still to be called."""
        return self._silent_ends.wanted

    @property
    def hearing_ms(self) -> int:
        """The moment before which silence does not count."""
        return self.time.hearing.since_ms

    @property
    def reached_ms(self) -> int:
        """How far time has ever come, by a clock that was ahead as well."""
        return max(self.watermark_ms, *self._rules.sent_ms)

    def missing_rows(self) -> list[str]:
        """Name the rows that the lane still waits for."""
        restoration = self._restoration  # another thread may ask, too
        return [] if restoration is None else restoration.missing()

    def lag_ms(self, now_ms: int) -> int | None:
        """Return how far the lane's time is behind now_ms, or None while that is not known."""
        return self.time.lag_ms(now_ms, has_sessions=bool(self.table.wheel))

    def _output(self) -> LaneOutput:
        """Return room for what a call brings about."""
        return LaneOutput(batch_with(self._rules.apart, self._rules.max_session_ms))

    def update(self, progress: Progress) -> None:
        """Take in how far a source has come with its partitions."""
        self.time.clock.update(progress)

    # What facts do.

    def apply(self, facts: list[Fact], now_ms: int) -> LaneOutput:
        """Store facts, then act on them; while rows are missing they are stored and wait."""
        output = self._output()
        if not self.table.carries:
            self.table.carries = any(map(_CARRIED, facts))
        if not self.table.listens:
            self.table.listens = any(map(_IDLE_TIMEOUT, facts))
        if not self.resuming:
            self._let_idle_time_pass(now_ms)
        begin = 0
        for place, time_ms in self._outages(facts, now_ms) if self.table.listens else ():
            self._take_in(facts[begin:place], output, now_ms)
            self._hear_anew(time_ms, output)
            begin = place
        self._take_in(facts[begin:], output, now_ms)
        return output

    def _outages(self, facts: list[Fact], now_ms: int) -> Iterator[tuple[int, int]]:
        """Yield the place and the time of each fact before which there was an outage."""
        for place, fact in enumerate(facts):
            time_ms = min(fact.time_ms, now_ms)
            if self.time.hearing.note_fact(time_ms, self.watermark_ms, now_ms):
                yield place, time_ms

    def _hear_anew(self, time_ms: int, output: LaneOutput) -> None:
        """Let silence begin anew at the end of an outage, and store that it does.

        It never begins earlier than was noted before: sessions have their slots by that.
        """
        hearing = self.time.hearing
        if not hearing.deaf:
            time_ms = max(time_ms, hearing.since_ms)
        hearing.since_ms = time_ms
        output.records.rests_on_state = True
        if not self.restoring:  # before it is stored: a base that goes with it is of after that
            self.table.hear_anew(time_ms)
        self._append([], output)

    def _take_in(self, facts: list[Fact], output: LaneOutput, now_ms: int) -> None:
        """Store facts, and act on them or let them wait."""
        if self.restoring:
            self._append(facts, output)
        elif self._silent_ends or any(map(_PING, facts)):
            self._take_in_one_by_one(facts, output, now_ms)
        elif facts:
            self._append(facts, output)
            self._act(facts, output, now_ms)

    def _append(self, facts: list[Fact], output: LaneOutput) -> None:
        """Store facts as an entry of the journal; while rows are missing they wait as well."""
        # A moved lane has bases to restore before its first segment has begun.
        if self._journal.full() and (not self.restoring or self._journal.segment < 0):
            self._roll(output)
        entry = JournalEntry(self.watermark(), facts, self.hearing_ms)
        output.rows.append(self._journal.append(encode_entry(entry)))
        if self._restoration is not None:
            self._restoration.wait(entry)

    def _take_in_one_by_one(self, facts: list[Fact], output: LaneOutput, now_ms: int) -> None:
        """Act on facts one by one, and store them without the pings that change nothing."""
        watermark = self.watermark()
        stored: list[Fact] = []
        for fact, is_sent in self._silent_ends.before(facts, self.table):
            if fact.ping and changes_nothing(self.table, fact, watermark):
                continue
            if not stored and self._journal.full():
                self._roll(output)  # a base is of the moment before what is stored after it
            stored.append(fact)
            self._act([fact], output, now_ms, are_sent=is_sent)
        if stored:
            self._append(stored, output)

    def learn_silent_ends(self, ends_ms: Mapping[SessionName, int], now_ms: int) -> LaneOutput:
        """Take in which ends for silence are out, beyond the state; this may end the restoring."""
        output = self._output()
        self._silent_ends.learn(ends_ms)
        self._finish_restoring(output, now_ms)
        return output

    def _end_as_sent(self, output: LaneOutput, time_ms: int, now_ms: int) -> None:
        """End the sessions whose ends are out and due; of others there is nothing more to know."""
        ends = self._silent_ends.due(time_ms, self.table)
        if ends:
            self._append(ends, output)
            self._act(ends, output, now_ms, are_sent=True)
        if self.time.clock.live:
            self._silent_ends.forget(time_ms)

    def _let_idle_time_pass(self, now_ms: int) -> None:
        """Raise the watermark at once for a lane without sessions, in which nothing can be due."""
        time_ms = self.time.clock.time_ms(now_ms) or NEVER_MS
        if time_ms > self.watermark_ms and not self.table.wheel:
            self.time.come_to(Watermark(time_ms))

    def _roll(self, output: LaneOutput) -> None:
        """Begin a new segment of the journal, and write the base of the group whose turn it is."""
        group = self._journal.roll()
        if group is not None:
            blob = encode_sessions(self.table.sessions(group))
            output.rows.append(self._journal.base(group, blob))

    def _act(
        self, facts: list[Fact], output: LaneOutput, now_ms: int, *, are_sent: bool = False
    ) -> None:
        """Act on facts; are_sent: they are ends for silence that are out."""
        self.table.counts.are_sent = are_sent
        watermark = self.watermark()
        after_outage = replace(watermark, newest_only=False)
        for fact in facts:
            # A timestamp ahead of now is after the outage: no heartbeat is left out.
            ahead = fact.time_ms > now_ms
            output.add(apply_fact(self.table, fact, after_outage if ahead else watermark))

    def watermark(self) -> Watermark:
        """Return how far time has come, as facts are applied by it."""
        return self.time.watermark(self._rules)

    # What time does.

    def advance(self, now_ms: int) -> LaneOutput:
        """Fire what has become due; a call with a lot to do leaves the rest to the next one."""
        output = self._output()
        time = self.time
        time_ms = time.may_come_to(now_ms, self._rules)
        if time_ms is None:
            return output
        if self._silent_ends:
            self._end_as_sent(output, time_ms, now_ms)
        before = self.watermark()
        if before.next_group:
            self._fire(output, min(time_ms, before.upto_ms + 1))
            time.note_turn(before, time_ms, now_ms)
            return output
        self._leap(output, time_ms, now_ms)
        time.phase = Phase.LIVE
        self._fire(output, time_ms)
        time.note_turn(before, time_ms, now_ms)
        if time.clock.live:
            output.records.complete_up_to_ms = time.watermark_ms
        return output

    def _fire(self, output: LaneOutput, upto_ms: int) -> None:
        """Let time pass, moment by moment, as far as one call should."""
        time = self.time
        if upto_ms > time.watermark_ms:
            limit = output.records.count() + MAX_FIRED_RECORDS
            watermark = Watermark(time.watermark_ms, next_group=time.next_group)
            time.come_to(self.table.fire(watermark, upto_ms, output.records, limit))

    def _leap(self, output: LaneOutput, time_ms: int, now_ms: int) -> None:
        """Raise the watermark in one step where time is not to pass moment by moment."""
        time = self.time
        if self.table.listens:
            heard_ms = time.heard_from(time_ms, now_ms)
            if heard_ms is not None:
                self._hear_anew(heard_ms, output)
        leap = time.leap(time_ms, self._rules)
        if leap is not None:
            timeouts_only = leap.timeouts_only
            output.add(
                self.table.fast_forward(leap.watermark, time_ms, timeouts_only=timeouts_only)
            )
            time.watermark_ms = leap.then_ms

    def behind(self, now_ms: int) -> bool:
        """Say whether something that is due by now has been left to the next `advance`."""
        return (self.time.may_come_to(now_ms, self._rules) or NEVER_MS) > self.watermark_ms

    # What is stored and restored.

    def state(self) -> LaneState:
        """Return the lane's snapshot at the end of an epoch."""
        restoration = self._restoration
        return LaneState(
            version=self._state_version(),
            lanes=self.lanes,
            lane=self.lane,
            watermark_ms=self.watermark_ms,
            journal=self._journal.state(),
            waiting=0 if restoration is None else restoration.waiting,
            groups=KEY_GROUPS,
            moved_watermarks={} if restoration is None else dict(restoration.moved_watermarks),
            rules=stored_rules(self._rules),
            next_group=self.time.next_group,
            carries=self.table.carries,
            listens=self.table.listens,
            hearing_ms=self.hearing_ms,
        )

    def _state_version(self) -> int:
        """Return the version of the state; one of before stays until its journal is done with."""
        if self._restoration is not None and self._restoration.is_stalling:
            return STALLING_VERSION
        return state_version(carries=self.table.carries, listens=self.table.listens)

    def restore(self, row: Row, now_ms: int) -> LaneOutput:
        """Take in a row of the store; after the last one, act on the facts that waited."""
        if self._restoration is None:
            if isinstance(row, JournalRow) and row.segment < self._journal.oldest:
                return LaneOutput()  # no longer needed, so nothing has waited for it
            msg = (
                f"recovery store, lane {self.lane}: row {row.row} is there but the lane's own "
                f"state is not; {RESTORE_COPY}"
            )
            raise SnapshotError(msg)
        output = self._output()
        output.add(self._restoration.take(row))
        self._finish_restoring(output, now_ms)
        return output

    def _finish_restoring(self, output: LaneOutput, now_ms: int) -> None:
        """Once every row is there, act on the facts that waited."""
        restoration = self._restoration
        if restoration is None or self._silent_ends.wanted or not restoration.done():
            return
        waiting = restoration.finish()
        self._restoration = None
        stored = stored_rules(self._rules)
        self._set_back(output, now_ms)
        ended = self._act_on_waiting(waiting, output, now_ms)
        self._change_rules(output)
        if self._journal.stored() and (
            restoration.is_stalling or stored_rules(self._rules) != stored
        ):
            self._rewrite_bases(output, self.table.groups)
        elif ended:
            self._rewrite_bases(output, ended)
        # Only now: who looks from another thread finds one table.
        self.time.phase = Phase.CATCHING_UP

    def _act_on_waiting(
        self, waiting: list[JournalEntry], output: LaneOutput, now_ms: int
    ) -> list[int]:
        """Act on facts that are stored; return the key groups in which ends came between them."""
        groups = set[int]()
        for entry in waiting:
            if entry.hearing_ms != self.table.wheel.silence.hearing_ms:
                self.table.hear_anew(entry.hearing_ms)
            for fact, is_sent in self._silent_ends.before(entry.facts, self.table):
                self._act([fact], output, now_ms, are_sent=is_sent)
                if is_sent:
                    groups.add(self.table.keys.group_of(fact.device_id))
        return sorted(groups)

    def _set_back(self, output: LaneOutput, now_ms: int) -> None:
        """Lower the watermark to now, if the clock of the run before was ahead of it."""
        if self.watermark_ms - now_ms <= min(PAUSE_MS, *self._rules.turns_ms):
            return
        while self.time.next_group:  # first the rest of the moment in which the run was stopped
            self._fire(output, self.watermark_ms + 1)
        self._rules, places = sent_until(self._rules, self.watermark_ms)
        self.table = handed_over(self.table, self._rules, self.watermark(), places)
        self.set_back_ms = self.watermark_ms - now_ms
        self.time.come_to(Watermark(now_ms))

    def _change_rules(self, output: LaneOutput) -> None:
        """Go over from the rules of the state to those of this run."""
        settled_rules, places = settled(self._rules, self.watermark_ms)
        rules = with_intervals_of(settled_rules, self._wanted_rules)
        if stored_rules(rules) != stored_rules(self._rules):
            self._rules = rules
            self.table = handed_over(self.table, rules, self.watermark(), places)
            output.add(self.table.end_overdue(self.watermark()))

    def _rewrite_bases(self, output: LaneOutput, groups: Iterable[int]) -> None:
        """Write the bases of key groups, so that no restore of these goes back to before now."""
        for group in groups:
            blob = encode_sessions(self.table.sessions(group))
            output.rows.append(self._journal.rewrite(group, blob))
        self._roll(output)
        self._append([], output)
