"""One consumer for all source partitions of a process."""

import time
from collections.abc import Callable
from threading import Lock
from typing import cast
from uuid import uuid4

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from dataflows.clock import system_time
from dataflows.kafka.backlog_log import BacklogLog, Lag
from dataflows.kafka.client import TRANSIENT, MakeConsumer, make_consumer
from dataflows.kafka.offset_commits import OffsetCommitter
from dataflows.kafka.partition import REPORT_MS, Partition, source_error
from dataflows.kafka.silence import silence_ms
from dataflows.logs import log
from dataflows.metrics import (
    CONSUMER_LAG,
    NAN,
    SNAPSHOT_AGE,
    SNAPSHOT_DURATION,
    read_from,
)
from dataflows.run_state import RunState
from dataflows.settings import Settings
from dataflows.tick import Tick
from session_logic.clock import END_VALID_MS, Renewal

POLL_MESSAGES = 5_000
MOST_PENDING = 20_000
# How often the lag of each partition is measured.
MEASURE_MS = 1_000
# Ticks grow with every so many messages in one, and are longest with none for so long.
BUSY_MESSAGES = 8
IDLE_MS = 1_000
MAX_TICKS = 3
# After a pause so long, or when the broker was away, what was read to its end may not be any more.
PAUSE_MS = END_VALID_MS // 2
# The same after a broker has left out so many answers, of one every fetch.wait.max.ms.
MISSED_ANSWERS = 3


class SharedConsumer:
    """The consumer of this process, shared by its partitions."""

    def __init__(
        self,
        settings: Settings,
        run: RunState,
        on_tick: Callable[[], None] = lambda: None,
        make_consumer: MakeConsumer = make_consumer,
    ) -> None:
        self.stop = run.stop
        self._run = run
        self._on_tick = on_tick
        self._make_consumer = make_consumer
        self.parts = 0
        self._settings = settings
        self._clock = run.clock
        self._consumer: Consumer | None = None
        self._monitor: OffsetCommitter | None = None
        self._stored_s = time.monotonic()
        read_from(SNAPSHOT_AGE, self.snapshot_age_s)
        self._measured_ms = 0
        self._partitions: dict[tuple[str, int], Partition] = {}
        # One worker thread polls for all, so that the messages of a partition keep their order.
        self._polling = Lock()
        self.name = uuid4().hex
        self._polled_ms = 0
        self._tick = Tick(settings.tick_ms, MAX_TICKS, busy_work=BUSY_MESSAGES, idle_ms=IDLE_MS)
        self._renewed_ms = 0
        self._away = False
        self._silence_ms = self._patience_ms = 0
        self._progress = BacklogLog()
        self._wake_ms = 0
        self.wake_at = system_time(0)

    def platform(self, topic: str) -> str:
        """Return the label of a topic."""
        return self._settings.input_topics[topic]

    def open(self) -> Consumer:
        """Return the consumer, made on first use."""
        if self._consumer is None:
            options = {
                "fetch.min.bytes": "1",
                "queued.max.messages.kbytes": "65536",
                "fetch.wait.max.ms": "500",
                "statistics.interval.ms": "500",
                **self._settings.kafka,
                **self._settings.consumer,
                "bootstrap.servers": self._settings.bootstrap_servers,
                # Offsets are Bytewax's business: no group is joined, nothing is committed here.
                "group.id": "heartwheel",
                "enable.auto.commit": "false",
                "enable.auto.offset.store": "false",
                # Says when a partition has been read to its end.
                "enable.partition.eof": "true",
                # An offset that no longer exists is data lost, not a reason to jump.
                "auto.offset.reset": "error",
            }
            self._consumer = self._make_consumer(options | {"stats_cb": self._hear})
            self._patience_ms = MISSED_ANSWERS * int(options["fetch.wait.max.ms"])
            if self._settings.monitor_group:
                self._monitor = OffsetCommitter(self._settings)
        return self._consumer

    def add(self, topic: str, partition: int, offset: int | None) -> Partition:
        """Begin to read a partition, from the offset or from where the settings say."""
        consumer = self.open()
        if offset is None:
            offset = OFFSET_BEGINNING
            if self._settings.start == "latest":
                offset = consumer.get_watermark_offsets(TopicPartition(topic, partition), 10)[1]
        begin = "earliest" if offset == OFFSET_BEGINNING else offset
        log.info("reading", topic=topic, partition=partition, offset=begin)
        part = Partition(self, topic, partition, offset)
        self._partitions[topic, partition] = part
        consumer.incremental_assign([TopicPartition(topic, partition, offset)])
        return part

    def poll(self) -> int:
        """Move what has come to the partitions, once a tick or when there is more; return now."""
        now = self._clock.now_ms()
        if now >= self._wake_ms and self._polling.acquire(blocking=False):
            try:
                self._move(now)
            finally:
                self._polling.release()
        return now

    def _move(self, now: int) -> None:
        if self._consumer is None:
            return
        self._on_tick()
        if self._polled_ms and now - self._polled_ms > PAUSE_MS:
            self._doubt()
        self._polled_ms = now
        if sum(len(part.pending) for part in self._partitions.values()) > MOST_PENDING:
            return  # the lanes are slower than Kafka
        silent_before = self._silence_ms > self._patience_ms
        messages = self._consumer.consume(POLL_MESSAGES, 0)  # calls _hear as well
        lost = self._silence_ms > self._patience_ms and not silent_before
        outdated: list[Partition] = []
        for message in messages:
            error = message.error()
            where = cast("tuple[str, int]", (message.topic(), message.partition()))
            if error is None:
                part = self._partitions[where]
                part.at_end = False
                offset = cast("int", message.offset())
                part.fetched_offset = offset + 1
                part.pending.append(
                    (offset, message.timestamp()[1], message.key(), message.value())
                )
            elif error.code() == KafkaError._PARTITION_EOF:
                self._away = False
                part = self._partitions[where]
                if not part.outdated:
                    part.at_end = part.confirmed = True
                elif part not in outdated:
                    outdated.append(part)
            elif error.code() not in TRANSIENT:
                raise source_error(message.topic(), message.partition(), error)
            elif not self._away:
                self._away = lost = True
        # Only now, as what is asked for anew begins after the messages that have come.
        for part in outdated:
            part.outdated = False
        self._ask_anew([part.where() for part in outdated])
        if lost:
            self._doubt()
        behind = any(part.reported is False for part in self._partitions.values())
        self._progress.note(now, len(messages), behind=behind, lag=self._lag)
        if now - self._measured_ms >= MEASURE_MS:
            self._measured_ms = now
            self._measure_lag()
        self._schedule(now, len(messages))

    def _schedule(self, now: int, messages: int) -> None:
        """Poll at the next tick, or at once if there is more."""
        self._tick.note_work(now, messages)
        self._wake_ms = now if messages == POLL_MESSAGES else self._tick.next_ms(now)
        self.wake_at = self._clock.at_ms(self._wake_ms)

    def _hear(self, statistics: str) -> None:
        self._silence_ms = silence_ms(statistics)

    def _measure_lag(self) -> None:
        """Set the lag of each partition from the ends that the consumer has last heard of."""
        assert self._consumer is not None
        for (topic, number), part in self._partitions.items():
            begin, end = self._consumer.get_watermark_offsets(part.where(), cached=True)
            if end >= 0:  # known
                left = end - max(part.next_offset, begin, 0)
                CONSUMER_LAG.labels(topic, str(number)).set(max(0, left))

    def note_snapshot(self, part: Partition, begin_s: float) -> None:
        """Take in that a snapshot is complete; the first partition says so for all."""
        if part is not next(iter(self._partitions.values())):
            return
        self._stored_s = begin_s
        SNAPSHOT_DURATION.observe(time.monotonic() - begin_s)
        if self._monitor is not None:
            self._monitor.commit(self._stored())

    def snapshot_age_s(self) -> float:
        """Return how old the last complete snapshot is; before the first one, the run.

        A process with lanes but without input partitions hears of no snapshot, and has no age.
        """
        if self._run.lanes and not self._partitions:
            return NAN
        return time.monotonic() - self._stored_s

    def _stored(self) -> dict[tuple[str, int], int]:
        return {where: part.stored_offset for where, part in self._partitions.items()}

    def _lag(self) -> Lag:
        """Return how far behind the partitions are that have not been read to their end."""
        assert self._consumer is not None
        behind = [part for part in self._partitions.values() if part.reported is False]
        ends = [
            self._consumer.get_watermark_offsets(part.where(), cached=True)[1] for part in behind
        ]
        left = [
            end - part.fetched_offset + len(part.pending)
            for part, end in zip(behind, ends, strict=True)
        ]
        return Lag(max(0, sum(left)), min(part.through_ms for part in behind))

    def _doubt(self) -> None:
        """Ask for the ends of all partitions anew: Kafka says when they are reached."""
        confirmed = [part for part in self._partitions.values() if part.confirmed]
        for part in self._partitions.values():
            part.outdated = not part.confirmed
        known_ms = self._polled_ms - self._silence_ms
        self._ask_anew([part.doubt(known_ms) for part in confirmed])

    def _ask_anew(self, where: list[TopicPartition]) -> None:
        assert self._consumer is not None
        if where:
            self._consumer.incremental_unassign(where)
            self._consumer.incremental_assign(where)

    def renewal(self, now: int) -> Renewal | None:
        """Return from time to time the word that partitions read to their end still are.

        Not while one of them has something else to say: its turn may be some way off.
        """
        if now - self._renewed_ms < REPORT_MS or any(
            part.reported and (part.pending or not part.confirmed)
            for part in self._partitions.values()
        ):
            return None
        self._renewed_ms = now
        return Renewal(self.name, now)

    def close(self) -> None:
        """Close the consumer once; partitions of one process share it."""
        with self._polling:
            if self._consumer is not None:
                consumer, self._consumer = self._consumer, None
                consumer.close()
                if self._monitor is not None:
                    self._monitor.close(self._stored())
