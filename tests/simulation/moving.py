"""Lanes that are stopped, and whose sessions move to other lanes, each device with a model."""

import random

from msgspec import to_builtins
from msgspec.structs import replace

from session_logic.clock import PartitionProgress
from session_logic.events import Fact, OutputEvent, Watermark
from session_logic.journal import BaseRow
from session_logic.keys import key_group_of, lane_of
from session_logic.lane import Lane
from session_logic.lane_time import NEVER_MS
from session_logic.move import Move
from session_logic.restoring import LaneState, read_lane_state
from session_logic.rules import Rules
from tests.support.events import decoded
from tests.support.lanes import BEGIN_MS, Store
from tests.support.model import Model

DEVICES = [f"d{number}" for number in range(60)]


class Run:
    """Lanes that each have a store of their own, and a model for each device."""

    def __init__(self, seed: int, lanes: int) -> None:
        self.random = random.Random(seed)
        beat_ms = self.random.choice([7, 30, 100])
        longest_ms = beat_ms * self.random.choice([1, 3, 9]) + self.random.choice([0, 1])
        self.rules = Rules(beat_ms, longest_ms, 5 * beat_ms, self.random.choice(["all", "latest"]))
        self.carried = b'"account":"x"' if seed % 3 == 0 else b""  # by the starts of some devices
        self.now_ms = BEGIN_MS
        self.stores = [Store() for _ in range(lanes)]
        self.lanes = [Lane(number, lanes, self.rules) for number in range(lanes)]
        self.models = {device: Model(self.rules) for device in DEVICES}
        self.fired_ms: dict[str, int] = {}
        self.got: list[OutputEvent] = []
        self.want: list[OutputEvent] = []
        self.live()

    def live(self) -> None:
        """Let the only partition be read to its end."""
        for lane in self.lanes:
            lane.update(PartitionProgress("topic/0", 1, None))

    def after_ms(self, device: str, lane: Lane) -> int:
        """Return up to when the records of a device are out."""
        return lane.watermark_ms

    def devices(self, lane: Lane) -> list[str]:
        """Return the devices of a lane."""
        return [d for d in DEVICES if lane_of(key_group_of(d), lane.lanes) == lane.lane]

    def facts(self) -> None:
        """Give each lane some facts."""
        for lane, store in zip(self.lanes, self.stores, strict=True):
            for fact in self.some_facts(lane):
                output = lane.apply([fact], self.now_ms)
                store.write(output.rows)
                self.got += decoded(output.records)
                self.expect_facts(lane, [fact])

    def some_facts(self, lane: Lane) -> list[Fact]:
        """Return up to three facts for devices of a lane."""
        devices = self.devices(lane)
        facts = []
        for _ in range(self.random.randrange(4) if devices else 0):
            device = self.random.choice(devices)
            session = f"{device}-{self.random.randrange(4)}"
            is_start = self.random.random() < 0.7
            carried = self.carried if is_start and key_group_of(device) % 2 else b""
            time_ms = self.after_ms(device, lane) + 1
            facts.append(Fact(is_start, device, session, "pc", time_ms, carried=carried))
        return facts

    def expect_facts(self, lane: Lane, facts: list[Fact]) -> None:
        """Expect what facts cause; time has passed at once for a lane without sessions."""
        for fact in facts:
            watermark = lane.watermark()
            watermark = replace(watermark, upto_ms=self.after_ms(fact.device_id, lane))
            self.want += self.models[fact.device_id].apply(fact, watermark)
        for device in self.devices(lane):
            self.fired_ms[device] = max(self.fired_ms.get(device, NEVER_MS), lane.watermark_ms)

    def pass_time(self, *, apart: bool = False) -> None:
        """Let time pass, for some lanes only if they are to be apart."""
        self.now_ms += self.random.randrange(1, 2 * self.rules.heartbeat_ms)
        for lane in self.lanes:
            if not apart or self.random.random() < 0.5:
                before = lane.watermark()
                self.got += decoded(lane.advance(self.now_ms).records)
                self.expect(lane, before)

    def work(self) -> None:
        """Let facts come and time pass by turns, until lanes are stopped at different moments."""
        for _ in range(6):
            self.facts()
            self.pass_time()
        self.facts()
        self.pass_time(apart=True)

    def expect(self, lane: Lane, before: Watermark) -> None:
        """Let the models of a lane go where the lane is."""
        long = lane.watermark_ms - before.upto_ms > self.rules.heartbeat_ms
        newest_only = before.newest_only and long
        self.expect_due(lane, newest_only=newest_only)

    def expect_due(self, lane: Lane, *, newest_only: bool) -> None:
        """Expect what a lane's devices owe since they were last fired, by whatever lane."""
        for device in self.devices(lane):
            after_ms = self.fired_ms.get(device, NEVER_MS)
            self.want += self.models[device].advance(
                after_ms, lane.watermark_ms, newest_only=newest_only
            )
            self.fired_ms[device] = max(after_ms, lane.watermark_ms)

    def move(self, lanes: int) -> None:
        """Stop, move to another number of lanes, and go on; crash on the way, now and then."""
        for lane, store in zip(self.lanes, self.stores, strict=True):
            store.commit(lane)
        old = [self.restored(store) for store in self.stores]
        rows, states = self.moved(old, lanes)
        self.stores = [Store() for _ in range(lanes)]
        for state in states:
            self.stores[state.lane].state = to_builtins(state)
        for row in rows:
            self.stores[row.lane].rows[row.row] = row
        self.lanes = []
        for store in self.stores:
            if self.random.random() < 0.5:
                self.cut_restore(store)
            self.lanes.append(self.resumed(store))
        self.live()

    def moved(self, old: list[Lane], lanes: int) -> tuple[list[BaseRow], list[LaneState]]:
        """Return what the new lanes have."""
        move = Move(lanes)
        rows = [row for lane in old for row in move.take(lane)]
        return rows, move.states()

    def cut_restore(self, store: Store) -> None:
        """Restore a part of the rows, commit, and crash."""
        lane = self.lane(store)
        rows = list(store.rows.values())
        for row in self.random.sample(rows, max(0, len(rows) - 1)):
            self.got += decoded(lane.restore(row, self.now_ms).records)
        if lane.restoring:
            store.commit(lane)

    def lane(self, store: Store) -> Lane:
        """Return a lane that is about to be restored."""
        assert store.state is not None
        state = read_lane_state(store.state)
        return Lane(state.lane, state.lanes, self.rules, state)

    def restored(self, store: Store) -> Lane:
        """Return a lane with all its rows back."""
        lane = self.lane(store)
        for row in store.rows.values():
            if lane.restoring:
                lane.restore(row, self.now_ms)
        assert not lane.restoring
        return lane

    def resumed(self, store: Store) -> Lane:
        """Let a lane go on, with its rows back in any order, and facts that come before them."""
        lane = self.lane(store)
        rows = list(store.rows.values())
        self.random.shuffle(rows)
        facts = self.some_facts(lane) if lane.restoring else []
        if facts:
            store.write(lane.apply(facts, self.now_ms).rows)
        for row in rows:
            if lane.restoring:
                output = lane.restore(row, self.now_ms)
                store.write(output.rows)
                self.got += decoded(output.records)
        assert not lane.restoring
        self.expect_due(lane, newest_only=self.rules.catch_up == "latest")
        self.expect_facts(lane, facts)
        return lane
