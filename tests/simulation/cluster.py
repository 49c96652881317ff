"""A run of the whole dataflow: its real steps in simulated processes, and what delays them."""

import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any
from zlib import crc32

from msgspec import Struct, field
from msgspec.structs import replace

from dataflows.clock import SteadyClock
from dataflows.decode import Decoded
from dataflows.formats import read_dead_letters, read_position
from dataflows.kafka.permit import WritePermit
from dataflows.kafka.sink import KafkaSink
from dataflows.kafka.source import KafkaSource
from dataflows.lanes import LaneLogic
from dataflows.messages import (
    DEAD_LETTER_KEY,
    DeadLetter,
    LaneBatch,
    PartitionBatch,
    RecordId,
)
from dataflows.run_state import RunState
from dataflows.settings import Settings
from dataflows.store import Inbox, RestoredSource, StoreSink
from session_logic.events import Fact
from session_logic.journal import Row
from session_logic.keys import Route, key_group_of, lane_of
from session_logic.lane import Lane, LaneOutput
from session_logic.lane_time import NEVER_MS
from session_logic.output import OutputBatch
from session_logic.restoring import LaneState, read_lane_state
from session_logic.table import SessionTable
from tests.simulation.engine import Database, SinkStep, SourceStep, StatefulStep
from tests.simulation.facts import Facts
from tests.simulation.history import Change, Ended, Event, Heard, History, Past, is_record
from tests.simulation.leases import Leases
from tests.support.fake_kafka import Admin, Consumer, Log, Producer, Where

NUMBERS = count()  # of what lanes decide


class World(Struct):
    """What outlives a run: time, the log, the recovery store, and what is known of it all.

    now_ms is the time; the wall clock may be ahead of it, or behind. facts says what events are.
    """

    now_ms: int
    log: Log
    database: Database
    settings: Settings
    random: random.Random
    leases: Leases
    history: History = field(default_factory=History)
    wall_ahead_ms: int = 0
    facts: Facts = field(default_factory=Facts)

    @property
    def wall_ms(self) -> int:
        """The time by the wall clock of all processes."""
        return self.now_ms + self.wall_ahead_ms

    def elapsed_ms(self) -> int:
        """Return the time, which nobody sets."""
        return self.now_ms

    def resume(self) -> None:
        """Leave what is stored of a finished epoch, and note what a run begins with."""
        self.database.forget_unfinished()
        stored = {name.rpartition("/"): at for name, at in self.database.load("source").items()}
        offsets = {
            (topic, int(number)): read_position(topic, at).offset
            for (topic, _, number), at in stored.items()
        }
        stored_lanes = list(self.database.load("sessions").values())
        rules = {state.lane: state.rules for state in map(read_lane_state, stored_lanes)}
        decided = {state[2]: state[-1] for state in stored_lanes}
        for lane, order in self.history.orders.items():
            if lane in self.settings.own_lanes:
                order.resume(offsets, rules.get(lane), decided.get(lane, []))


class SimulatedClock(SteadyClock):
    """The product's clock over the world's time and the wall clock, and what it has told when."""

    def __init__(self, world: World) -> None:
        super().__init__(lambda: world.wall_ms / 1_000, lambda: world.now_ms / 1_000)
        self._world = world
        self.told_ms: dict[int, int] = {}

    def now_ms(self) -> int:
        now_ms = self.told_ms[self._world.now_ms] = super().now_ms()
        return now_ms


class Origins:
    """Where the facts of each batch are in Kafka."""

    def __init__(self, lanes: int, route: Route, facts: Facts) -> None:
        self._lanes = lanes
        self._route = route
        self._facts = facts
        self._known: dict[int, tuple[LaneBatch, list[RecordId]]] = {}

    def note(self, poll: PartitionBatch, items: list[tuple[str, Decoded]]) -> None:
        """Take in what a poll was decoded to."""
        letters = {item.message[0] for _, item in items if isinstance(item, DeadLetter)}
        records = defaultdict[int, list[RecordId]](list)
        for offset, time_ms, _, value, created, _ in poll.messages:
            fact = self._facts.read(value, poll.topic, poll.platform, time_ms, created=created)
            if offset not in letters and isinstance(fact, Fact):
                lane = poll.partition
                if self._route == "hash":
                    lane = lane_of(key_group_of(fact.device_id), self._lanes)
                records[lane].append(RecordId(poll.topic, poll.partition, offset))
        for _, item in items:
            if isinstance(item, LaneBatch) and item.facts:
                self._known[id(item)] = item, records[item.lane]

    def pop(self, batch: LaneBatch) -> list[RecordId]:
        """Return where the facts of a batch are, for the last time."""
        return self._known.pop(id(batch))[1] if batch.facts else []


class NotedLane(LaneLogic):
    """A lane of which the order is noted in which it takes facts in, and other rules and times."""

    def __init__(self, world: World, run: RunState, origins: Origins, stored: Any) -> None:
        self._rules = world.settings.rules()
        self._orders = world.history.orders
        self._origins = origins
        self._acted = 0  # on how many facts
        self._place = 0  # in the order, of the next fact
        self._ends = False  # whether ends are acted on that are due
        # Ends that came between facts which had waited, and after how many of those acted on.
        self._ends_between: list[tuple[int, Ended]] = []
        super().__init__(world.settings, run, stored)
        if self._lane is not None and not self._lane.restoring:
            self._note_restored(self._lane, len(self._orders[self._lane.lane].taken), 0)

    def _make(self, number: int, state: LaneState | None) -> Lane:
        lane = super()._make(number, state)
        act, take_in, hear_anew = lane._act, lane._take_in, lane._hear_anew
        before, end_as_sent = lane._silent_ends.before, lane._end_as_sent

        def note_acted(facts: list[Fact], *others: Any, **named: Any) -> None:
            self._acted += len(facts)
            if self._ends:
                self._insert(number, *map(self._ended, facts))
            act(facts, *others, **named)

        def end(*others: Any) -> None:
            self._ends = True
            end_as_sent(*others)
            self._ends = False

        def note_ends(facts: list[Fact], table: SessionTable) -> Iterator[tuple[Fact, bool]]:
            """Note ends where they come between facts, which begin so many before the place."""
            place = self._place - len(facts)
            for fact, is_sent in before(facts, table):
                if not is_sent:
                    place += 1
                elif lane.restoring:
                    self._ends_between.append((self._acted, self._ended(fact)))
                    self._acted -= 1
                else:
                    self._orders[number].taken.insert(place, self._ended(fact))
                    self._place += 1
                    place += 1
                yield fact, is_sent

        def pass_on(facts: list[Fact], *others: Any) -> None:
            self._place += len(facts)
            take_in(facts, *others)

        def note(time_ms: int, output: LaneOutput) -> None:
            heard = Heard(next(NUMBERS), time_ms, lane.watermark(), waited=lane.restoring)
            self._insert(number, heard)
            hear_anew(time_ms, output)
            heard.since_ms = lane.hearing_ms

        lane._act = note_acted  # type: ignore[method-assign]
        lane._take_in = pass_on  # type: ignore[method-assign]
        lane._hear_anew = note  # type: ignore[method-assign]
        lane._silent_ends.before = note_ends  # type: ignore[method-assign,assignment]
        lane._end_as_sent = end  # type: ignore[method-assign]
        return lane

    @staticmethod
    def _ended(fact: Fact) -> Ended:
        return Ended(next(NUMBERS), fact)

    def _insert(self, number: int, *events: Event) -> None:
        """Insert what is no fact into the order of a lane."""
        self._orders[number].taken[self._place : self._place] = events
        self._place += len(events)

    def on_batch(self, values: list[LaneBatch | Row]) -> Any:
        order = self._orders[values[0].lane]
        self._begun = self._place = len(order.taken)
        if self._lane is None:
            order.taken.append(Change(self._rules, NEVER_MS, NEVER_MS))
            self._place += 1
        for value in values:
            if isinstance(value, LaneBatch):
                order.taken += self._origins.pop(value)
        return super().on_batch(values)

    def on_notify(self) -> Any:
        assert self._lane is not None
        self._begun = self._place = len(self._orders[self._lane.lane].taken)
        return super().on_notify()

    def snapshot(self) -> Any:
        """Return what is stored, and how much of it no fact of the input tells."""
        assert self._lane is not None
        return [*super().snapshot(), self._orders[self._lane.lane].decided()]

    def _restored(self, lane: Lane, give: Callable[[], LaneOutput], now: int) -> Any:
        restoring, acted = lane.restoring, self._acted
        emitted = super()._restored(lane, give, now)
        if restoring and not lane.restoring:
            # Rows come first of a batch, so what came in batches before this one has waited.
            self._note_restored(lane, self._begun, self._acted - acted, acted)
        return emitted

    def _note_restored(self, lane: Lane, at: int, waited: int, acted: int = 0) -> None:
        """Note that time was set back, before the facts that waited, and other rules, after them.

        at is after those facts.
        """
        order, rules, watermark_ms = self._orders[lane.lane], lane._rules, lane.watermark_ms
        before, noted = order.change().rules, list[Event]()
        if lane.set_back_ms:
            before = replace(before, intervals_ms=rules.intervals_ms, sent_ms=rules.sent_ms)
            noted = [Change(before, watermark_ms, watermark_ms + lane.set_back_ms)]
        first = _first_of_waiting(order.taken, at, waited)
        for event in order.taken[first:at]:
            if is_record(event):
                while self._ends_between and self._ends_between[0][0] == acted:
                    noted.append(self._ends_between.pop(0)[1])
                acted += 1
            if isinstance(event, Heard):
                event = Heard(event.number, event.since_ms, lane.watermark())
            noted.append(event)
        assert not self._ends_between
        if not Change(before, watermark_ms, watermark_ms).is_to(rules):
            noted.append(Change(rules, watermark_ms, watermark_ms))
        self._place += len(noted) - (at - first)
        order.taken[first:at] = noted


def _first_of_waiting(events: list[Event], at: int, waited: int) -> int:
    """Return where what waited begins, of which the last is before a place: so many facts."""
    while waited:
        at -= 1
        waited -= is_record(events[at])
    while at and isinstance(before := events[at - 1], Heard) and before.waited:
        at -= 1
    return at


class Process:
    """The steps of the dataflow in one process, wired as dataflows.sessions does."""

    def __init__(
        self,
        world: World,
        inputs: list[str],
        origins: Origins,
        index: int,
        permit: WritePermit | None,
    ) -> None:
        settings, database = world.settings, world.database
        self.clock = SimulatedClock(world)
        run = RunState(self.clock, elapsed_ms=world.elapsed_ms)
        self.stop = run.stop
        self.consumer = Consumer(world.log, world.elapsed_ms, self.clock.now_ms)
        self.producer = Producer(world.log, world.random, world.elapsed_ms)
        self.producer.on_produce = lambda: world.leases.check_send(index)
        source = KafkaSource(
            settings,
            run,
            make_consumer=self.consumer.configure,
            make_admin=lambda _settings: Admin(world.log),  # type: ignore[arg-type,return-value]
        )
        self.topics = source.topics
        sink = KafkaSink(
            settings,
            run,
            permit,
            make_consumer=lambda _options: Consumer(world.log, world.elapsed_ms),
            make_producer=lambda _options: self.producer,
        )
        source.list_parts()
        sink.check(begun=None)
        letters = database.load("sink").get(DEAD_LETTER_KEY)
        ends = None if letters is None else read_dead_letters(letters)
        run.rejected_earlier = lambda: sink.rejected_earlier(ends)
        run.published_ms = sink.published_ms
        run.silent_ends = sink.silent_ends
        inbox: Inbox = Inbox()
        store, restored = StoreSink(inbox), RestoredSource(inbox, run)
        stored = database.load("source"), database.load("restored")
        self.decode = world.facts.decode(settings, run)
        self.source = SourceStep(
            "source",
            database,
            {key: source.build_part("source", key, stored[0].get(key)) for key in inputs},
            world.now_ms,
        )
        names = [f"restored-{2 * index + n:02}" for n in range(2)]
        self.restored = SourceStep(
            "restored",
            database,
            {key: restored.build_part("restored", key, stored[1].get(key)) for key in names},
            world.now_ms,
        )
        self.lanes = StatefulStep(
            "sessions", database, lambda _, state: NotedLane(world, run, origins, state)
        )
        self.sink = SinkStep("sink", database, lambda k, state: sink.build_part("sink", k, state))
        self.store = SinkStep(
            "store", database, lambda k, state: store.build_part("store", k, state)
        )
        # Sink and store are behind the lanes, which begin in the epoch before.
        before = database.front - 1
        self.frontiers: dict[str, int | None] = {
            "lanes": database.front,
            "sink": before,
            "store": before,
        }
        self.probe = database.front


class Run:
    """Processes from the last committed epoch on, until a crash or a stop."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = world.random
        self.began_ms = world.now_ms
        self.ended = False  # whether a stop has come to its end
        settings = world.settings
        spare = settings.route == "hash"  # one may be added
        names = [
            f"{topic}/{partition}"
            for topic in settings.input_topics
            for partition in settings.own_shard.of(len(world.log.topics[topic]) + spare)
        ]
        count = 1 if settings.shard else self._random.choice([1, 1, 2, 3])
        self._shift = self._random.randrange(100)
        owners = {name: self._owner(name, count) for name in names}
        self._origins = Origins(settings.lanes, settings.route, world.facts)
        self.processes = [
            Process(world, [n for n in names if owners[n] == index], self._origins, index, permit)
            for index, permit in enumerate(world.leases.begin(count))
        ]
        self.process_of: dict[Where, Process] = {
            (name.rpartition("/")[0], int(name.rpartition("/")[2])): self.processes[owner]
            for name, owner in owners.items()
        }
        for step in ("lanes", "sink", "store"):
            for index, process in enumerate(self.processes):
                getattr(process, step).own(
                    lambda key, index=index: self._owner(key, count) == index
                )
        # (step, from, to) -> items in order
        self.channels: defaultdict[tuple[str, int, int], deque[tuple[int, str, Any]]] = defaultdict(
            deque
        )

    def _owner(self, key: str, count: int) -> int:
        return (crc32(key.encode()) + self._shift) % count

    def _send(self, step: str, origin: int, epoch: int, key: str, item: Any) -> None:
        target = self._owner(key, len(self.processes))
        self.channels[step, origin, target].append((epoch, key, item))

    def source(self, index: int) -> None:
        """Activate a process's source, and decode what it brings."""
        process, world = self.processes[index], self._world

        def polled(epoch: int, _part: str, poll: Any) -> None:
            items = process.decode([poll])
            self._origins.note(poll, items)
            for key, item in items:
                step = "sink" if key == DEAD_LETTER_KEY else "lanes"
                self._send(step, index, epoch, key, item)

        process.source.activate(world.now_ms, world.wall_ms, process.probe, polled)

    def restored(self, index: int) -> None:
        """Activate a process's source of rows."""
        process = self.processes[index]
        process.restored.activate(
            self._world.now_ms,
            self._world.wall_ms,
            process.probe,
            lambda epoch, _, item: self._send("lanes", index, epoch, *item),
        )

    def deliver(self, channel: tuple[str, int, int], count: int) -> None:
        """Bring some items to their step."""
        waiting = self.channels[channel]
        step = getattr(self.processes[channel[2]], channel[0])
        for _ in range(min(count, len(waiting))):
            step.take(*waiting.popleft())

    def lanes(self, index: int) -> None:
        """Activate a process's lanes."""
        process = self.processes[index]

        def emitted(epoch: int, key: str, item: Any) -> None:
            if isinstance(item, OutputBatch):
                self._send("sink", index, epoch, key, item)
            else:
                self._send("store", index, epoch, item.row, item)

        if process.lanes.load(self._random.randint(0, 40)):
            process.lanes.activate(self._world.wall_ms, self._frontier("lanes", process), emitted)

    def sink(self, index: int) -> None:
        """Activate a process's sink."""
        process = self.processes[index]
        if process.sink.load(self._random.randint(0, 40)):
            process.sink.activate(self._frontier("sink", process))

    def store(self, index: int) -> None:
        """Activate a process's store."""
        process = self.processes[index]
        if process.store.load(self._random.randint(0, 40)):
            process.store.activate(self._frontier("store", process))

    def _frontier(self, step: str, process: Process) -> int | None:
        """Return how far a process knows the input of a step to have come."""
        if self._random.random() < 0.8:
            process.frontiers[step] = self._true_frontier(step)
        return process.frontiers[step]

    def _true_frontier(self, step: str) -> int | None:
        epochs = [epoch for process in self.processes for epoch in process.source.epochs()]
        epochs += [epoch for process in self.processes for epoch in process.restored.epochs()]
        for (of_step, _, _), waiting in self.channels.items():
            if of_step in ("lanes", step):
                epochs += [epoch for epoch, _, _ in waiting]
        if step != "lanes":
            epochs += [p.lanes.cap for p in self.processes if p.lanes.cap is not None]
        return min(epochs, default=None)

    def told_ms(self) -> list[tuple[int, int]]:
        """Return what the latest of the clocks has told, after the moments of telling."""
        told_ms: dict[int, int] = {}
        for process in self.processes:
            for at_ms, clock_ms in process.clock.told_ms.items():
                told_ms[at_ms] = max(clock_ms, told_ms.get(at_ms, 0))
        return sorted(told_ms.items())

    def past(self) -> Past:
        """Return what is to be known of the run, which is over."""
        settings = self._world.settings
        shard = settings.own_shard
        return Past(
            self.began_ms,
            self._world.now_ms,
            {where: process.consumer.reading for where, process in self.process_of.items()},
            self.told_ms(),
            settings.rules(),
            settings.idle_partition_ms,
            shard.of(settings.lanes) if settings.shard else None,
        )

    def commit(self) -> None:
        """Record how far all steps have come, and let a process know of it."""
        database = self._world.database
        caps = [
            cap
            for p in self.processes
            for cap in (*p.source.epochs(), *p.restored.epochs(), *self._caps(p))
        ]
        if caps:
            if min(caps) > database.front:
                database.commit(min(caps))
        elif not self.ended:
            self.ended = True
            database.commit(database.front + 1)
        self._random.choice(self.processes).probe = database.front

    @staticmethod
    def _caps(process: Process) -> list[int]:
        steps = (process.lanes, process.sink, process.store)
        return [step.cap for step in steps if step.cap is not None]

    def crash(self) -> None:
        """End all processes at once."""
        self._world.database.crash(self._random)
        for process in self.processes:
            process.producer.crash()
