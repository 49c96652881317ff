"""A seeded simulation of one lane: random histories and crashes, compared with the slow model."""

import random
from collections import defaultdict
from copy import deepcopy

from msgspec import to_builtins

from session_logic.clock import Report
from session_logic.codec import decode_output
from session_logic.events import (
    Fact,
    Fired,
    OutputEvent,
    Records,
)
from session_logic.journal import JournalRow, Row
from session_logic.keys import group_of, lane_of
from session_logic.lane import NEVER_MS, PAUSE_MS, Lane, LaneOutput, read_lane_state
from session_logic.rules import Rules
from tests.model import Model

LANES = 64  # few groups to a lane, so that the journal's ring comes round often
LANE = 5
BEGIN_MS = 1_700_000_000_000
DEVICES = [
    name for name in map("d{}".format, range(2_000)) if lane_of(group_of(name), LANES) == LANE
][:12]


def decoded(records: Records) -> list[OutputEvent]:
    """Return records as events; each key must be its record's device."""
    events = [decode_output(value) for value in records.values]
    assert [event.device_id for event in events] == records.keys
    return events


def by_device(events: list[OutputEvent]) -> dict[str, list[OutputEvent]]:
    """Sort events by device; the order of a device's events is kept."""
    sorted_events: defaultdict[str, list[OutputEvent]] = defaultdict(list)
    for event in events:
        sorted_events[event.device_id].append(event)
    return dict(sorted_events)


class Store:
    """What Bytewax would keep: rows and the lane's state, as of the last epoch."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.state: list[object] | None = None
        self._written: list[Row] = []

    def write(self, rows: list[Row]) -> None:
        """Take rows in; they count from the end of the epoch."""
        self._written += rows

    def commit(self, lane: Lane) -> None:
        """End the epoch."""
        for row in self._written:
            known = self.rows.get(row.row)
            if (
                isinstance(row, JournalRow)
                and isinstance(known, JournalRow)
                and known.segment == row.segment
            ):
                row = JournalRow(row.lane, row.slot, row.segment, known.chunks + row.chunks)
            self.rows[row.row] = row
        self._written = []
        self.state = to_builtins(lane.state())

    def crash(self) -> None:
        """Lose what was not committed."""
        self._written = []


class Simulation:
    """One history; `run` raises AssertionError where lane and model differ."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        choose = self.random.choice
        heartbeat_ms = choose([7, 30, 1_000])
        self.rules = Rules(
            heartbeat_ms,
            heartbeat_ms * choose([1, 2, 5, 40]) + choose([0, 0, 1, heartbeat_ms // 2]),
            choose([0, heartbeat_ms, 5 * heartbeat_ms]),
            choose(["latest", "all"]),
        )
        self.now_ms = BEGIN_MS
        self.lane = Lane(LANE, LANES, self.rules)
        self.model = Model(self.rules)
        self.store = Store()
        self.saved = deepcopy(self.model)
        self.live = False
        self.waiting: list[Fact] = []
        self.to_restore: list[Row] = []
        self.sent = 0

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
        self._report(None)
        for _ in range(3):
            self.now_ms += self.rules.max_session_ms + self.rules.remember_ended_ms
            self.now_ms += 2 * self.rules.heartbeat_ms
            self.advance()
        self.now_ms += self.rules.heartbeat_ms
        self.advance()
        assert self.lane.table.active == 0
        assert not self.lane.table.wheel

    def a_fact(self) -> Fact:
        """Return a fact for a few devices and sessions, stamped at or beside a boundary."""
        choose, rules = self.random.choice, self.rules
        time_ms = self.now_ms + choose([0, 0, 0, -1, 1, -3, 5])
        device = choose(DEVICES)
        lives = self.model.lives.get(device)
        if lives and self.random.random() < 0.4:
            edge_ms = choose([rules.heartbeat_ms, 2 * rules.heartbeat_ms, rules.max_session_ms])
            time_ms = lives[-1].fact.time_ms + edge_ms + choose([-1, 0, 1])
        session = f"{device}-{self.random.randrange(6)}"
        return Fact(self.random.random() < 0.6, device, session, "pc", max(1, time_ms))

    def facts(self) -> None:
        """Give some facts to lane and model."""
        facts = [self.a_fact() for _ in range(self.random.randrange(1, 5))]
        output = self.lane.apply(facts, self.now_ms)
        self.store.write(output.rows)
        if self.to_restore:
            self.waiting += facts
            assert not output.records
        else:
            self._compare_facts(facts, output)

    def _compare_facts(self, facts: list[Fact], output: LaneOutput) -> None:
        fired, want = self.lane.fired(), []
        for fact in facts:
            ahead = fact.time_ms > self.now_ms
            want += self.model.apply(fact, Fired(fired.upto_ms) if ahead else fired)
        self._compare(want, output)

    def pass_time(self) -> None:
        """Let time pass, often to a boundary."""
        heartbeat_ms = self.rules.heartbeat_ms
        steps = [0, 1, heartbeat_ms - 1, heartbeat_ms, heartbeat_ms + 1, 3 * heartbeat_ms]
        self.now_ms += self.random.choice([*steps, self.rules.max_session_ms])
        self.advance()

    def advance(self) -> None:
        """Advance lane and model to now."""
        before = self.lane.fired()
        time_ms = self.lane.clock.time_ms(self.now_ms)
        output = self.lane.advance(self.now_ms)
        after_ms = self.lane.fired_ms
        if self.to_restore or time_ms is None:
            assert not output.records
            return
        jump = time_ms - before.upto_ms > self.rules.heartbeat_ms
        paused = time_ms - before.upto_ms > PAUSE_MS
        outage = before.newest_only or (self.live and before.upto_ms != NEVER_MS and paused)
        newest_only = self.rules.catch_up == "latest" and outage and jump
        if after_ms > before.upto_ms:
            assert after_ms == time_ms
            want = self.model.advance(before.upto_ms, after_ms, newest_only=newest_only)
            self._compare(want, output)
        else:
            assert not output.records

    def report(self) -> None:
        """Let the only partition go live or fall behind."""
        behind_ms = self.now_ms - self.random.choice([0, 1, 5 * self.rules.heartbeat_ms])
        self._report(self.random.choice([None, None, behind_ms]))

    def _report(self, through_ms: int | None) -> None:
        self.live = through_ms is None
        self.lane.hear(Report("topic/0", 1, through_ms))

    def commit(self) -> None:
        """End an epoch."""
        self.store.commit(self.lane)
        self.saved = deepcopy(self.model)
        self.saved_waiting = list(self.waiting)

    def crash(self) -> None:
        """Go back to the last epoch, with nothing but what is stored."""
        if self.store.state is None:
            return
        self.store.crash()
        self.model = deepcopy(self.saved)
        self.waiting = list(self.saved_waiting)
        self.live = False
        self.lane = Lane(LANE, LANES, self.rules, read_lane_state(self.store.state))
        rows = list(self.store.rows.values())
        self.random.shuffle(rows)
        self.to_restore = rows if self.lane.restoring else []

    def restore_row(self) -> None:
        """Give the lane one of its rows back."""
        if not self.to_restore:
            return
        output = self.lane.restore(self.to_restore.pop(), self.now_ms)
        if not self.lane.restoring:
            self.to_restore = []
            self._compare_facts(self.waiting, output)
            self.waiting = []

    def _compare(self, want: list[OutputEvent], output: LaneOutput) -> None:
        got = decoded(output.records)
        assert by_device(got) == by_device(want)
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
