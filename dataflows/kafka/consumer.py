"""One consumer for all input partitions of a process: it is opened, assigned, polled, closed."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from datetime import datetime
from threading import Lock, get_ident
from uuid import uuid4

from confluent_kafka import (
    OFFSET_BEGINNING,
    TIMESTAMP_CREATE_TIME,
    Consumer,
    KafkaError,
)
from confluent_kafka import Message as KafkaMessage

from dataflows.clock import system_time
from dataflows.kafka.backlog import Backlog
from dataflows.kafka.client import (
    HANGING_MS,
    TRANSIENT,
    MakeConsumer,
    consumer_options,
    make_consumer,
)
from dataflows.kafka.end_of_input import BrokerContact
from dataflows.kafka.headers import headers_of
from dataflows.kafka.known_ends import KnownEnds
from dataflows.kafka.leaders import Leaders
from dataflows.kafka.offset_commits import OffsetCommitter
from dataflows.kafka.parking import park_held
from dataflows.kafka.partition import InputPartition
from dataflows.kafka.snapshots import SourceSnapshots
from dataflows.kafka.source_errors import source_error
from dataflows.kafka.start_offset import end_offset, start_offset
from dataflows.logs import log
from dataflows.messages import Message
from dataflows.run_state import RunState
from dataflows.settings import Settings
from dataflows.start import start_ms
from dataflows.tick import Tick
from dataflows.timer_slack import DEFAULT_US, LATE_US, set_timer_slack
from session_logic.errors import HeartwheelError

MAX_POLL = 5_000
# What may wait for the lanes; one poll brings no more than librdkafka's queue holds.
MAX_PENDING = 20_000
MAX_PENDING_BYTES = 64_000_000
# Ticks grow with every so many messages in one, and are longest with none for so long.
BUSY_MESSAGES = 64
IDLE_MS = 1_000

_Place = tuple[str | None, int | None]  # as a message tells it


class SharedConsumer:
    """The consumer of this process, shared by its partitions."""

    def __init__(
        self,
        settings: Settings,
        run: RunState,
        on_tick: Callable[[], None] = lambda: None,
        make_consumer: MakeConsumer = make_consumer,
    ) -> None:
        self._settings = settings
        self._run = run
        self._clock = run.clock
        self._on_tick = on_tick
        self._make_consumer = make_consumer
        self._consumer: Consumer | None = None
        # A list, because other worker threads add to it at the start while one goes through it.
        self._partitions: list[InputPartition] = []
        self._not_fetched: deque[InputPartition] = deque()
        self._by_place: dict[_Place, InputPartition] = {}
        self._open: set[InputPartition] = set()
        self._contact = BrokerContact()
        self._platforms = settings.platforms
        self._backlog = Backlog(self._partitions, self._contact)
        self._leaders = Leaders(settings.all_input_topics, self._partitions)
        self.name = uuid4().hex  # of this consumer among those of the cluster
        self.ends = KnownEnds(self.name, self._partitions, self._contact, run)
        self.snapshots = SourceSnapshots(self._partitions, run)
        # One worker thread polls for all, so that the messages of a partition keep their order.
        self._polling = Lock()
        self._tick = Tick(
            settings.tick_ms,
            settings.target_latency_ms,
            busy_work=BUSY_MESSAGES,
            idle_ms=IDLE_MS,
        )
        self._wake_ms = self._awake_ms = self._polled_ms = 0
        self._slacks_us: dict[int, int] = {}  # of the threads that have polled
        self._fetched_early = 0  # messages that came while a lane was restored
        self._awake_at = system_time(0)
        # What another thread has found that must end the run.
        self.failure: HeartwheelError | None = None
        # Looks for such a thing at once.
        self.look: Callable[[], None] = lambda: None

    def open(self) -> Consumer:
        """Return the consumer, made on first use; raises ConfigError for a wrong option."""
        if self._consumer is None:
            required = {
                # Offsets are Bytewax's business: no group is joined, nothing is committed here.
                "group.id": "heartwheel",
                "enable.auto.commit": "false",
                "enable.auto.offset.store": "false",
                # Says when a partition has been read to its end.
                "enable.partition.eof": "true",
                # An offset that no longer exists is data lost, not a reason to jump.
                "auto.offset.reset": "error",
            }
            defaults = {
                "fetch.min.bytes": "1",
                "queued.max.messages.kbytes": "65536",
                "fetch.wait.max.ms": "500",
                "statistics.interval.ms": "500",
                "socket.timeout.ms": HANGING_MS,
            }
            options = consumer_options(self._settings, required, defaults)
            self._consumer = self._make_consumer(
                options | {"stats_cb": self._contact.note_statistics}
            )
            self._contact.expect_answers(int(options["fetch.wait.max.ms"]))
            if self._settings.monitor_group:
                self.snapshots.commit_with(OffsetCommitter(self._settings, self._make_consumer))
        return self._consumer

    @property
    def is_open(self) -> bool:
        """Whether any partition is being read."""
        return bool(self._open)

    def assign(self, topic: str, number: int, offset: int | None) -> InputPartition:
        """Begin to read a partition, from the offset or from where the settings say.

        A moment in the settings also says where to begin in a partition from its beginning.
        It is fetched from the next poll on: a fetch holds up the question where the next one ends,
        by up to half a second.
        """
        self.open()
        new, end = offset is None, 0
        start = self._settings.start
        if offset is None or (offset < 0 and start_ms(start) is not None):
            offset = start_offset(self.open(), topic, number, start)
        elif offset >= 0:
            # An earlier run may have acted on what is there: it is read before time passes.
            end = end_offset(self.open(), topic, number)
        where = "earliest" if offset == OFFSET_BEGINNING else offset
        log.info("reading", topic=topic, partition=number, offset=where)
        part = InputPartition(topic, number, offset, end_offset=end, new=new)
        part.idle_ms = self._settings.idle_partition_ms
        self._run.heard_ms.setdefault((topic, self._platforms[topic]), self._run.elapsed_ms())
        self._by_place[topic, number] = part
        self._open.add(part)
        self._partitions.append(part)
        self._not_fetched.append(part)
        return part

    def fetch_new(self) -> None:
        """Begin to fetch the partitions that have been assigned since this was last called."""
        consumer = self.open()
        while self._not_fetched:  # one by one, because other worker threads may be adding to it
            consumer.incremental_assign([self._not_fetched.popleft().position()])

    def poll(self) -> int:
        """Move what has come to the partitions, once a tick or when there is more; return now."""
        now = self._polled_ms = self._clock.now_ms()
        if now >= self._wake_ms and self._polling.acquire(blocking=False):
            try:
                if self._consumer is not None:
                    self._fetch(self._consumer, now)
            finally:
                self._polling.release()
        return now

    def _fetch(self, consumer: Consumer, now: int) -> None:
        self._on_tick()
        self._set_slack(now)
        if self.failure is not None:
            raise self.failure
        self.fetch_new()
        self.ends.invalidate(consumer, self._contact.held_until_pause(now))
        if self._has_enough():
            self._wake_ms = self._tick.next_ms(now)
            return
        messages = consumer.consume(MAX_POLL, 0)  # gives statistics to the contact as well
        if messages:
            self._fetched_early += len(messages) * self._run.restoring()
            self._dispatch(consumer, messages, now)
        self._leaders.note(self._contact.leaderless, now)
        for part in self._partitions:
            if part.goals:
                part.check_goals()
        self.ends.check(consumer, now)
        self.ends.refetch(consumer)
        self.ends.invalidate(consumer, self._contact.held_until_loss())
        park_held(consumer, self._partitions, now)
        self._backlog.note_poll(consumer, len(messages), now)
        self._tick.note_work(now, len(messages))
        self._wake_ms = now if len(messages) == MAX_POLL else self._tick.next_ms(now)

    def _set_slack(self, now: int) -> None:
        """Let this thread be woken up late where that is worth more than the latency it costs.

        It is when nothing comes, and in a cluster, where each turn of the loop costs more. Threads
        of Kafka's clients inherit it, so it is not set before they are made.
        """
        slack_us = LATE_US if self._tick.is_idle(now) or not self._run.epochs.alone else DEFAULT_US
        if self._slacks_us.get(get_ident(), DEFAULT_US) != slack_us:
            set_timer_slack(slack_us)
            self._slacks_us[get_ident()] = slack_us

    def _has_enough(self) -> bool:
        """Say whether the lanes are slower than Kafka, or cannot do anything yet.

        What comes to a lane while it is restored goes into one row of the store, which is written
        whole at each snapshot: without a limit, a restore under a backlog would take longer the
        longer it took.
        """
        parts = [part for part in self._partitions if not part.parked]
        return (
            sum(len(part.pending) for part in parts) > MAX_PENDING
            or sum(part.pending_bytes for part in parts) > MAX_PENDING_BYTES
            or (self._fetched_early > MAX_PENDING and self._run.restoring())
        )

    def awake_at(self) -> datetime:
        """Return when to poll next; every partition asks after each of its turns."""
        awake_ms = self._run.epochs.turn_ms(self._wake_ms, self._polled_ms)
        if awake_ms != self._awake_ms:
            self._awake_ms, self._awake_at = awake_ms, self._clock.at_ms(awake_ms)
        return self._awake_at

    def _dispatch(self, consumer: Consumer, messages: Iterable[KafkaMessage], now: int) -> None:
        """Give each partition its messages, and tell it where its log ended."""
        fetched: defaultdict[_Place, list[Message]] = defaultdict(list)
        ends: dict[_Place, int] = {}
        lost = False
        before_ms = -1
        for message in messages:
            where, offset = (message.topic(), message.partition()), message.offset()
            if (error := message.error()) is None:
                assert offset is not None
                kind, time_ms = message.timestamp()
                if time_ms == before_ms:
                    time_ms = before_ms  # one object, because a session keeps it
                before_ms = time_ms
                created = kind == TIMESTAMP_CREATE_TIME
                key, value, headers = message.key(), message.value(), headers_of(message)
                fetched[where].append((offset, time_ms, key, value, created, headers))
            elif error.code() == KafkaError._PARTITION_EOF:
                assert offset is not None
                ends[where] = offset
            elif error.code() in TRANSIENT:
                lost = True
            else:
                self.look()  # that a topic was made anew says more
                raise self.failure or source_error(message.topic(), message.partition(), error)
        for where, added in fetched.items():
            self._by_place[where].add(added)
            self._note_heard(self._by_place[where].topic)
        for where, offset in ends.items():
            self._by_place[where].skip_to(offset)
        for where in fetched.keys() | ends.keys():
            self.ends.note_answer(consumer, self._by_place[where], now)
        if lost:
            self._contact.note_error()

    def _note_heard(self, topic: str) -> None:
        """Note that a record of a topic has come."""
        self._run.heard_ms[topic, self._platforms[topic]] = self._run.elapsed_ms()

    def close(self, part: InputPartition) -> None:
        """Close the consumer with the last of its partitions."""
        with self._polling:
            self._open.discard(part)
            if self._consumer is not None and not self._open:
                consumer, self._consumer = self._consumer, None
                consumer.close()
                self.snapshots.close()
