"""An input partition as a plain value: what has been fetched, taken and stored of it."""

from collections import deque

from confluent_kafka import TopicPartition

from dataflows.kafka.end_of_input import EndOfInput, Signal
from dataflows.messages import Message
from session_logic.clock import PartitionProgress

MAX_BATCH = 2_000
# A partition with more to read is behind when what it has read is older than this.
BEHIND_MS = 1_000
# How often progress is reported to the lanes: by each partition that is behind, and once for all
# that are caught up.
REPORT_MS = 200


class InputPartition:
    """The queue of a topic partition, its offsets, and how far its time has come.

    The thread that polls Kafka adds to it while the thread of its worker takes from it.
    """

    def __init__(self, topic: str, number: int, offset: int) -> None:
        self.topic = topic
        self.number = number
        self.pending: deque[Message] = deque()
        self.end = EndOfInput.UNKNOWN
        self.fetched_offset = offset  # after what is pending
        self.next_offset = offset  # of what is pending
        self.stored_offset = offset  # as of the last snapshot
        self.watermark_ms = 0  # the timestamp that it has come to
        self.caught_up: bool | None = None  # as last reported; None before the first report
        self._reported_ms = 0

    def add(self, messages: list[Message]) -> None:
        """Append messages that have been fetched."""
        self.end = self.end.after(Signal.RECORDS)
        self.fetched_offset = messages[-1][0] + 1
        self.pending.extend(messages)

    def announce_end(self) -> None:
        """Take in that Kafka announces the end."""
        self.end = self.end.after(Signal.END)

    def invalidate_end(self, as_of_ms: int) -> None:
        """Take back that the end is known; up to as_of_ms it held."""
        if self.end.valid:
            self.watermark_ms = max(self.watermark_ms, as_of_ms)
        self.end = self.end.after(Signal.INVALIDATED)

    def refetch(self) -> TopicPartition:
        """Return what is to be fetched again."""
        self.end = self.end.after(Signal.REFETCHED)
        return self.position()

    def position(self) -> TopicPartition:
        """Return what is fetched next."""
        return TopicPartition(self.topic, self.number, self.fetched_offset)

    def take(self, now_ms: int) -> list[Message]:
        """Take the next messages out of the queue."""
        pending = self.pending
        # One by one, because the thread that polls may be adding to it.
        messages = [pending.popleft() for _ in range(min(len(pending), MAX_BATCH))]
        if messages:
            self.next_offset = messages[-1][0] + 1
            self.watermark_ms = max(self.watermark_ms, min(now_ms, messages[-1][1]))
        return messages

    def progress(self, parts: int, source: str, now_ms: int) -> PartitionProgress | None:
        """Return what the lanes must know: each change, and from time to time how far it is.

        Between polls a partition that was caught up still is while its records are young.
        """
        caught_up = (self.end is EndOfInput.REACHED and not self.pending) or (
            self.caught_up is True and self.end.valid and now_ms - self.watermark_ms <= BEHIND_MS
        )
        if caught_up is self.caught_up and (caught_up or now_ms - self._reported_ms < REPORT_MS):
            return None
        if not caught_up and not self.watermark_ms:
            return None  # nothing is known yet
        self.caught_up, self._reported_ms = caught_up, now_ms
        watermark_ms = None if caught_up else self.watermark_ms
        return PartitionProgress(f"{self.topic}/{self.number}", parts, watermark_ms, source, now_ms)

    @property
    def owes_progress(self) -> bool:
        """Whether its next progress may say that it is not caught up any more."""
        return self.caught_up is True and (bool(self.pending) or not self.end.valid)

    def store(self) -> int:
        """Return the offset for a snapshot: of the first message that has not been taken."""
        self.stored_offset = self.next_offset
        return self.next_offset
