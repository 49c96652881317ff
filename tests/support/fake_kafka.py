"""Kafka in memory, slow on purpose: what source, sink and tails call of their clients.

Nothing moves by itself: the simulation says when a record is taken in, fetched or acknowledged,
when a transaction begins and ends, what retention or compaction takes away, and which partition
has no leader, or one that has just taken over.

Such a leader has every record, but its high watermark is the one that it was told last. It stays
there until the leader has heard from the other replicas, and then has come to all that was
committed. Meanwhile a fetch brings nothing from behind it, an end of the log is refused (KIP-207),
and no record is acknowledged.
"""

import json
import random
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_LOG_APPEND_TIME,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin._config import ConfigResource
from msgspec import Struct

from dataflows.kafka.end_of_input import PAUSE_MS
from dataflows.kafka.partition import REPORT_MS

Where = tuple[str, int]
UNKNOWN_OFFSET = -1001
EOF = KafkaError(KafkaError._PARTITION_EOF)
FATAL = KafkaError(KafkaError._FATAL, "a record was refused", fatal=True)
PURGED = KafkaError(KafkaError._PURGE_QUEUE)
AWAY = KafkaError(KafkaError._ALL_BROKERS_DOWN)
NO_LEADER = KafkaError(KafkaError.LEADER_NOT_AVAILABLE)
NOT_YET = KafkaError(KafkaError.OFFSET_NOT_AVAILABLE)


class Record(Struct):
    """A record in the log; appended_ms is when the broker took it in.

    A hidden one has an offset, and no client ever sees it: the marker of a transaction, what was
    aborted, and what was compacted away. created says that the sender has set the time, and not
    the broker.
    """

    time_ms: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, Any] | list[tuple[str, Any]] | None
    appended_ms: int
    hidden: bool = False
    created: bool = True


class Log:
    """The topics of the broker, of each partition where it begins, and its open transactions."""

    def __init__(self, partitions: dict[str, int]) -> None:
        self.topics: dict[str, list[list[Record]]] = {}
        # All that producers have put in, whatever has become of it.
        self.written: defaultdict[Where, list[Record]] = defaultdict(list)
        self.low: defaultdict[Where, int] = defaultdict(int)
        # What is in the open transactions of a partition, in the order in which they began.
        self._open: defaultdict[Where, list[list[int]]] = defaultdict(list)
        self.ids: dict[str, str] = {}
        self.leaderless: set[Where] = set()
        self.after_ask: Callable[[Where], None] = lambda _: None
        # The high watermark of a leader that has not heard from the other replicas yet.
        self._early: dict[Where, int] = {}
        self._made = 0
        self.cluster_id = "cluster-1"
        self.ports: tuple[int, ...] = (9092,)  # of the brokers
        # The settings of topics, or the error that comes in their place.
        self.configs: dict[str, dict[str, str] | Exception] = {}
        for name, count in partitions.items():
            self.make(name, count)

    def make(self, name: str, count: int) -> None:
        """Make a topic, also one that was there before."""
        self.topics[name] = [[] for _ in range(count)]
        for number in range(count):
            self.low.pop((name, number), None)
        self._made += 1
        self.ids[name] = f"id-{self._made}"

    def add_partitions(self, name: str, count: int) -> None:
        """Give a topic so many more partitions."""
        self.topics[name] += [[] for _ in range(count)]

    def at(self, where: Where) -> list[Record]:
        return self.topics[where[0]][where[1]]

    def begin_transaction(self, where: Where, record: Record) -> list[int]:
        """Append the first record of a transaction; return what names the transaction."""
        self.at(where).append(record)
        self._open[where].append([len(self.at(where)) - 1])
        return self._open[where][-1]

    def end_transaction(
        self, where: Where, transaction: list[int], now_ms: int, *, commit: bool
    ) -> None:
        """Append the marker of a transaction; what was aborted is never seen."""
        self._open[where] = [other for other in self._open[where] if other is not transaction]
        if not commit:
            for offset in transaction:
                self.at(where)[offset].hidden = True
        self.at(where).append(Record(now_ms, None, None, None, now_ms, hidden=True))

    def high(self, where: Where) -> int:
        """Return the high watermark, as the leader knows it."""
        return min(len(self.at(where)), self._early.get(where, len(self.at(where))))

    def stable(self, where: Where) -> int:
        """Return where a partition ends for those who read only what is committed."""
        return min([self.high(where), *(offsets[0] for offsets in self._open[where])])

    def lose_leader(self, where: Where) -> None:
        """Let a partition have no leader."""
        self.leaderless.add(where)

    def elect(self, where: Where, missing: int) -> None:
        """Let a leader take over, whose high watermark lacks so many of the records."""
        self.leaderless.discard(where)
        self._early[where] = max(self.low[where], len(self.at(where)) - missing)

    def settle(self, where: Where) -> None:
        """Let a partition have a leader that has heard from the other replicas."""
        self.leaderless.discard(where)
        self._early.pop(where, None)

    def takes_in(self, where: Where) -> bool:
        """Say whether a record would be acknowledged."""
        return where not in self.leaderless and where not in self._early

    def ask_end(self, where: Where) -> int:
        """Return where a partition ends; who is refused and asks again has waited for long enough.

        Raises KafkaException while it has no leader, or one that does not know it yet.
        """
        if self.takes_in(where):
            end = len(self.at(where))
            self.after_ask(where)
            return end
        error = NO_LEADER if where in self.leaderless else NOT_YET
        self.settle(where)
        raise KafkaException(error)

    def expire(self, where: Where, low: int) -> None:
        """Take away what is before an offset, as retention does."""
        self.low[where] = max(self.low[where], low)

    def list_topics(self, topic: str | None, timeout: float) -> SimpleNamespace:
        known = {
            name: SimpleNamespace(error=None, partitions=parts)
            for name, parts in self.topics.items()
            if topic in (None, name)
        }
        return SimpleNamespace(topics=known)


class Admin:
    """Describes topics and their cluster."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def describe_topics(
        self, wanted: TopicCollection, request_timeout: float
    ) -> dict[str, Future[SimpleNamespace]]:
        assert request_timeout > 0
        answers = {}
        for name in wanted.topic_names:
            answers[name] = answer = Future[SimpleNamespace]()
            if name in self._log.topics:
                found = SimpleNamespace(
                    topic_id=self._log.ids[name], partitions=self._log.topics[name]
                )
                answer.set_result(found)
            else:
                unknown = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
                answer.set_exception(KafkaException(unknown))
        return answers

    def describe_configs(
        self, wanted: list[ConfigResource], request_timeout: float
    ) -> dict[ConfigResource, Future[Any]]:
        assert request_timeout > 0
        answers = {}
        for resource in wanted:
            answers[resource] = answer = Future[Any]()
            config = self._log.configs.get(resource.name, {})
            if isinstance(config, Exception):
                answer.set_exception(config)
            else:
                answer.set_result(
                    {name: SimpleNamespace(value=value) for name, value in config.items()}
                )
        return answers

    def list_topics(self, timeout: float) -> SimpleNamespace:
        brokers = {n: SimpleNamespace(port=port) for n, port in enumerate(self._log.ports, 1)}
        about = {"cluster_id": self._log.cluster_id, "controller_id": 1, "brokers": brokers}
        return SimpleNamespace(**about, topics=self._log.list_topics(None, timeout).topics)


class Message:
    """A record, or an error, as a client sees it."""

    def __init__(
        self, where: Where | None, offset: int | None, record: Record | None, error: Any = None
    ):
        self._where, self._offset, self._record, self._error = where, offset, record, error

    def topic(self) -> str | None:
        return self._where[0] if self._where else None

    def partition(self) -> int | None:
        return self._where[1] if self._where else None

    def offset(self) -> Any:
        return self._offset

    def error(self) -> Any:
        return self._error

    def timestamp(self) -> tuple[int, int]:
        kind = TIMESTAMP_CREATE_TIME if self._record.created else TIMESTAMP_LOG_APPEND_TIME
        return kind, self._record.time_ms

    def key(self) -> bytes | None:
        return self._record.key

    def value(self) -> bytes | None:
        return self._record.value

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        headers = self._record.headers
        if headers is None:
            return None
        if isinstance(headers, dict):
            headers = list(headers.items())
        return [(name, v.encode() if isinstance(v, str) else v) for name, v in headers]


class Producer:
    """Idempotent and in order; a record is in the log when `take` says so, known of by `poll`."""

    tells_offset = staticmethod(lambda: True)  # or only that a record is there

    def __init__(self, log: Log, choice: random.Random, now_ms: Callable[[], int]) -> None:
        self._log = log
        self._random = choice
        self._now_ms = now_ms
        self._failed = False
        self.on_produce: Callable[[], None] = lambda: None
        self._limit = choice.choice([3, 40, 100_000])
        self.flying: dict[Where, deque[tuple[Record, Callable[..., None] | None]]] = {}
        self._reports: deque[Callable[[], None]] = deque()

    def list_topics(self, topic: str | None, timeout: float) -> SimpleNamespace:
        return self._log.list_topics(topic, timeout)

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | str | None,
        partition: int,
        callback: Callable[..., None] | None = None,
        on_delivery: Callable[..., None] | None = None,
        timestamp: int = 0,
        headers: list[tuple[str, Any]] | None = None,
    ) -> None:
        if self._failed:
            raise KafkaException(FATAL)
        self.on_produce()
        queue = self.flying.setdefault((topic, partition), deque())
        if len(queue) >= self._limit:
            raise BufferError
        key = key.encode() if isinstance(key, str) else key
        queue.append((Record(timestamp, key, value, headers, 0), callback or on_delivery))

    def take(self, where: Where, count: int) -> None:
        """Put the first records that are on their way to a partition into the log."""
        queue, log = self.flying[where], self._log.at(where)
        if not self._log.takes_in(where):
            return
        for _ in range(min(count, len(queue))):
            record, on_delivery = queue.popleft()
            record.appended_ms = self._now_ms()
            log.append(record)
            self._log.written[where].append(record)
            if on_delivery is not None:
                offset = len(log) - 1 if self.tells_offset() else None
                message = Message(where, offset, record)
                self._reports.append(lambda f=on_delivery, m=message: f(None, m))

    def fail(self, error: KafkaError = FATAL) -> None:
        """Give up what is on its way, with such an error of each, and take nothing any more."""
        self._failed = True
        for where, queue in self.flying.items():
            for _, on_delivery in queue:
                if on_delivery is not None:
                    message = Message(where, -1, None)
                    self._reports.append(lambda f=on_delivery, m=message: f(error, m))
        self.flying = {}

    def purge(self, *, blocking: bool) -> None:
        """Give up what is on its way, but for what has been sent already."""
        assert not blocking
        for where, queue in self.flying.items():
            self.take(where, self._random.choice([0, 0, len(queue) // 2]))
            for _, on_delivery in queue:
                if on_delivery is not None:
                    message = Message(where, -1, None)
                    self._reports.append(lambda f=on_delivery, m=message: f(PURGED, m))
        self.flying = {}

    def __len__(self) -> int:
        return sum(map(len, self.flying.values())) + len(self._reports)

    def poll(self, timeout: float) -> int:
        if timeout:  # the caller waits for room
            self._take_all()
        count = len(self._reports) if timeout else self._random.randint(0, len(self._reports))
        for _ in range(count):
            self._reports.popleft()()
        return count

    def _take_all(self) -> None:
        for where, queue in self.flying.items():
            self._log.settle(where)
            self.take(where, len(queue))

    def flush(self, timeout: float) -> int:
        self._take_all()
        while self._reports:
            self._reports.popleft()()
        return 0

    def crash(self) -> None:
        """Lose what is on its way, but for as much as may have got through."""
        for where, queue in self.flying.items():
            self.take(where, self._random.choice([0, len(queue), self._random.randint(0, 3)]))
        self.flying, self._reports = {}, deque()


class Reading:
    """What a source has been given in a run: when each record, and when it had to doubt.

    clock_ms tells the time by the clock of the run, which may be set.
    """

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms
        self._clock_polled_ms = 0
        self.assigned_ms: dict[Where, int] = {}  # since when each partition is read
        self.given_ms: dict[tuple[Where, int], int] = {}
        self.given_clock_ms: dict[tuple[Where, int], int] = {}  # by the clock, before it was set
        self.doubts: list[tuple[int, int]] = []  # (last it was sure, first it may be again)
        # When it was told that a partition may have more than it is given, and when it noticed.
        self.unsure_ms: defaultdict[Where, list[tuple[int, int]]] = defaultdict(list)
        # When a leader told less than was committed, which nothing had told of, and how much.
        self.misled_ms: defaultdict[Where, list[tuple[int, int]]] = defaultdict(list)
        # Since when it has been told that a partition has no leader, and until when.
        self.leaderless_ms: defaultdict[Where, list[list[int]]] = defaultdict(list)
        self._polled_ms: int | None = None

    def note_leaderless(self, leaderless: set[Where], now_ms: int) -> None:
        """Note a word of which partitions have no leader."""
        for where, times in self.leaderless_ms.items():
            if where not in leaderless and len(times[-1]) == 1:
                times[-1].append(now_ms)
        for where in leaderless:
            times = self.leaderless_ms[where]
            if not times or len(times[-1]) > 1:
                times.append([now_ms])
                self.unsure_ms[where].append((now_ms, now_ms))

    def note(self, messages: list[Message], now_ms: int) -> None:
        """Note a poll and what it gave."""
        passed_ms = self._clock_ms() - self._clock_polled_ms
        if self._polled_ms is not None and passed_ms > PAUSE_MS:
            self.doubts.append((self._polled_ms, now_ms))
        self._polled_ms, self._clock_polled_ms = now_ms, self._clock_ms()
        for message in messages:
            if message.error() is AWAY:
                self.doubts.append((now_ms, now_ms))
            elif message.error() is None:
                where = message.topic(), message.partition()
                self.given_ms.setdefault((where, message.offset()), now_ms)
                self.given_clock_ms.setdefault((where, message.offset()), self._clock_polled_ms)


class Consumer:
    """Reads what `fetch` has brought; knows of a log what the newest answer said."""

    def __init__(
        self, log: Log, now_ms: Callable[[], int], clock_ms: Callable[[], int] | None = None
    ) -> None:
        self._log = log
        self._now_ms = now_ms
        self.reading = Reading(clock_ms or now_ms)
        self.next: dict[Where, int] = {}
        self.high: dict[Where, int] = {}
        self._highest: defaultdict[Where, int] = defaultdict(int)  # that it can know to have been
        self._end_told: dict[Where, int] = {}
        self._queue: deque[Message] = deque()
        self.options: dict[str, Any] = {}
        # What the client says of itself, and which partitions have no leader.
        self._statistics: deque[tuple[str, set[Where]]] = deque()
        self.committed: dict[Where, int] = {}
        self._commits: deque[list[TopicPartition]] = deque()
        self.commit_error: KafkaError | None = None
        self.answers_commits = True
        self.closed = False

    def configure(self, options: dict[str, Any]) -> Any:
        """Take the options, as a factory of this one consumer."""
        self.options = options
        return self

    def list_topics(self, topic: str | None, timeout: float) -> SimpleNamespace:
        return self._log.list_topics(topic, timeout)

    def get_watermark_offsets(
        self, part: TopicPartition, timeout: float = 0, *, cached: bool = False
    ) -> tuple[int, int]:
        where = part.topic, part.partition
        if cached:
            return self._log.low[where], self.high.get(where, UNKNOWN_OFFSET)
        self._highest[where] = max(self._highest[where], end := self._log.ask_end(where))
        return self._log.low[where], end

    def offsets_for_times(
        self, parts: list[TopicPartition], timeout: float
    ) -> list[TopicPartition]:
        assert timeout
        found = []
        for part in parts:
            where = part.topic, part.partition
            offsets = range(self._log.low[where], self._log.stable(where))
            later = (n for n in offsets if self._log.at(where)[n].time_ms >= part.offset)
            found.append(TopicPartition(*where, next(later, OFFSET_END)))
        return found

    def incremental_assign(self, parts: list[TopicPartition]) -> None:
        for part in parts:
            where = part.topic, part.partition
            self.next[where] = part.offset
            self.reading.assigned_ms.setdefault(where, self._now_ms())
            self._end_told.pop(where, None)

    def incremental_unassign(self, parts: list[TopicPartition]) -> None:
        gone = {(part.topic, part.partition) for part in parts}
        for where in gone:
            del self.next[where]
        self._queue = deque(m for m in self._queue if (m.topic(), m.partition()) not in gone)

    assign = incremental_assign

    def unassign(self) -> None:
        self.next.clear()
        self._queue.clear()

    def fetch(self, where: Where, count: int) -> None:
        """Bring an answer: some records of a partition, or the word that its end is there."""
        if where not in self.next or where in self._log.leaderless:
            return
        log, low = self._log.at(where), self._log.low[where]
        offset = low if self.next[where] == OFFSET_BEGINNING else self.next[where]
        if not low <= offset <= len(log):
            self.fail(where, KafkaError._AUTO_OFFSET_RESET)
            return
        high, stable = self._log.high(where), self._log.stable(where)
        if stable < max(high, self._highest[where]):
            # An open transaction, or a leader that knows less than the one before it has told.
            told_ms = self._now_ms()
            self.reading.unsure_ms[where].append((told_ms, told_ms + REPORT_MS))
        elif high < len(log):
            self.reading.misled_ms[where].append((self._now_ms(), high))
        self.high[where] = high
        if offset == stable and self._end_told.get(where) != offset:
            self._end_told[where] = offset
            self._queue.append(Message(where, offset, None, EOF))
        for record in log[offset : min(offset + count, stable)]:
            if not record.hidden:
                self._queue.append(Message(where, offset, record))
            offset += 1
        self.next[where] = offset

    def lose_broker(self) -> None:
        """Tell that no broker can be reached."""
        self._queue.append(Message(None, -1, None, AWAY))

    def fail(self, where: Where, code: int) -> None:
        """Tell of an error with a partition that does not pass."""
        self._queue.append(Message(where, -1, None, KafkaError(code)))

    def tell_silence(self, for_ms: int) -> None:
        """Tell in the statistics that the broker has sent nothing for so long."""
        broker = {"rxidle": for_ms * 1000, "toppars": {"t-0": {}}}
        self._statistics.append((json.dumps({"brokers": {"b": broker}}), set()))

    def tell_leaders(self, *leaderless: Where) -> None:
        """Tell in the statistics which partitions have no leader."""
        topics: dict[str, Any] = {}
        for topic, number in leaderless:
            partitions = topics.setdefault(topic, {"partitions": {}})["partitions"]
            partitions[str(number)] = {"leader": -1}
        self._statistics.append((json.dumps({"brokers": {}, "topics": topics}), set(leaderless)))

    def commit(self, offsets: list[TopicPartition], *, asynchronous: bool) -> None:
        self.committed |= {(part.topic, part.partition): part.offset for part in offsets}
        self._commits.append(offsets)

    def poll(self, timeout: float) -> None:
        """Answer commits; a consumer that is polled reads nothing."""
        while self._commits and self.answers_commits:
            self.options["on_commit"](self.commit_error, self._commits.popleft())

    def consume(self, count: int, timeout: float) -> list[Message]:
        if timeout:  # the caller waits
            for where in list(self.next):
                self.fetch(where, 1_000_000)
                self._log.settle(where)
        while self._statistics:
            statistics, leaderless = self._statistics.popleft()
            self.options["stats_cb"](statistics)
            self.reading.note_leaderless(leaderless, self._now_ms())
        for where, high in self.high.items():  # it could have looked at that
            self._highest[where] = max(self._highest[where], high)
        messages = [self._queue.popleft() for _ in range(min(count, len(self._queue)))]
        self.reading.note(messages, self._now_ms())
        return messages

    def close(self) -> None:
        self.closed = True
        self.unassign()
