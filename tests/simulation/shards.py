"""A seeded simulation of shards: a part of the input partitions each, and nothing in common.

Shards are killed and stopped one at a time while the others go on; all are stopped to give their
lanes to another number of shards, and once in some histories to give each input topic twice as many
partitions. Now and then somebody starts a shard that does not fit to those that run. All output is
compared with the model.

`python -m tests.simulation.shards 100 --lanes 8` runs that many histories.
"""

import argparse
import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from itertools import chain
from typing import Any
from zlib import crc32

from msgspec.structs import replace

from dataflows.kafka.permit import FencedError
from dataflows.messages import DEAD_LETTER_KEY
from dataflows.settings import Settings
from dataflows.shard import Shard
from heartwheel.event_writer import BAD_INPUT
from tests.simulation import regrouping
from tests.simulation.cluster import Run, World
from tests.simulation.engine import EPOCH_MS, Database
from tests.simulation.facts import Facts
from tests.simulation.flow import BEGIN_MS, LETTERS, OUTPUT, TOPICS
from tests.simulation.history import History, Order
from tests.simulation.judge import Judge, letter_of
from tests.simulation.leases import Coordinator, Leases, SimulatedTime
from tests.support.fake_kafka import Log, Record, Where
from tests.support.fake_lease import NOTHING

BEATS = "beats"
DEVICES_PER_LANE = 2
STEPS = ("source", "restored", "lanes", "sink", "store")
LONGEST_DRAIN = 2_000


class ShardCoordinator(Coordinator):
    """The lease of one shard number, which can read those of the others."""

    def __init__(self, number: int, all_of_them: "dict[int, ShardCoordinator]", *of: Any) -> None:
        super().__init__(*of)
        self._number = number
        self._all = all_of_them

    def offset_of(self, partition: int) -> Any:
        return self._all[partition].committed if partition in self._all else NOTHING


class SimulatedShard:
    """One shard over its runs: its store, its lease and the run that is active, if any."""

    def __init__(self, fleet: "Fleet", shard: Shard, database: Database) -> None:
        self.shard = shard
        self._fleet = fleet
        self._random = fleet.random
        settings = replace(fleet.settings, shard=str(shard))
        self._leases = Leases(settings, 0, fleet.time, fleet.coordinator(shard.number))
        history = History(fleet.pasts, fleet.orders, doubled_letters=fleet.doubled_letters)
        self.world = World(
            fleet.now_ms, fleet.log, database, settings, fleet.random, self._leases, history
        )
        self.world.facts = fleet.facts
        self.run: Run | None = None
        self.back_ms: int | None = None  # when one that is down is started again
        self._stalled_ms: dict[object, int] = {}

    def start(self) -> None:
        """Begin a run; raises FencedError if its lanes are another's."""
        self.world.database.forget_unfinished()
        self.run = Run(self.world)
        self.world.resume()  # one that is refused changes nothing
        self.back_ms = None
        self._stalled_ms.clear()
        self._fleet.counts["runs"] += 1

    def end(self, back_ms: int | None = None) -> None:
        """End the run at once; it is started again at back_ms."""
        run, self.run, self.back_ms = self.run, None, back_ms
        assert run is not None
        run.crash()
        self._leases.end()
        if self.world.database.load("sink").get(DEAD_LETTER_KEY) is None:
            self.world.history.doubled_letters.update(self._letters())
        self.world.history.pasts.append(run.past())

    def _letters(self) -> list[Any]:
        """Return the dead letters that are of this shard's input."""
        own = self.shard.of(self.world.settings.lanes)
        topics = self.world.log.written.items()
        written = chain(*(some for (topic, _), some in topics if topic == LETTERS))
        return [name for name in map(letter_of, written) if name.partition in own]

    def stop(self) -> None:
        """Ask the run to stop; it has ended when `is_stopped` says so."""
        assert self.run is not None
        self._stalled_ms.clear()
        for process in self.run.processes:
            process.stop.set()

    @property
    def is_stopped(self) -> bool:
        """Whether a stop has come to its end."""
        return self.run is not None and self.run.ended

    def give_back(self, back_ms: int | None) -> None:
        """End a run that has stopped, and give back its lease."""
        assert self.run is not None
        assert not any(process.producer for process in self.run.processes), "not flushed"
        self._leases.release()
        self.end(back_ms)

    def stall(self) -> None:
        """Hold one thing up for a while, or the whole process."""
        what = self._random.choice(
            ["source", "restored", "lanes", "sink", "store", "take", "fetch", "commit", "all"]
        )
        for_ms = self._random.choice([50, 300, 1_500, 12_000])
        self._stalled_ms[what] = self._fleet.now_ms + for_ms

    def renew(self) -> None:
        """Let the thread of the lease have its turn."""
        self._leases.go_on()

    def go_on(self, share: float) -> None:
        """Give everything a turn that is not held up, with this probability and in any order."""
        run, random_ = self.run, self._random
        if run is None or self._stalled_ms.get("all", 0) > self._fleet.now_ms:
            return
        turns: list[tuple[str, Callable[[Any], None], Any]] = [
            (kind, getattr(run, kind), 0) for kind in STEPS
        ]
        turns += [("fetch", self._fetch, where) for where in run.process_of]
        turns += [("deliver", self._deliver, name) for name, some in run.channels.items() if some]
        turns += [("take", self._take, run), ("commit", lambda _: run.commit(), 0)]
        random_.shuffle(turns)
        for kind, take, what in turns:
            if random_.random() < share and self._stalled_ms.get(kind, 0) <= self._fleet.now_ms:
                take(what)

    def _fetch(self, where: Where) -> None:
        assert self.run is not None
        self.run.process_of[where].consumer.fetch(where, self._random.choice([1, 5, 1_000]))

    def _deliver(self, channel: tuple[str, int, int]) -> None:
        assert self.run is not None
        self.run.deliver(channel, self._random.choice([1, 3, 1_000]))

    def _take(self, run: Run) -> None:
        producer = run.processes[0].producer
        for where in list(producer.flying):
            producer.take(where, self._random.choice([0, 1, 5, 1_000]))

    @property
    def has_read_all(self) -> bool:
        """Whether all input is on its way to the lanes."""
        assert self.run is not None
        parts = self.run.processes[0].source.parts
        for where in self.run.process_of:
            part = parts["/".join(map(str, where))].logic._part
            if part is None or max(0, part.next_offset) < len(self.world.log.at(where)):
                return False
        return True

    @property
    def is_idle(self) -> bool:
        """Whether all lanes have caught up, and none has an active session."""
        assert self.run is not None
        lanes = [logic._lane for logic in self.run.processes[0].lanes.logics.values()]
        return not any(lane.resuming or lane.table.active for lane in lanes)


class Fleet:
    """One history; `play` raises AssertionError where the output is not what the model says."""

    def __init__(self, seed: int, lanes: int = 8) -> None:
        self.random = random.Random(seed)
        choose = self.random.choice
        beat_ms = self._beat_ms = choose([400, 1_000, 2_000])
        self.settings = Settings(
            input_topics=TOPICS,
            output_topic=OUTPUT,
            dead_letter_topic=LETTERS,
            lanes=lanes,
            route="partition",
            heartbeat_ms=beat_ms,
            max_session_ms=beat_ms * choose([3, 6]) + choose([0, 1]),
            deduplication_window_ms=choose([beat_ms, 4 * beat_ms]),
            catch_up="all",
            tick_ms=5,
            target_latency_ms=50,
            snapshot_ms=EPOCH_MS,
            monitor_group="",
            restore_timeout_ms=10**9,
        )
        topics = dict.fromkeys((*TOPICS, OUTPUT), lanes) | {LETTERS: choose([1, 2])}
        self.log = Log(topics)
        self.now_ms = BEGIN_MS
        self.facts = Facts()
        self.time = SimulatedTime(lambda: self.now_ms, self._wait)
        self.pasts: list[Any] = []
        self.orders = History().orders
        self._eras: list[dict[int, Order]] = []  # before partitions were added
        self._added_ms = 0  # when they were
        self.doubled_letters: Counter[Any] = Counter()
        self.counts: Counter[str] = Counter()
        self._coordinators: dict[int, ShardCoordinator] = {}
        # The senders' partitioner is another than ours, unless partitions are to be added.
        self._grows = seed % 2 == 1
        self._salt = "" if self._grows else f"{seed} "
        self._devices = [f"d{n}" for n in range(DEVICES_PER_LANE * lanes)]
        self._seen: dict[str, str] = {}
        self._starts: set[tuple[str, str, int]] = set()
        self._rolling: list[SimulatedShard] = []
        self.shards: list[SimulatedShard] = []
        with self.time.instead():
            self._begin({}, choose([2, 3, lanes // 2, lanes]))

    def coordinator(self, number: int) -> Coordinator:
        """Return who keeps the lease of a shard number."""
        known = self._coordinators
        if number not in known:
            known[number] = ShardCoordinator(number, known, self.time, self.random)
        return known[number]

    # Time.

    def _wait(self, for_ms: int) -> None:
        """Let time pass because one shard waits; the others' leases are renewed meanwhile."""
        self._pass(for_ms)
        for shard in self.shards:
            shard.renew()

    def _pass(self, for_ms: int) -> None:
        self.now_ms += for_ms
        for shard in self.shards:
            shard.world.now_ms = self.now_ms

    def _go_on(self, for_ms: int, share: float = 0.7) -> None:
        """Let time pass, and every shard have a turn."""
        self._pass(for_ms)
        for shard in self.shards:
            if shard.run is None and shard.back_ms is not None and shard.back_ms <= self.now_ms:
                shard.start()
            shard.renew()
            shard.go_on(share)
        self._roll()

    def _until(self, is_so: Callable[[], bool], otherwise: str, step_ms: int = 10) -> None:
        for _ in range(LONGEST_DRAIN):
            if is_so():
                return
            self._go_on(step_ms, 0.9)
        raise AssertionError(otherwise)

    # What happens.

    def play(self, steps: int) -> None:
        """Take random steps, then let everything come to its end and compare."""
        kinds: dict[Callable[[], None], float] = {
            self.pass_time: 60,
            self.events: 25,
            self.stall: 4,
            self.crash: 5,
            self.roll: 1,
            self.rescale: 1.5,
            self.start_by_mistake: 1.5,
        }
        with self.time.instead():
            for step in range(steps):
                if self._grows and step == steps // 2:
                    self.add_partitions()
                self.random.choices(list(kinds), list(kinds.values()))[0]()
            self._finish()
        self._judge()

    def pass_time(self) -> None:
        """Let some time pass."""
        beat_ms = self._beat_ms
        self._go_on(self.random.choice([0, 1, 5, 10, 20, 50, 100, 300, beat_ms - 1, beat_ms]))

    def events(self) -> None:
        """Append some input, now and then what is no event."""
        for _ in range(self.random.randint(1, 1 + self.settings.lanes // 2)):
            device = self.random.choice(self._devices)
            topic = list(TOPICS)[crc32(device.encode()) % 2]
            time_ms = self.now_ms - self.random.choice([0, 0, 0, 1, 40, self._beat_ms, -200])
            value = self._value(device, topic, time_ms)
            if self.random.random() < 0.03:
                value = self.random.choice(BAD_INPUT)
            where = topic, self._partition(device, self.settings.lanes)
            self.log.at(where).append(Record(time_ms, device.encode(), value, None, self.now_ms))

    def _partition(self, device: str, lanes: int) -> int:
        """Return where senders have the events of a device, where there are so many partitions."""
        return crc32(f"{self._salt}{device}".encode()) % lanes

    def _value(self, device: str, topic: str, time_ms: int) -> bytes:
        kind, session = "Start", f"{device}-{self.random.randrange(5)}"
        seen = self._seen.get(device)
        if seen is not None and self.random.random() < 0.5:
            kind, session = "End", seen
        elif (topic, session, time_ms) in self._starts:  # a start names its session for ever
            kind = "End"
        else:
            self._seen[device] = session
            self._starts.add((topic, session, time_ms))
        return f'{{"type":"Game{kind}","device_id":"{device}","session_id":"{session}"}}'.encode()

    def stall(self) -> None:
        """Hold up something in a shard."""
        self.random.choice(self.shards).stall()

    def crash(self) -> None:
        """Kill one shard, which comes back after a while."""
        shard = self.random.choice(self.shards)
        if shard.run is not None:
            self.counts["kills"] += 1
            shard.end(self.now_ms + self.random.choice([0, 20, 500, 3 * self._beat_ms]))

    def roll(self) -> None:
        """Stop each shard and start it again, one after the other, while all goes on."""
        self._rolling = self._rolling or list(self.shards)

    def _roll(self) -> None:
        if not self._rolling:
            return
        shard = self._rolling[0]
        if shard.is_stopped:
            shard.give_back(self.now_ms + self.random.choice([0, 20, 500]))
            self.counts["stops"] += 1
            self._rolling.pop(0)
        elif shard.run is not None:
            shard.stop()  # a killed one that is back is asked again

    def rescale(self) -> None:
        """Give all lanes to another number of shards."""
        lanes = self.settings.lanes
        counts = {2, 3, lanes // 2, lanes - 1, lanes} - {len(self.shards)}
        self._stop_all()
        self._begin(self._stored(), self.random.choice(sorted(counts)))
        self.counts["rescales"] += 1

    def start_by_mistake(self) -> None:
        """Start a shard of another number on an empty store, which must be refused."""
        self._all_run()
        count = self.random.choice([n for n in (1, 2, 4, 8) if n != len(self.shards)])
        shard = Shard(self.random.randrange(min(count, self.settings.lanes)), count)
        if self.random.random() < 0.5:  # a shard that was killed may still have its lease
            killed = self.random.choice(self.shards)
            killed.end(self.now_ms + 500)
        wrong = SimulatedShard(self, shard, Database())
        try:
            wrong.start()
        except FencedError:
            self.counts["refused"] += 1
            return
        self.shards.append(wrong)  # and whoever compares the output finds it
        self._until(lambda: wrong.has_read_all, "it reads nothing")
        self._until(lambda: False, "a shard of another number of shards was let in")

    def add_partitions(self) -> None:
        """Give each topic twice as many partitions, when all is read and nobody sends."""
        self._all_run()
        self._until(lambda: all(shard.has_read_all for shard in self.shards), "input is not read")
        self._stop_all()
        settings = self.settings
        values = regrouping.moved(self._stored(), settings.lanes, TOPICS, settings.rules())
        for topic in (*TOPICS, OUTPUT):
            self.log.add_partitions(topic, settings.lanes)
        self.settings, self._added_ms = replace(settings, lanes=2 * settings.lanes), self.now_ms
        self._eras.append(dict(self.orders))
        changes = {lane: order.change() for lane, order in self.orders.items()}
        self.orders.clear()
        for lane in range(self.settings.lanes):
            if change := changes.get(lane % settings.lanes):
                self.orders[lane] = Order([change], kept=1)
        self._begin(values, self.random.choice([2, 3, self.settings.lanes]))
        self.counts["partitions added"] += 1

    # Stops and starts of all.

    def _begin(self, values: regrouping.Values, count: int) -> None:
        lanes = self.settings.lanes
        shards = [Shard(number, count) for number in range(count)]
        self.shards = [
            SimulatedShard(self, shard, regrouping.shared_out(values, shard, lanes))
            for shard in shards
        ]
        for shard in self.shards:
            shard.start()

    def _stored(self) -> regrouping.Values:
        return regrouping.stored_in(shard.world.database for shard in self.shards)

    def _all_run(self) -> None:
        """Wait until each shard is there again, and none is being stopped."""
        self._until(
            lambda: not self._rolling and all(shard.run is not None for shard in self.shards),
            "a shard does not come back",
        )

    def _stop_all(self) -> None:
        self._all_run()
        for shard in self.shards:
            shard.stop()
        self._until(lambda: all(s.is_stopped for s in self.shards), "a stop does not end")
        for shard in self.shards:
            shard.give_back(None)

    def _finish(self) -> None:
        """Let everything arrive and every session time out, then stop."""
        self._all_run()
        end_ms = self.now_ms + self.settings.max_session_ms + 4 * self._beat_ms
        while self.now_ms < end_ms:
            self._go_on(200, 0.9)
        self._until(self._is_over, "a session never ends", 50)
        self._stop_all()

    def _is_over(self) -> bool:
        return all(shard.has_read_all and shard.is_idle for shard in self.shards)

    def _judge(self) -> None:
        eras = [*self._eras, self.orders]
        orders = dict(enumerate(order for era in eras for order in era.values()))
        history = History(self.pasts, doubled_letters=self.doubled_letters)
        history.orders.update(orders)
        judge = Judge(self.settings, self.log, history, facts=self.facts)
        judge.check(OUTPUT, BEATS, LETTERS, self.now_ms)
        self._check_lanes()
        self.counts += judge.counts

    def _check_lanes(self) -> None:
        """Check that each record is in the output partition with the number of its input."""
        for (topic, lane), records in self.log.written.items():
            for record in records if topic == OUTPUT else ():
                added = record.appended_ms >= self._added_ms
                lanes = self.settings.lanes // (1 if added else 2)
                device = (record.key or b"").decode()
                assert lane == self._partition(device, lanes), f"{record} in partition {lane}"


def simulate(seed: int, lanes: int = 8, steps: int = 100) -> Fleet:
    """Run one history; an error names the seed."""
    try:
        fleet = Fleet(seed, lanes)
        fleet.play(steps)
    except Exception as error:
        error.add_note(f"seed={seed} lanes={lanes} steps={steps}")
        raise
    return fleet


def main() -> None:
    """Run as many histories as the command line says."""
    parser = argparse.ArgumentParser(description="Simulate shards.")
    parser.add_argument("histories", type=int)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--lanes", type=int, default=8, help="at most as many shards, at first")
    parser.add_argument("--steps", type=int, default=100)
    given = parser.parse_args()
    logging.getLogger().addHandler(logging.NullHandler())  # what the runs log is not wanted
    began_s, counts = time.monotonic(), Counter[str]()
    for seed in range(given.first, given.first + given.histories):
        counts += simulate(seed, given.lanes, given.steps).counts
    took_s = time.monotonic() - began_s
    print(f"{given.histories} histories in {took_s:.0f} s: {dict(counts)}", flush=True)


if __name__ == "__main__":
    main()
