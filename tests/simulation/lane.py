"""A seeded simulation of one lane: random histories and crashes, compared with the slow model."""

import random
from collections import defaultdict
from copy import deepcopy
from typing import TYPE_CHECKING

from msgspec.structs import replace

from session_logic import hearing
from session_logic.clock import PartitionProgress
from session_logic.events import Fact, Heartbeat, OutputEvent, SessionActive, Watermark
from session_logic.keys import key_group_of
from session_logic.lane import Lane, LaneOutput
from session_logic.lane_time import NEVER_MS, PAUSE_MS, Phase
from session_logic.output import OutputBatch
from session_logic.restoring import read_lane_state
from session_logic.rules import QUIET_TURN_MS, Rules
from session_logic.silence import DEAF_MS
from tests.support.carrying import OF_ENDS, OF_STARTS
from tests.support.events import by_device, decoded
from tests.support.lanes import BEGIN_MS, DEVICES, LANE, LANES, Store
from tests.support.model import Model

if TYPE_CHECKING:
    from session_logic.journal import Row

PARTS = ("topic/0", "topic/1")


def check_contract(events: list[OutputEvent], some_rules: list[Rules]) -> None:
    """Check a device's output without any model: sessions whole, in order, one at a time.

    Rules may have changed; a session keeps the interval in which it began.
    """
    intervals_ms = {rules.heartbeat_ms for rules in some_rules}
    limits_ms = {rules.max_session_ms for rules in some_rules}
    every = all(rules.catch_up == "all" for rules in some_rules)
    active: SessionActive | None = None
    beat = beat_ms = interval_ms = 0
    for event in events:
        if isinstance(event, SessionActive):
            assert active is None
            assert event.time_ms == event.started_ms
            active, beat = event, 0
            continue
        assert active is not None
        assert (event.session_id, event.started_ms) == (active.session_id, active.started_ms)
        if isinstance(event, Heartbeat):
            assert event.sequence > beat
            # Only one that was opened late may have missed heartbeats, and those come first.
            assert not every or beat == 0 or event.sequence == beat + 1
            assert beat == 0 or event.time_ms - beat_ms == (event.sequence - beat) * interval_ms
            beat, beat_ms = event.sequence, event.time_ms
            interval_ms = (beat_ms - event.started_ms) // beat
            assert interval_ms in intervals_ms - {0}
            assert beat_ms == event.started_ms + beat * interval_ms
            assert beat_ms < event.started_ms + max(limits_ms)
        else:
            silent = event.reason == "went_silent"
            last_ms = event.last_seen_ms if silent else event.time_ms
            assert event.duration_ms == last_ms - event.started_ms >= 0
            assert beat == 0 or event.time_ms >= beat_ms
            assert not silent or event.time_ms > last_ms
            if len(limits_ms) == 1 and not silent:
                timed_out = event.duration_ms == max(limits_ms)
                assert timed_out is (event.reason == "timed_out")
            active = None
    assert active is None


def check_moments(records: OutputBatch) -> None:
    """Check that records say when their latency began: as often as there are records of a kind."""
    from_input, due = (
        [ms for ms, n in runs for _ in range(n)] for runs in (records.input_ms, records.due_ms)
    )
    events = decoded(records)
    timed = [
        e.time_ms
        for e in events
        if getattr(e, "reason", "") in {"timed_out", "went_silent"} or isinstance(e, Heartbeat)
    ]
    assert sorted(due) == sorted(timed)
    assert sorted(from_input + due) == sorted(event.time_ms for event in events)


class Ear:
    """When outages end, by the rule: told by what is heard, or by time that goes on."""

    def __init__(self, since_ms: int = 0, *, ran: bool = False) -> None:
        self.since_ms = since_ms
        self.newest_ms = NEVER_MS
        self.ran = ran
        self.abreast = self.was_abreast = False
        self.still_ms: int | None = None

    def stalled(self, now_ms: int) -> bool:
        """Say whether the lane has had turns in which time stood still, for so long."""
        if not self.was_abreast or self.still_ms is None:
            return False
        return now_ms > self.still_ms + hearing.STALL_MS

    def fact_was_deaf(self, time_ms: int, watermark_ms: int, now_ms: int) -> bool:
        """Say whether an outage ended before a fact; silence counts from there on then."""
        known_ms = max(watermark_ms, self.since_ms)
        if self.was_abreast:
            is_short = self.abreast or self.stalled(now_ms)
            deaf = time_ms > known_ms + (hearing.STALL_MS if is_short else hearing.GAP_MS)
        else:
            deaf = self.ran and time_ms > max(known_ms, self.newest_ms) + hearing.GAP_MS
        if deaf:
            self.since_ms = time_ms
        return deaf

    def hears_anew(self, time_ms: int, watermark_ms: int, now_ms: int, *, live: bool) -> bool:
        """Say whether time that comes to a moment changes from when on silence counts."""
        before_ms, known_ms = self.since_ms, max(watermark_ms, self.since_ms)
        new = not self.ran or self.was_abreast or watermark_ms == NEVER_MS
        restarted = not new and now_ms > known_ms + hearing.RESTART_MS
        if before_ms == DEAF_MS:
            self.since_ms = time_ms if live else DEAF_MS
        elif restarted and not live:
            self.since_ms = DEAF_MS
        elif restarted or (self.stalled(now_ms) and time_ms > watermark_ms):
            self.since_ms = max(self.since_ms, now_ms)
        elif self.was_abreast:
            limit_ms = hearing.STALL_MS if self.abreast else hearing.GAP_MS
            if time_ms > watermark_ms + limit_ms:
                self.since_ms = max(self.since_ms, time_ms)
        return self.since_ms != before_ms


class Simulation:
    """One history; `run` raises AssertionError where lane and model differ."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        # In some histories facts carry fields, and some ends have no session id.
        self._choose_carried = random.Random(f"carried {seed}")
        self._carries = self._choose_carried.random() < 0.4
        self._nameless = self._choose_carried.choice([0, 0.3, 1])
        # In some, sessions end when nothing is heard of them.
        self._choose_heard = random.Random(f"heard {seed}")
        self._listens = self._choose_heard.random() < 0.5
        self.rules = self.some_rules()
        self.all_rules = [self.rules]
        self.now_ms = self.latest_ms = BEGIN_MS
        self.lane = Lane(LANE, LANES, self.rules)
        self.model = Model(self.rules)
        self.store = Store()
        self.saved = deepcopy(self.model)
        self.reports: dict[str, int | None] = {}
        self.ear = Ear()
        self.listening = self.saved_listening = False
        self.saved_since_ms = 0
        self.waiting: list[Fact | int] = []
        self.saved_waiting: list[Fact | int] = []
        self.to_restore: list[Row] = []
        self.stored = Watermark(NEVER_MS)
        self.history: defaultdict[str, list[OutputEvent]] = defaultdict(list)
        self.saved_history: dict[str, int] = {}
        self.sent = 0

    def some_rules(self) -> Rules:
        """Return rules that a run may have."""
        choose = self.random.choice
        heartbeat_ms = self.beat_ms = choose([7, 30, 1_000])
        quiet = self._listens and self._choose_heard.random() < 0.2
        return Rules(
            0 if quiet else heartbeat_ms,
            heartbeat_ms * choose([1, 2, 5, 40]) + choose([0, 0, 1, heartbeat_ms // 2]),
            choose([0, heartbeat_ms, 5 * heartbeat_ms]),
            choose(["latest", "all"]),
            carry_in_heartbeats=self._choose_carried.random() < 0.8,
        )

    def run(self, steps: int) -> None:
        """Take random steps."""
        names = ["facts", "pass_time", "report", "commit", "crash", "restore_row"]
        weights = [30, 40, 6, 12, 3, 9]
        for _ in range(steps):
            getattr(self, self.random.choices(names, weights)[0])()
        self.finish()

    def finish(self) -> None:
        """Restore what is left, let every session time out, and look for leaks."""
        while self.to_restore:
            self.restore_row()
        for part in PARTS:
            self._report(part, None)
        life_ms = max(r.max_session_ms + r.deduplication_window_ms for r in self.all_rules)
        self.now_ms = max(self.now_ms, self.latest_ms)  # what a clock that was ahead has stamped
        # At last moment by moment, once round for the longest interval: what has ended is dropped.
        moments_ms = min(self.rules.max_session_ms, PAUSE_MS)  # a longer step is a jump
        rounds = [moments_ms] * (2 * max(self.turns_ms) // moments_ms + 2)
        for step_ms in (2 * life_ms, 2 * life_ms, *rounds):
            self.now_ms += step_ms
            self.advance()
            while self.lane.behind(self.now_ms):
                self.advance()
        assert self.lane.table.active == 0
        assert not self.lane.table.wheel
        for events in self.history.values():
            check_contract(events, self.all_rules)

    def a_fact(self) -> Fact:
        """Return a fact for a few devices and sessions, with a time at or beside a boundary."""
        choose, rules = self.random.choice, self.rules
        device = choose(DEVICES)
        late_ms, ahead_ms = -2 * self.beat_ms, self.beat_ms
        time_ms = self.now_ms + choose([0, 0, 0, -1, 1, -3, 5, late_ms, ahead_ms, 2 * ahead_ms + 1])
        if self.random.random() < 0.3:  # timestamps of whole seconds: many share a moment
            time_ms -= time_ms % self.beat_ms
        lives = self.model.lives.get(device)
        if lives and self.random.random() < 0.4:
            edge_ms = choose([self.beat_ms, 2 * self.beat_ms, rules.max_session_ms])
            time_ms = lives[-1].fact.time_ms + edge_ms + choose([-1, 0, 1])
        session = f"{device}-{self.random.randrange(6)}"
        created = self.random.random() < 0.5
        is_start = self.random.random() < 0.6
        return self._heard(
            self._carrying(Fact(is_start, device, session, "pc", max(1, time_ms), created))
        )

    def _heard(self, fact: Fact) -> Fact:
        """Return a fact as it is where sessions end for silence: some are pings."""
        choose, heartbeat_ms = self._choose_heard, self.beat_ms
        if not self._listens:
            return fact
        idle_ms = choose.choice([0, heartbeat_ms // 2, 2 * heartbeat_ms, 5 * heartbeat_ms + 3])
        lives, time_ms = self.model.lives.get(fact.device_id), fact.time_ms
        if lives and choose.random() < 0.4:
            due_ms = lives[-1].last_seen_ms + lives[-1].fact.idle_timeout_ms
            due_ms = min(due_ms, self.now_ms + 2 * heartbeat_ms)
            time_ms = max(1, due_ms + choose.choice([-1, 0, 1, -heartbeat_ms]))
        fact = replace(fact, time_ms=time_ms, idle_timeout_ms=idle_ms)
        if choose.random() < 0.6:
            return fact
        opens = fact.is_start and choose.random() < 0.5
        session_id = fact.session_id
        if lives and choose.random() < 0.7:
            session_id = lives[-1].fact.session_id
        if choose.random() < 0.3:
            session_id = ""
        carried = fact.carried if opens else b""
        return replace(fact, is_start=opens, session_id=session_id, ping=True, carried=carried)

    def _carrying(self, fact: Fact) -> Fact:
        """Return a fact as it is where facts carry fields, and ends may have no session id."""
        choice = self._choose_carried
        if not self._carries:
            return fact
        if fact.is_start:
            return replace(fact, carried=choice.choice(OF_STARTS))
        nameless = choice.random() < self._nameless
        session_id = "" if nameless else fact.session_id
        return replace(fact, session_id=session_id, carried=choice.choice(OF_ENDS))

    def facts(self) -> None:
        """Give some facts to lane and model."""
        facts = [self.a_fact() for _ in range(self.random.randrange(1, 5))]
        output = self.lane.apply(facts, self.now_ms)
        self.store.write(output.rows)
        heard = self._with_outages(facts)
        if self.lane.restoring:
            self.waiting += heard
            assert not output.records.count()
        else:
            self._compare(self._facts_want(heard), output)

    def _with_outages(self, facts: list[Fact]) -> list[Fact | int]:
        """Return facts with the moments at which silence begins anew between them."""
        heard: list[Fact | int] = []
        self.listening = self.listening or any(fact.idle_timeout_ms for fact in facts)
        for fact in facts:
            time_ms = min(fact.time_ms, self.now_ms)
            if self.listening:
                if self.ear.fact_was_deaf(time_ms, self.lane.watermark_ms, self.now_ms):
                    heard.append(time_ms)
                self.ear.newest_ms = max(self.ear.newest_ms, time_ms)
            heard.append(fact)
        return heard

    def _facts_want(self, facts: list[Fact | int]) -> list[OutputEvent]:
        """Return what the model wants of facts, and where silence begins anew."""
        want = []
        for fact in facts:
            if isinstance(fact, int):
                self.model.hearing_ms = fact
                continue
            fired = self.lane.watermark().of(key_group_of(fact.device_id))
            ahead = fact.time_ms > self.now_ms
            want += self.model.apply(fact, Watermark(fired.upto_ms) if ahead else fired)
        return want

    def pass_time(self) -> None:
        """Let time pass, often to a boundary."""
        heartbeat_ms = self.beat_ms
        steps = [0, 1, heartbeat_ms - 1, heartbeat_ms, heartbeat_ms + 1, 3 * heartbeat_ms]
        self.now_ms += self.random.choice([*steps, self.rules.max_session_ms])
        self.advance()

    def advance(self) -> None:
        """Advance lane and model to now, or to where the lane has left the rest for later."""
        before = self.lane.watermark()
        time_ms = self.time_ms()
        output = self.lane.advance(self.now_ms)
        self.store.write(output.rows)
        if self.lane.restoring or time_ms is None:
            assert not output.records.count()
            return
        self._hear_anew(before, time_ms)
        jump = time_ms - before.upto_ms > max(self.model.intervals_ms) and not before.next_group
        paused = time_ms - before.upto_ms > PAUSE_MS
        outage = before.newest_only or (before.upto_ms != NEVER_MS and paused)
        newest_only = self.rules.catch_up == "latest" and outage and jump
        # What is due at once is taken in one step by the model: let the lane come to its end.
        while (
            newest_only
            and self.lane.watermark_ms > before.upto_ms
            and self.lane.behind(self.now_ms)
        ):
            more = self.lane.advance(self.now_ms)
            output.records.extend(more.records)
        after = self.lane.watermark()
        self.ear.abreast = self.live and after.upto_ms == time_ms
        self.ear.was_abreast = self.ear.was_abreast or self.ear.abreast
        moved = (after.upto_ms, after.next_group) != (before.upto_ms, before.next_group)
        self.ear.still_ms = None if moved else self.ear.still_ms or self.now_ms
        come = (after.upto_ms, after.next_group) > (before.upto_ms, before.next_group)
        assert come or (after.upto_ms, after.next_group) == (before.upto_ms, before.next_group)
        finished = before.next_group and not after.next_group  # a moment, and nothing else
        assert after.upto_ms == time_ms or output.records or finished or not come
        want = self._time_wants(before, after, newest_only=newest_only)
        self._compare(want, output)

    def _hear_anew(self, before: Watermark, time_ms: int) -> None:
        """Tell the model where time goes on after an outage."""
        if before.next_group or self.lane.time.phase is not Phase.LIVE:
            return
        come = time_ms, before.upto_ms, self.now_ms
        if self.listening and self.ear.hears_anew(*come, live=self.live):
            self.model.hearing_ms = self.ear.since_ms

    def _time_wants(
        self, before: Watermark, after: Watermark, *, newest_only: bool = False
    ) -> list[OutputEvent]:
        """Return what the model wants when time passes."""
        return [
            event
            for device in DEVICES
            for group in [key_group_of(device)]
            for event in self.model.advance(
                before.of(group).upto_ms,
                after.of(group).upto_ms,
                newest_only=newest_only,
                device_id=device,
            )
        ]

    @property
    def turns_ms(self) -> list[int]:
        """How long the wheel takes to come round, for each interval there was."""
        return [interval_ms or QUIET_TURN_MS for interval_ms in self.model.intervals_ms]

    @property
    def live(self) -> bool:
        """Whether every partition has been read to its end."""
        return [self.reports.get(part, 0) for part in PARTS] == [None] * len(PARTS)

    def time_ms(self) -> int | None:
        """Return the lane's time by the rule: the wall clock, or the least of those behind."""
        if len(self.reports) < len(PARTS):
            return None
        return min([self.now_ms, *(ms for ms in self.reports.values() if ms is not None)])

    def report(self) -> None:
        """Let a partition go live or fall behind."""
        behind_ms = self.now_ms - self.random.choice([0, 1, 5 * self.beat_ms])
        choices = [None, None, None, behind_ms]
        self._report(self.random.choice(PARTS), self.random.choice(choices))

    def _report(self, part: str, through_ms: int | None) -> None:
        self.reports[part] = through_ms
        self.lane.update(PartitionProgress(part, len(PARTS), through_ms))

    def commit(self) -> None:
        """End an epoch."""
        self.store.commit(self.lane)
        self.saved = deepcopy(self.model)
        self.saved_waiting = list(self.waiting)
        self.saved_since_ms, self.saved_listening = self.ear.since_ms, self.listening
        self.saved_history = {device: len(events) for device, events in self.history.items()}

    def crash(self) -> None:
        """Go back to the last epoch, with nothing but what is stored."""
        if self.store.state is None:
            return
        self.store.crash()
        self.model = deepcopy(self.saved)
        self.waiting = list(self.saved_waiting)
        self.ear = Ear(self.saved_since_ms, ran=True)
        self.listening = self.saved_listening
        self.reports = {}
        for device, events in self.history.items():
            del events[self.saved_history.get(device, 0) :]
        if self.random.random() < 0.3:
            self.rules = self.some_rules()
            self.all_rules.append(self.rules)
        # This one is not stored, so that of the run holds at once.
        in_heartbeats = self.rules.carry_in_heartbeats
        self.model.rules = replace(self.model.rules, carry_in_heartbeats=in_heartbeats)
        self.put_clock_right()
        state = read_lane_state(self.store.state)
        self.lane = Lane(LANE, LANES, self.rules, state, self.now_ms)
        self.stored = Watermark(state.watermark_ms, next_group=state.next_group)
        self.to_restore = list(self.store.rows.values())
        self.random.shuffle(self.to_restore)
        assert self.lane.restoring is bool(self.to_restore)
        if not self.to_restore:
            assert not self._set_back()
            assert not self.model.change_rules(self.rules, self.lane.watermark())

    def put_clock_right(self) -> None:
        """Let the clock have been ahead, in some of the crashes."""
        self.latest_ms = max(self.latest_ms, self.now_ms)
        if self.random.random() < 0.4:
            steps = [1, 2, 5, 50]
            self.now_ms -= self.random.choice(steps) * self.beat_ms + 1

    def _set_back(self) -> list[OutputEvent]:
        """Return what the model wants at a restore if the clock was ahead before it."""
        if self.stored.upto_ms - self.now_ms <= min(PAUSE_MS, *self.turns_ms):
            return []
        whole = Watermark(self.stored.upto_ms + (self.stored.next_group > 0))
        want = self._time_wants(self.stored, whole)
        self.model.set_back(whole)
        return want

    def restore_row(self) -> None:
        """Give the lane one of its rows back."""
        if not self.to_restore:
            return
        restoring = self.lane.restoring
        output = self.lane.restore(self.to_restore.pop(), self.now_ms)
        if self.lane.restoring:
            assert not output.records.count()
        elif restoring:
            want = self._set_back() + self._facts_want(self.waiting)
            self.waiting = []
            want += self.model.change_rules(self.rules, self.lane.watermark())
            self.store.write(output.rows)
            self._compare(want, output)

    def _compare(self, want: list[OutputEvent], output: LaneOutput) -> None:
        check_moments(output.records)
        assert sum(self.lane.table.platforms.values()) == self.lane.table.active
        got = decoded(output.records)
        assert by_device(got) == by_device(want)
        for event in got:
            self.history[event.device_id].append(event)
        self.sent += len(got)


def simulate(seed: int, steps: int = 150) -> Simulation:
    """Run one history; an error names the seed."""
    simulation = Simulation(seed)
    try:
        simulation.run(steps)
    except Exception as error:
        error.add_note(f"seed={seed} steps={steps} rules={simulation.rules}")
        raise
    return simulation
