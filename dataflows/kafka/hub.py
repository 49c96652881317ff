"""One consumer for all source partitions of a process, and how each of them reads from it."""

import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from threading import Lock
from typing import cast
from uuid import uuid4

from bytewax.inputs import StatefulSourcePartition
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from dataflows.clock import Clock, system_time
from dataflows.items import Message, Polled
from dataflows.kafka.client import TRANSIENT, make_client
from dataflows.kafka.monitor import Monitor
from dataflows.kafka.progress import Lag, Progress
from dataflows.logs import log
from dataflows.metrics import CONSUMER_LAG, SNAPSHOT_AGE, SNAPSHOT_DURATION, read_from
from dataflows.settings import Settings
from dataflows.stop import Stop
from session_logic.clock import LEASE_MS, Report
from session_logic.errors import HeartwheelError

POLL_MESSAGES = 5_000
BATCH_MESSAGES = 2_000
MOST_PENDING = 20_000
# A partition with more to read is behind when what it has read is older than this.
BEHIND_MS = 1_000
# How often a partition that is behind tells the lanes how far it has come, and the consumer that
# those which are not still are not.
REPORT_MS = 200
# How often the lag of each partition is measured.
MEASURE_MS = 1_000
# After a pause so long, or when the broker was away, what was read to its end may not be any more.
PAUSE_MS = LEASE_MS // 2


class SourceError(HeartwheelError):
    """Kafka cannot give what the source needs: see the message, put it right, start again."""


class Partition(StatefulSourcePartition[Polled, int]):
    """One topic partition; its state is the next offset to read."""

    def __init__(self, hub: "Hub", topic: str, partition: int, offset: int) -> None:
        self._hub = hub
        self.topic = topic
        self.partition = partition
        self.pending: deque[Message] = deque()
        self.at_end = False
        self.fetched_offset = offset  # of what comes next, after what is pending
        self.next_offset = offset
        self.stored_offset = offset  # as of the last snapshot
        self._snapshot_s: float | None = None  # when the last one began, until it is complete
        self.through_ms = 0
        self.confirmed = False  # whether the end has been seen since the last doubt
        self.outdated = False  # whether the next word of the end may be from before it
        self.reported: bool | None = None  # live or not, None before the first report
        self._reported_at_ms = 0
        self._told_stop = False

    def next_batch(self) -> list[Polled]:
        """Return what has come, and what there is to tell the lanes."""
        hub = self._hub
        if self._snapshot_s is not None:
            # Bytewax asks for more only when everything of the epoch before has been stored.
            hub.note_snapshot(self, self._snapshot_s)
            self._snapshot_s = None
        if hub.stop.is_set():
            return self._stop()
        now = hub.poll()
        pending = self.pending
        # Another worker thread may be adding to it.
        messages = [pending.popleft() for _ in range(min(len(pending), BATCH_MESSAGES))]
        if messages:
            self.next_offset = messages[-1][0] + 1
            self.through_ms = max(self.through_ms, min(now, messages[-1][1]))
        report = self._report(now) or hub.renewal(now)
        if not messages and report is None:
            return []
        return [Polled(self.topic, self.partition, hub.platform(self.topic), messages, report)]

    def _stop(self) -> list[Polled]:
        """Tell every process of the cluster to stop, then end."""
        if self._told_stop:
            raise StopIteration
        self._told_stop = True
        platform = self._hub.platform(self.topic)
        return [Polled(self.topic, self.partition, platform, [], None, stop=True)]

    def _report(self, now: int) -> Report | None:
        """Return what there is to tell the lanes, if anything."""
        live = (self.at_end and not self.pending) or (
            self.reported is True and self.confirmed and now - self.through_ms <= BEHIND_MS
        )
        if live is self.reported and (live or now - self._reported_at_ms < REPORT_MS):
            return None
        if not live and not self.through_ms:
            return None  # nothing is known yet
        self.reported, self._reported_at_ms = live, now
        part, through_ms = f"{self.topic}/{self.partition}", None if live else self.through_ms
        return Report(part, self._hub.parts, through_ms, self._hub.name, now)

    def doubt(self, as_of_ms: int) -> TopicPartition:
        """Take back that the end is reached, as it was as_of_ms; return where to look for it."""
        self.at_end = self.confirmed = False
        self.through_ms = max(self.through_ms, as_of_ms)
        return self.where()

    def where(self) -> TopicPartition:
        """Return what is to be fetched next."""
        return TopicPartition(self.topic, self.partition, self.fetched_offset)

    def next_awake(self) -> datetime | None:
        """Return when the consumer is polled next."""
        return self._hub.wake_at

    def snapshot(self) -> int:
        """Return the next offset."""
        self.stored_offset = self.next_offset
        self._snapshot_s = time.monotonic()
        return self.next_offset

    def close(self) -> None:
        """Close the consumer."""
        self._hub.close()


class Hub:
    """The consumer of this process, shared by its partitions."""

    def __init__(
        self, settings: Settings, stop: Stop, clock: Clock, on_tick: Callable[[], None]
    ) -> None:
        self.stop = stop
        self._on_tick = on_tick
        self.parts = 0
        self._settings = settings
        self._clock = clock
        self._consumer: Consumer | None = None
        self._monitor: Monitor | None = None
        self._stored_s = time.monotonic()
        read_from(SNAPSHOT_AGE, self.snapshot_age_s)
        self._measured_ms = 0
        self._partitions: dict[tuple[str, int], Partition] = {}
        # One worker thread polls for all, so that the messages of a partition keep their order.
        self._polling = Lock()
        self.name = uuid4().hex
        self._polled_ms = 0
        self._renewed_ms = 0
        self._away = False
        self._progress = Progress()
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
            self._consumer = make_client(Consumer, options)
            if self._settings.monitor_group:
                self._monitor = Monitor(self._settings)
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
        messages = self._consumer.consume(POLL_MESSAGES, 0)
        lost = False
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
        tick_ms = self._settings.tick_ms
        self._wake_ms = now if len(messages) == POLL_MESSAGES else (now // tick_ms + 1) * tick_ms
        self.wake_at = self._clock.at_ms(self._wake_ms)

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
        """Return how old the last complete snapshot is; before the first one, the run."""
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
        self._ask_anew([part.doubt(self._polled_ms) for part in confirmed])

    def _ask_anew(self, where: list[TopicPartition]) -> None:
        assert self._consumer is not None
        if where:
            self._consumer.incremental_unassign(where)
            self._consumer.incremental_assign(where)

    def renewal(self, now: int) -> Report | None:
        """Return from time to time the word that partitions read to their end still are.

        Not while one of them has something else to say: its turn may be some way off.
        """
        if now - self._renewed_ms < REPORT_MS or any(
            part.reported and (part.pending or not part.confirmed)
            for part in self._partitions.values()
        ):
            return None
        self._renewed_ms = now
        return Report("", self.parts, None, self.name, now)

    def close(self) -> None:
        """Close the consumer once; partitions of one process share it."""
        with self._polling:
            if self._consumer is not None:
                consumer, self._consumer = self._consumer, None
                consumer.close()
                if self._monitor is not None:
                    self._monitor.close(self._stored())


def source_error(topic: str | None, partition: int | None, error: KafkaError) -> SourceError:
    """Return the error to raise for one of Kafka's, with what to do."""
    where = f"input {topic}/{partition}" if topic else "Kafka"
    if error.code() == KafkaError._AUTO_OFFSET_RESET:
        return SourceError(
            f"{where}: the stored offset is not in the topic any more ({error.str()}): records "
            "expired unread, or the topic was made anew; start with a new recovery directory"
        )
    hint = ""
    if "AUTHORIZATION" in error.name():
        hint = "; docs/security.md lists the rights that a run needs"
    elif error.code() == KafkaError._BAD_COMPRESSION:
        hint = (
            "; if it is larger than receive.message.max.bytes when unpacked, one start with "
            "HEARTWHEEL_CONSUMER_RECEIVE_MESSAGE_MAX_BYTES=1000000000 gets past it"
        )
    return SourceError(f"{where}: {error.str()} ({error.name()}){hint}")
