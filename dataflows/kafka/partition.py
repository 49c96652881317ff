"""An input partition as Bytewax reads it; the hub fetches for all of them."""

import time
from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING

from bytewax.inputs import StatefulSourcePartition
from confluent_kafka import KafkaError, TopicPartition

from dataflows.messages import Message, PartitionBatch
from session_logic.clock import PartitionProgress
from session_logic.errors import HeartwheelError

if TYPE_CHECKING:
    from dataflows.kafka.consumer import SharedConsumer

BATCH_MESSAGES = 2_000
# A partition with more to read is behind when what it has read is older than this.
BEHIND_MS = 1_000
# How often a partition that is behind tells the lanes how far it has come, and the consumer that
# those which are not still are not.
REPORT_MS = 200


class SourceError(HeartwheelError):
    """Kafka cannot give what the source needs: see the message, put it right, start again."""


class Partition(StatefulSourcePartition[PartitionBatch, int]):
    """One topic partition; its state is the next offset to read."""

    def __init__(self, hub: "SharedConsumer", topic: str, partition: int, offset: int) -> None:
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

    def next_batch(self) -> list[PartitionBatch]:
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
        return [
            PartitionBatch(self.topic, self.partition, hub.platform(self.topic), messages, report)
        ]

    def _stop(self) -> list[PartitionBatch]:
        """Tell every process of the cluster to stop, then end."""
        if self._told_stop:
            raise StopIteration
        self._told_stop = True
        platform = self._hub.platform(self.topic)
        return [PartitionBatch(self.topic, self.partition, platform, [], None, stop=True)]

    def _report(self, now: int) -> PartitionProgress | None:
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
        return PartitionProgress(part, self._hub.parts, through_ms, self._hub.name, now)

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
