"""A seeded simulation of the whole dataflow: random histories, delays, outages and crashes.

`python -m tests.simulation.flow 5000` runs that many histories.
"""

import logging
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from dataflows.formats import read_outbox
from dataflows.kafka.permit import LeaseError
from dataflows.kafka.producer import DeliveryError
from dataflows.kafka.reconcile import ReconcileError
from dataflows.messages import DEAD_LETTER_KEY
from dataflows.settings import Settings
from heartwheel.event_writer import BAD_INPUT
from heartwheel.signals import STEP_BACK_S
from session_logic import journal
from session_logic.clock import END_VALID_MS
from session_logic.events import Fact
from session_logic.hearing import GAP_MS
from session_logic.keys import key_group_of, lane_of
from session_logic.lane import Lane
from session_logic.lane_time import NEVER_MS, PAUSE_MS
from session_logic.silence import STALL_MS
from tests.simulation.brokers import Brokers
from tests.simulation.cluster import Run, World
from tests.simulation.engine import EPOCH_MS, Database
from tests.simulation.facts import Facts
from tests.simulation.history import Skip
from tests.simulation.judge import Judge, letter_of
from tests.simulation.leases import Leases, SimulatedTime
from tests.simulation.losses import Losses
from tests.support.fake_kafka import Log, Record, Where

BEGIN_MS = 1_700_000_000_000
TOPICS = {"console-events": "console", "pc-events": "pc"}
MORE_TOPICS = TOPICS | {"tv-events": "tv"}
OUTPUT, LETTERS = "out", "letters"
BEATS, SUMMARIES, TABLE = "beats", "summaries", "table"
LANES = 2
PARTITIONS = 2  # of an input topic, at first
DEVICES = [f"d{number}" for number in range(9)]
STRICT_SKEW_MS = 100
HELD_MS = 3_000
STEP_BACK_MS = int(STEP_BACK_S * 1_000)
OUTAGE_MS = GAP_MS + 3_000  # known for an outage, however busy the other partitions are
UNKNOWN_MS = END_VALID_MS + STALL_MS // 2  # not known for an outage yet
FAR_MS = 10 * 86_400_000
LISTENING = {3, 5, 8}  # of ten histories
IDLE_TIMEOUTS_MS = [0, 300, 1_100, 2_500, 5_000]


@contextmanager
def segment_bytes(limit: int) -> Iterator[None]:
    """Let journal segments have this size meanwhile."""
    before = journal.SEGMENT_BYTES
    journal.SEGMENT_BYTES = limit
    try:
        yield
    finally:
        journal.SEGMENT_BYTES = before


class Seen(Struct):
    """A session that a device may still have, for input that knows about it."""

    session: str
    started_ms: int


class Simulation:
    """One history; `run` raises AssertionError where the output is not what the model says."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        choose = self.random.choice
        # In some histories a run reads more or fewer topics than the one before it.
        self._choose_topics = random.Random(f"topics {seed}")
        self._topics_change = self._choose_topics.random() < 0.3
        self._topics = MORE_TOPICS if self._topics_change else TOPICS
        self._finishing = False
        self._choose_rules = random.Random(f"rules {seed}")
        self._rules_change = self._choose_rules.random() < 0.3
        self._choose_carried = random.Random(f"carried {seed}")
        # In some histories devices ping, and silence ends sessions.
        self._choose_heard = random.Random(f"heard {seed}")
        self._listens = seed % 10 in LISTENING
        # In some histories heartbeats have a topic of their own, in some of the runs.
        self._choose_apart = random.Random(f"apart {seed}")
        self.apart = self._choose_apart.random() < 0.3
        settings = Settings(
            input_topics=self._topics,
            output_topic=OUTPUT,
            dead_letter_topic=LETTERS,
            heartbeat_topic=self._some_heartbeat_topic(),
            summary_topic=SUMMARIES if self._choose_apart.random() < 0.3 else "",
            table_topic=TABLE if self._choose_apart.random() < 0.3 else "",
            lanes=LANES,
            **self._some_rules(),
            tick_ms=5,
            target_latency_ms=50,  # fewer turns, so more histories
            snapshot_ms=EPOCH_MS,
            monitor_group="",  # it has a client of its own
            new_store=seed % 2 == 0,  # then a lane begins at the end of its partition
            restore_timeout_ms=10**9,
            # In some histories a timestamp that is ahead makes a dead letter, for a while.
            max_clock_skew_ms=STRICT_SKEW_MS if seed % 10 == 7 else 60_000,
        )
        topics = dict.fromkeys(self._topics, PARTITIONS)
        topics |= dict.fromkeys((OUTPUT, BEATS, SUMMARIES, TABLE), LANES)
        topics |= {LETTERS: choose([1, 2])}
        self._time = SimulatedTime(lambda: self.world.now_ms, self._wait)
        self._leases = Leases(settings, seed, self._time)
        log, database = Log(topics), Database()
        self.world = World(BEGIN_MS, log, database, settings, self.random, self._leases)
        self.world.facts = self._some_facts()
        # Partitions that have a record in every answer, and how long ago it was timestamped.
        choose_busy = random.Random(f"busy {seed}").choice
        self._busy_ms = {
            (choose_busy(list(self._topics)), choose_busy([0, 1])): choose_busy([0, 3_000, 60_000])
            for _ in range(choose_busy([0, 0, 1, 2]))
        }
        # Devices of which each event is in any partition of any topic.
        choose_roaming = random.Random(f"roaming {seed}").choice
        self._roaming = set(DEVICES[: choose_roaming([0, 0, 2, 5])])
        # Topics of which the brokers set the timestamps, and by how much clocks are ahead of ours.
        self._choose_clock = random.Random(f"clocks {seed}").choice
        self._by_broker = {
            topic for topic in self._topics if self._choose_clock([False, False, True])
        }
        self._clocks_apart = self._choose_clock([False, True])
        self._ahead_ms: defaultdict[object, int] = defaultdict(self._choose_ahead_ms)
        # By how much our own clock may be wrong.
        self._wrong_ms = self._choose_clock([[], [], [300, 3_000], [3_000, 100_000, 3_600_000]])
        self._latest_ms = 0  # the latest timestamp that is an event's
        self._aside = random.Random(f"aside {seed}").random
        self._ways = random.Random(f"ways {seed}")
        self._brokers = Brokers(self.world.log, seed, self._append)
        idle_ms = self._brokers.choose_idle_ms()
        self.world.settings = replace(settings, idle_partition_ms=idle_ms)
        self._transactions: list[tuple[Where, list[int], int]] = []  # until when each is open
        self._transactional = random.Random(f"transactions {seed}")
        self._segment_bytes = choose([1, 200, 4_000])
        self._stalled: defaultdict[object, int] = defaultdict(int)
        self._losses = Losses(self.world, seed)
        self._starts: set[tuple[str, str, int]] = set()
        self._seen: dict[str, Seen] = {}
        self._history = self.world.history
        self._lane_ms: dict[int, tuple[int, bool]] = {}
        self.counts: Counter[str] = Counter()
        self.active: Run | None = None
        with self._time.instead():
            self._start(stopped=True)

    @property
    def _active(self) -> Run:
        assert self.active is not None
        return self.active

    def _some_rules(self) -> dict[str, Any]:
        """Return settings that the rules follow from."""
        choose = self._choose_rules.choice
        heartbeat_ms = self._beat_ms = choose([400, 1_000, 2_000])
        odd_ms = choose([0, 0, 1, heartbeat_ms // 2])
        return {
            "heartbeat_ms": 0 if self._is_quiet() else heartbeat_ms,
            "max_session_ms": heartbeat_ms * choose([1, 3, 6]) + odd_ms,
            "deduplication_window_ms": choose([heartbeat_ms, 4 * heartbeat_ms]),
            "catch_up": choose(["latest", "all"]),
            "carry_in_heartbeats": self._choose_carried.random() < 0.8,
        }

    def _is_quiet(self) -> bool:
        """Say whether a run has no heartbeats."""
        return self._listens and self._choose_heard.random() < 0.2

    def _some_facts(self) -> Facts:
        """Return what events are: by topic, how long a session may be silent."""
        facts, choose = Facts(self._choose_carried.random() < 0.3), self._choose_heard
        if self._listens:
            timeouts_ms = {topic: choose.choice(IDLE_TIMEOUTS_MS) for topic in self._topics}
            facts.idle_timeouts_ms = {topic: ms for topic, ms in timeouts_ms.items() if ms}
            platforms = self._topics.values()
            facts.opening = {name for name in platforms if choose.random() < 0.5}
        return facts

    def _some_heartbeat_topic(self) -> str:
        return self._choose_apart.choice(["", BEATS]) if self.apart else ""

    # What happens.

    def run(self, steps: int) -> None:
        """Take random steps, then let everything come to its end and compare."""
        kinds: dict[Callable[[], None], float] = {
            self.pass_time: 70,
            self.events: 18,
            self.stall: 4,
            self.crash: 3,
            self.lose_broker: 1,
            self.hold_up: 0.8,
            self.add_partition: 0.3,
            self.fail_delivery: 0.5,
            self.stop: 2 if self._rules_change else 0.5,
            self.correct_a_clock: 0.5,
            self.set_our_clock: 0.5,
            self.suspend: 0.5,
        }
        with segment_bytes(self._segment_bytes), self._time.instead():
            if self.world.settings.max_clock_skew_ms == STRICT_SKEW_MS or self._wrong_ms:
                self._store_a_dead_letter()
            for step in range(steps):
                self._brokers.trouble(self.world.now_ms)
                self._leases.trouble()
                self.take_over()
                if self._listens and self._choose_heard.random() < 0.03:
                    self.let_nobody_be_heard()
                if step == self._losses.step:
                    self._calm_down()
                    self._turns(80)
                    self.stop(self._lose)
                self.random.choices(list(kinds), list(kinds.values()))[0]()
            self.finish()
        settings = self.world.settings
        judge = Judge(settings, self.world.log, self._history, facts=self.world.facts)
        judge.check(OUTPUT, BEATS, LETTERS, self.world.now_ms)
        if settings.summary_topic:
            judge.check_summaries(OUTPUT, SUMMARIES)
        if settings.table_topic:
            judge.check_table(OUTPUT, TABLE)
        self.counts += judge.counts + self._brokers.counts + self._leases.counts
        self.counts += self._losses.counts

    def _store_a_dead_letter(self) -> None:
        """Wait until a snapshot knows the dead letters: then each later one is found again."""
        record = Record(self.world.now_ms, b"d0", b"?", None, self.world.now_ms)
        self.world.log.at((next(iter(TOPICS)), 0)).append(record)
        while DEAD_LETTER_KEY not in self.world.database.load("sink"):
            self.world.now_ms += 20
            self.go_on(0.9)

    def events(self) -> None:
        """Append some input."""
        for _ in range(self.random.randint(1, 4)):
            device = self.random.choice(DEVICES)
            where = self._place(device)
            value = self._value(device)
            time_ms = self._stamp(device) + self._ahead_ms[device]
            if self.random.random() < 0.02:
                time_ms = self.random.choice([-1, 0, time_ms - FAR_MS, time_ms + FAR_MS])
            record = Record(time_ms, device.encode(), value, None, self.world.now_ms)
            if self._listens and self._choose_heard.random() < 0.5:
                self._let_it_ping(record, device)
            if self.random.random() < 0.03:
                record.value = self.random.choice([*BAD_INPUT, None])
            self._append(where, record)

    def _let_it_ping(self, record: Record, device: str) -> None:
        """Have a ping in the place of an event, often when a session would go silent."""
        seen, choose = self._seen.get(device), self._choose_heard
        session = f"{device}-{choose.randrange(5)}"
        if seen is not None and choose.random() < 0.8:
            session = seen.session
        if seen is not None and choose.random() < 0.3:
            edge_ms = seen.started_ms + choose.choice(IDLE_TIMEOUTS_MS) + choose.choice([-1, 0, 1])
            record.time_ms = min(edge_ms, self.world.now_ms)
        record.value = self._event("Ping", device, session).value

    def _place(self, device: str) -> tuple[str, int]:
        """Return a topic and partition for an event."""
        number = int(device[1:])
        if device in self._roaming:
            topic = self.random.choice(list(self._topics))
            return topic, self.random.randrange(len(self.world.log.topics[topic]))
        topics = list(self._topics)
        return topics[number % len(topics)], number // len(topics) % 2

    def add_partition(self) -> None:
        """Give a topic one partition more, which the run notices some time later."""
        topic = self.random.choice(list(self._topics))
        if (topic, len(self.world.log.topics[topic])) in self._active.process_of:
            self.world.log.add_partitions(topic, 1)

    def _choose_ahead_ms(self) -> int:
        """Return by how much a broker's or a device's clock is ahead of ours."""
        return self._choose_clock([0, 0, 300, -300, 5_000, -5_000]) if self._clocks_apart else 0

    def correct_a_clock(self) -> None:
        """Let a broker's or a device's clock be set."""
        if self._ahead_ms:
            self._ahead_ms[self._choose_clock(list(self._ahead_ms))] = self._choose_ahead_ms()

    def _append(self, where: tuple[str, int], record: Record) -> None:
        if self._brokers.hold(where, record):
            return
        record.appended_ms, device = self.world.now_ms, (record.key or b"").decode()
        if where[0] in self._by_broker:
            record.time_ms = self.world.now_ms + self._ahead_ms[where]
            record.created = False
        # A start names its session for ever: no two in the same millisecond.
        while self._name(where[0], device, record) in self._starts:
            record.time_ms += 1
        if (name := self._name(where[0], device, record)) is not None:
            self._starts.add(name)
        if record.time_ms < self.world.now_ms + FAR_MS // 2:
            self._latest_ms = max(self._latest_ms, record.time_ms)
        if device in DEVICES and self._transactional.random() < 0.1:
            open_ms = self._transactional.choice([0, 10, 1_500, 5_000, 12_000])
            transaction = self.world.log.begin_transaction(where, record)
            self._transactions.append((where, transaction, self.world.now_ms + open_ms))
        else:
            self.world.log.at(where).append(record)

    def _name(self, topic: str, device: str, record: Record) -> tuple[str, str, int] | None:
        """Return the session that a record may begin; it is that of its device."""
        platform, created = self._topics[topic], record.created
        facts = self.world.facts
        fact = facts.read(record.value, topic, platform, record.time_ms, created=created)
        if not isinstance(fact, Fact) or not fact.is_start:
            return None
        return device, fact.session_id, record.time_ms

    def hold_up(self) -> None:
        """Let the end of a session wait behind a transaction, while nothing else is the matter."""
        self._hold(self._transactional, self._hold_by_transaction)

    def take_over(self) -> None:
        """Let the end of a session be where a leader does not know of it, or is none."""
        if self._ways.random() < 0.004:
            self._hold(self._ways, self._ways.choice([self._hold_by_leader, self._hold_at_a_start]))

    def _hold(self, choice: random.Random, hold: Callable[[Where, str, str], None]) -> None:
        device = choice.choice(DEVICES)
        where, session = self._place(device), f"{device}-held-{self.world.now_ms}"
        self._calm_down()
        self._turns(80)
        self._append(where, self._event("Start", device, session))
        self._turns(20)
        hold(where, device, session)
        self._turns(HELD_MS // 100 + 5, 100)
        self._calm_down()

    def _hold_by_transaction(self, where: Where, device: str, session: str) -> None:
        transaction = self.world.log.begin_transaction(where, self._event("End", device, "none"))
        self._transactions.append((where, transaction, self.world.now_ms + HELD_MS))
        self.world.log.at(where).append(self._event("End", device, session))

    def _hold_by_leader(self, where: Where, device: str, session: str) -> None:
        """Let another leader take over that does not know of the end, nor of what came before."""
        self.world.log.at(where).append(self._event("End", device, session))
        self.world.log.elect(where, 2)

    def _hold_at_a_start(self, where: Where, device: str, session: str) -> None:
        """Let a run publish the end and be killed; the next one does not get it for a while."""
        self._stalled["commit",] = self.world.now_ms + HELD_MS
        self.world.log.at(where).append(self._event("End", device, session))
        self._turns(20)
        self._end_run()
        self._start()
        if self._ways.random() < 0.5:
            self.world.log.elect(where, 2)
        else:
            self.world.log.lose_leader(where)

    def let_nobody_be_heard(self) -> None:
        """Let a partition be away for longer than a session may be silent, and nothing come of it.

        Its device is heard of again once the partition is back. Before that all had been read, the
        clock is right, and the session would not go silent in what counts of an outage. At times
        the run is killed before it knows of the outage, and the next one begins after it; then the
        device's sender has held its pings back, and is the last to send.
        """
        timeouts_ms = self.world.facts.idle_timeouts_ms
        limit_ms = self.world.settings.max_session_ms
        patient = {topic for topic, ms in timeouts_ms.items() if 2 * STALL_MS < ms < limit_ms}
        places = {device: self._place(device) for device in DEVICES if device not in self._roaming}
        devices = [one for one, where in places.items() if where[0] in patient - self._by_broker]
        if self._wrong_ms or not devices:
            return
        device = self._choose_heard.choice(devices)
        where, session = places[device], f"{device}-unheard-{self.world.now_ms}"
        self._calm_down()
        self._turns(80)
        self._append(where, self._event("Start", device, session))
        self._turns(40)
        run, lanes = self.active, [logic._lane for logic in self._lane_logics()]
        caught_up = len(lanes) == LANES and not any(lane.resuming for lane in lanes)
        caught_up = caught_up and all(lane.time.clock.live for lane in lanes)
        caught_up = caught_up and is_active(lanes, device, session)
        self.world.log.lose_leader(where)
        since_ms = self.world.now_ms
        held = caught_up and self._ways.random() < 0.5
        if held:
            caught_up = self._kill_before_it_knows(places, where)
            run = self.active
        else:
            self._turns(OUTAGE_MS // 100, 100)
        self._calm_down()
        back_ms = self.world.now_ms
        self._turns(80)
        if run is self.active and caught_up:
            self._history.unheard_until_ms[session] = back_ms
            self.counts["sessions unheard"] += 1
        for time_ms in range(since_ms, back_ms, 1_000) if held else ():
            self._append(where, replace(self._event("Ping", device, session), time_ms=time_ms))
        self._append(where, self._event("Ping", device, session))

    def _kill_before_it_knows(self, places: dict[str, Where], where: Where) -> bool:
        """Kill the run while an outage is short, and start another when the partition is back.

        Other partitions are written to meanwhile. Says whether that was the run which was there.
        """
        run = self.active
        self._turns(UNKNOWN_MS // 100, 100)
        if run is not self.active:
            return False
        self._end_run()
        for _ in range(self._ways.choice([5, 12])):
            self.world.now_ms += 1_000
            for device, other in places.items():
                if other != where:
                    self._append(other, self._event("End", device, "nobody"))
        self._calm_down()
        self._start()
        self.counts["kills before an outage is known"] += 1
        return True

    def _event(self, kind: str, device: str, session: str) -> Record:
        value = f'{{"type":"Game{kind}","device_id":"{device}","session_id":"{session}"}}'
        return Record(self.world.now_ms, device.encode(), value.encode(), None, self.world.now_ms)

    def _end_transactions(self, now_ms: int) -> None:
        """End the transactions whose time has come, one in four of them by an abort."""
        log = self.world.log
        due = [one for one in self._transactions if one[2] <= now_ms]
        for one in [one for one in due if one[0] not in log.leaderless]:
            self._transactions.remove(one)
            commit = self._transactional.random() < 0.75
            log.end_transaction(*one[:2], self.world.now_ms, commit=commit)

    def _stamp(self, device: str) -> int:
        """Return a time about now, or at or beside a moment that matters to the device."""
        heartbeat_ms = self._beat_ms
        now_ms = self.world.now_ms
        seen = self._seen.get(device)
        if seen is not None and self.random.random() < 0.3:
            edge_ms = seen.started_ms + self.random.choice([-1, 0, 1])
            edge_ms += heartbeat_ms * self.random.randint(1, 3)
            if -2 * heartbeat_ms < now_ms - edge_ms < 2 * heartbeat_ms:
                return edge_ms
        late_ms = self.random.choice([0, 0, 0, 1, 5, 40, heartbeat_ms, 2 * heartbeat_ms, -200])
        return now_ms - late_ms

    def _value(self, device: str) -> bytes:
        seen = self._seen.get(device)
        session = f"{device}-{self.random.randrange(5)}"
        kind = "Start"
        if seen is not None and self.random.random() < 0.6:
            session = seen.session
        if seen is not None and self.random.random() < 0.5:
            kind = "End"
        else:
            self._seen[device] = Seen(session, self.world.now_ms)
        return f'{{"type":"Game{kind}","device_id":"{device}","session_id":"{session}"}}'.encode()

    def set_our_clock(self) -> None:
        """Put our clock wrong or right; set back by over 2 s, the run ends, as signals see to."""
        if self._wrong_ms:
            wrong_ms = self._choose_clock(self._wrong_ms)
            self._set_our_clock(self._choose_clock([0, 0, wrong_ms, -wrong_ms]))

    def _set_our_clock(self, ahead_ms: int) -> None:
        before_ms, self.world.wall_ahead_ms = self.world.wall_ahead_ms, ahead_ms
        self.counts["clock set forward"] += before_ms < ahead_ms
        self.counts["clock set back"] += before_ms > ahead_ms
        if before_ms - ahead_ms > STEP_BACK_MS:
            self.world.now_ms += 200
            self.go_on(0.7)  # before it is noticed
            self._end_run()
            self.world.now_ms += 1_000
            self._start()

    def suspend(self) -> None:
        """Let time pass while nothing goes on."""
        self.world.now_ms += self.random.choice([400, 1_200, 5_000, 15_000, 60_000])
        self.go_on(0.7)

    def pass_time(self) -> None:
        """Let some time pass and everything go on that is not held up."""
        heartbeat_ms = self._beat_ms
        self.world.now_ms += self.random.choice(
            [0, 1, 2, 5, 5, 10, 10, 20, 20, 50, 100, 300, heartbeat_ms - 1, heartbeat_ms]
        )
        self.go_on(0.7)

    def stall(self) -> None:
        """Hold one thing up for a while."""
        process = self.random.randrange(len(self._active.processes))
        kinds = ["source", "restored", "lanes", "sink", "store"]
        channels = list(self._active.channels)
        what: object = self.random.choice(
            [
                (self.random.choice(kinds), process),
                ("process", process),
                ("broker",),
                ("fetch", self.random.choice(list(self._active.process_of))),
                ("take", process),
                ("commit",),
                self.random.choice(channels) if channels else ("process", process),
            ]
        )
        for_ms = self.random.choice([5, 50, 300, 700, 1_500, 4_000, 12_000])
        self._stalled[what] = self.world.now_ms + for_ms

    def crash(self) -> None:
        """End the run at once, be away for a while, and begin again; sometimes twice in a row."""
        self._end_run()
        heartbeat_ms = self._beat_ms
        away_ms = [0, 20, 500, heartbeat_ms, 3 * heartbeat_ms, 11_000]
        while True:
            self.world.now_ms += self.random.choice(away_ms)
            if self.random.random() < 0.5:
                self.events()
            self._start()
            for _ in range(self.random.choice([0, 1, 2, 5])):
                self.pass_time()
            if self.random.random() < 0.7:
                return
            self._end_run()

    def lose_broker(self) -> None:
        """Let the broker be away, and the clients know."""
        for_ms = self.random.choice([300, 1_500, 4_000])
        self._stalled["broker",] = self.world.now_ms + for_ms
        for process in self._active.processes:
            process.consumer.lose_broker()

    def fail_delivery(self) -> None:
        """Let Kafka refuse what is on its way; the run ends of it."""
        self.random.choice(self._active.processes).producer.fail()

    def _lose(self) -> bool:
        """Let topics lose something, or get what is not theirs; then let a start be refused.

        Says whether no run was there in between.
        """
        self.events()
        self._end_transactions(max((one[2] for one in self._transactions), default=0))
        if not self._losses.befall():
            return True
        self._start()
        try:
            self._turns(400)
        except ReconcileError:
            pass
        else:  # a lane without sessions has nothing to write, and does not look
            assert self._losses.stray_is_last(), "a stray record is taken for one of ours"
        self._end_run()
        self._losses.skip("is not Heartwheel's")
        return False

    def stop(self, between: Callable[[], bool] = lambda: True) -> None:
        """Stop cleanly and start again; between is for what happens if all had been read."""
        lanes = [logic._lane for logic in self._lane_logics()]
        # Else what a crashed run has read may still be to be read again.
        caught_up = len(lanes) == LANES and all(lane.time.clock.live for lane in lanes)
        self._drain()
        stopped = self._active.ended and caught_up
        if self._active.ended:
            self._leases.release()
        self._end_run()
        self.world.now_ms += self.random.choice([20, 500, 3_000])
        self._start(stopped=stopped and between())

    # How it goes on.

    def go_on(self, share: float) -> None:
        """Give everything that is not held up a turn with this probability, in any order."""
        try:
            self._go_on(share)
        except (DeliveryError, LeaseError) as error:
            if isinstance(error, LeaseError):
                self._leases.check_end(error)
            self.counts["failed runs"] += 1
            self._end_run()
            self._start()

    def _wait(self, for_ms: int) -> None:
        """Let time pass for all, because one waits; only the leases have threads of their own."""
        self.world.now_ms += for_ms
        self._leases.go_on()

    def _go_on(self, share: float) -> None:
        active, chance, stalled = self._active, self.random.random, self._stalled
        now_ms = self.world.now_ms
        self._go_on_in_kafka(now_ms)
        for process in active.processes:
            if chance() < 0.02:
                process.topics.look()
        take: dict[str, Callable[[Any], None]] = {
            "source": active.source,
            "restored": active.restored,
            "lanes": self._lanes,
            "sink": active.sink,
            "store": active.store,
            "take": self._take,
            "fetch": self._fetch,
            "deliver": self._deliver,
            "commit": lambda _: active.commit(),
        }
        turns: list[tuple[str, object]] = [
            (kind, index)
            for kind in ("source", "restored", "lanes", "sink", "store", "take")
            for index in range(len(active.processes))
        ]
        turns += [("fetch", where) for where in active.process_of]
        turns += [("deliver", channel) for channel, waiting in active.channels.items() if waiting]
        turns.append(("commit", 0))
        self.random.shuffle(turns)
        for kind, which in turns:
            if chance() > share:
                continue
            if kind == "deliver":
                held_ms = max(stalled[which], stalled["process", which[2]])  # type: ignore[index]
            elif kind in ("fetch", "take"):
                held_ms = max(stalled[kind, which], stalled["broker",])
            elif kind == "commit":
                held_ms = stalled["commit",]
            else:
                held_ms = max(stalled[kind, which], stalled["process", which])
            if held_ms <= now_ms:
                take[kind](which)

    def _go_on_in_kafka(self, now_ms: int) -> None:
        """Let brokers and leases have their turns, and the clients hear of leaders."""
        self._brokers.go_on(now_ms)
        self._end_transactions(now_ms)
        if self._aside() < 0.8:
            self._leases.go_on()
        for process in self._active.processes:
            if self._aside() < 0.3:
                process.consumer.tell_leaders(*self.world.log.leaderless)

    def _deliver(self, channel: tuple[str, int, int]) -> None:
        self._active.deliver(channel, self.random.choice([1, 3, 1_000]))

    def _fetch(self, where: tuple[str, int]) -> None:
        if where in self._busy_ms and where not in self.world.log.leaderless:
            self._append_busy(where)
        self._active.process_of[where].consumer.fetch(where, self.random.choice([1, 5, 1_000]))

    def _append_busy(self, where: tuple[str, int]) -> None:
        """Append the end of a session that never starts."""
        now_ms, offset = self.world.now_ms, len(self.world.log.at(where))
        device = f"busy-{'-'.join(map(str, where))}-{offset}"
        value = f'{{"type":"GameEnd","device_id":"{device}","session_id":"s"}}'.encode()
        record = Record(now_ms - self._busy_ms[where], device.encode(), value, None, now_ms)
        self._append(where, record)

    def _take(self, index: int) -> None:
        producer = self._active.processes[index].producer
        for where in list(producer.flying):
            producer.take(where, self.random.choice([0, 1, 5, 1_000]))

    def _lanes(self, index: int) -> None:
        """Turn a process's lanes, and note which time each made up for at once."""
        self._active.lanes(index)
        process = self._active.processes[index]
        latest = self.world.settings.catch_up == "latest"
        for logic in process.lanes.logics.values():
            lane = logic._lane
            fired_ms, resuming = self._lane_ms.get(lane.lane, (NEVER_MS, True))
            step_ms = lane.watermark_ms - fired_ms
            if latest and step_ms > 0 and (resuming or step_ms > PAUSE_MS):
                skip = Skip(fired_ms, lane.watermark_ms, process.clock.now_ms())
                self._history.skips[lane.lane].append(skip)
            self._lane_ms[lane.lane] = lane.watermark_ms, lane.resuming

    def _note_unfinished_skips(self, active: Run) -> None:
        """Note what lanes were making up for at once: sessions that have ended got the newest."""
        if self.world.settings.catch_up == "latest":
            for process in active.processes:
                now_ms = process.clock.now_ms()
                for logic in process.lanes.logics.values():
                    lane = logic._lane
                    if lane.resuming:
                        skip = Skip(lane.watermark_ms, now_ms, now_ms)
                        self._history.skips[lane.lane].append(skip)

    # Runs.

    def _start(self, *, stopped: bool = False) -> None:
        database = self.world.database
        self.world.resume()
        self._change_topics(stopped=stopped)
        if stopped and self._is_settled():
            topic = self._some_heartbeat_topic()
            self.counts["changes of the heartbeat topic"] += (
                topic != self.world.settings.heartbeat_topic
            )
            self.world.settings = replace(self.world.settings, heartbeat_topic=topic)
        if (
            stopped
            and self._rules_change
            and not self._finishing
            and self._choose_rules.random() < 0.7
        ):
            self.world.settings = replace(self.world.settings, **self._some_rules())
            self.counts["runs with other rules"] += 1
        self.active = self._run()
        self.counts["runs with a wrong clock"] += self.world.wall_ahead_ms != 0
        self._stalled.clear()
        self._lane_ms = {state[2]: (state[3], True) for state in database.load("sessions").values()}
        self.counts["runs"] += 1

    def _is_settled(self) -> bool:
        """Say whether the store knows of all output, so that it may go on elsewhere."""
        log = self.world.log
        boxes = [
            (lane, read_outbox(lane, state))
            for key, state in self.world.database.load("sink").items()
            if key != DEAD_LETTER_KEY
            for lane in [int(key.removeprefix("lane-"))]
        ]
        return all(
            not box.waiting
            and box.end_offset == len(log.at((OUTPUT, lane)))
            and all(one.end_offset == len(log.at((one.topic, lane))) for one in box.apart.values())
            for lane, box in boxes
        )

    def _run(self) -> Run:
        """Return a run, once it has the lease: a supervisor starts it until then."""
        while True:
            try:
                return Run(self.world)
            except LeaseError as error:
                self._leases.check_end(error)
                self.world.now_ms += 1_000

    def _change_topics(self, *, stopped: bool) -> None:
        """Let a topic join; once a run that had caught up was stopped, one may leave as well."""
        before = self.world.settings.input_topics
        names = set(self._topics)
        if self._topics_change and not self._finishing:
            names.remove(self._choose_topics.choice(sorted(names)))
            names |= set() if stopped else before.keys()
        topics = {name: self._topics[name] for name in self._topics if name in names}
        self.counts["runs with other topics"] += topics != before
        self.world.settings = replace(self.world.settings, input_topics=topics)

    def _end_run(self) -> None:
        active, self.active = self._active, None
        self._note_unfinished_skips(active)
        active.crash()
        stored = self.world.database.load("sink").get(DEAD_LETTER_KEY)
        if stored is None or stored == self._history.letters_at_loss:
            # The first letters, of all or since some were lost: a run that has no snapshot of them
            # sends them again.
            written = self.world.log.written.items()
            records = chain(*(some for where, some in written if where[0] == LETTERS))
            self._history.doubled_letters += Counter({letter_of(record) for record in records})
        self._history.pasts.append(active.past())

    def _calm_down(self) -> None:
        """Hold nothing up, and let all brokers be there."""
        self._stalled.clear()
        self._brokers.settle()
        self._leases.settle()

    def _drain(self) -> None:
        """Stop the sources and wait for the end."""
        active = self._active
        self._calm_down()
        for process in active.processes:
            process.stop.set()
        for _ in range(2_000):
            if active.ended or active is not self.active:
                assert not any(process.producer for process in active.processes), "not flushed"
                return
            self.world.now_ms += 5
            self.go_on(0.9)
        msg = "a stop does not come to its end"
        raise AssertionError(msg)

    def finish(self) -> None:
        """Let everything arrive and every session time out, stop, and look for leaks."""
        self._set_our_clock(0)
        self._finishing = True
        if self.world.settings.input_topics != self._topics:
            self.stop()
        self._calm_down()
        settings = self.world.settings
        for process in self._active.processes:
            process.topics.look()
        self._end_transactions(max((one[2] for one in self._transactions), default=0))
        end_ms = max(self.world.now_ms, self._latest_ms)
        end_ms += settings.max_session_ms + 4 * self._beat_ms
        while self.world.now_ms < end_ms:
            self.world.now_ms += 400
            self.go_on(0.9)
        self._turns_until(self._is_all_over, "a session never ends")
        self._busy_ms.clear()
        while not self._active.ended:  # a run that fails instead is followed by another
            self._turns_until(self._is_all_read, "some input is never read")
            self._turns_until(self._is_all_over, "a session of late input never ends")
            self._drain()
        self._end_run()

    def _turns_until(self, is_so: Callable[[], bool], otherwise: str) -> None:
        """Let things go on, for long enough that only a fault is in the way of what is waited for.

        One commit may take many turns, and a source that waits for it reads nothing meanwhile. A
        run that begins anew meanwhile needs a turn for each row of its store.
        """
        for _ in range(200):
            self._turns(40)
            if is_so():
                return
        raise AssertionError(otherwise)

    def _is_all_over(self) -> bool:
        """Say whether every lane has caught up, and no session is active."""
        lanes = [logic._lane for logic in self._lane_logics()]
        return not any(lane.resuming or lane.table.active for lane in lanes)

    def _is_all_read(self) -> bool:
        """Say whether the sources have taken all input, which may still be on its way to a lane."""
        log = self.world.log
        read = [
            (part, len(log.at(where)))
            for where, process in self._active.process_of.items()
            if where[1] < len(log.topics[where[0]])
            for part in [process.source.parts["/".join(map(str, where))].logic._part]
        ]
        return all(part is not None and max(0, part.next_offset) >= end for part, end in read)

    def _lane_logics(self) -> list[Any]:
        return [
            logic for process in self._active.processes for logic in process.lanes.logics.values()
        ]

    def _turns(self, count: int, step_ms: int = 20) -> None:
        for _ in range(count):
            self.world.now_ms += step_ms
            self.go_on(0.9)


def is_active(lanes: list[Lane], device: str, session_id: str) -> bool:
    """Say whether a session is the active one of a device."""
    (lane,) = (one for one in lanes if one.lane == lane_of(key_group_of(device), LANES))
    session = lane.table.find(device)
    return session is not None and session.session_id == session_id


def simulate(seed: int, steps: int = 100) -> Simulation:
    """Run one history; an error names the seed."""
    simulation = Simulation(seed)
    try:
        simulation.run(steps)
    except Exception as error:
        error.add_note(f"seed={seed} steps={steps} {simulation.world.settings.rules()}")
        raise
    return simulation


def main() -> None:
    """Run as many histories as the command line says, from the seed it says on."""
    count = int(sys.argv[1])
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    logging.getLogger().addHandler(logging.NullHandler())  # what the runs log is not wanted
    began_s = time.monotonic()
    counts: Counter[str] = Counter()
    for seed in range(first, first + count):
        counts += simulate(seed).counts
        if (seed - first + 1) % 100 == 0 or seed == first + count - 1:
            took_s = time.monotonic() - began_s
            print(f"{seed - first + 1} histories in {took_s:.0f} s: {dict(counts)}", flush=True)


if __name__ == "__main__":
    main()
