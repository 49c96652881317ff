"""An input partition as a plain value: what has been fetched, taken and stored of it."""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from confluent_kafka import TopicPartition

from dataflows.kafka.end_of_input import EndOfInput, Signal
from dataflows.messages import Message
from session_logic.clock import PartitionProgress

MAX_BATCH = 2_000
# A partition is behind when the last end that it has come to is older than this.
BEHIND_MS = 1_000
# What Kafka says of leaders is no older than this.
LEADER_MS = 1_000
# A leader that has taken over knows how far the log goes after this: it goes on without replicas
# that it does not hear of for Kafka's `replica.lag.time.max.ms` (30 s).
TAKE_OVER_MS = 60_000
# One to come to, and one that is younger for when it is come to.
MAX_GOALS = 2
# How often progress is reported to the lanes: by each partition that is behind, and once for all
# that are caught up.
REPORT_MS = 200


# Says whether a message can be decoded by now; if not, it waits, and all that are behind it.
Gate = Callable[[Message], bool]


class Goal(NamedTuple):
    """Where the log ended in an answer of Kafka, and when that was."""

    offset: int
    as_of_ms: int


class InputPartition:
    """The queue of a topic partition, its offsets, and how far its time has come.

    The thread that polls Kafka adds to it while the thread of its worker takes from it.
    """

    def __init__(
        self, topic: str, number: int, offset: int, *, end_offset: int = 0, new: bool = False
    ) -> None:
        """Read from an offset on, where the log is known to go to end_offset at least."""
        self.topic = topic
        self.number = number
        self.place = TopicPartition(topic, number)
        self.pending: deque[Message] = deque()
        self._added_bytes = self._taken_bytes = 0  # each is counted by one thread
        self.end = EndOfInput.UNKNOWN
        self.end_ms = 0  # the last moment as of which everything had been taken
        self.goals: deque[Goal] = deque()  # the first ones that have not been come to
        self._highest = max(offset, end_offset)  # watermark that is known to have been
        self._early_ms: int | None = None  # since when Kafka tells an earlier one
        self.announced_offset = -1  # where Kafka last said that nothing more can be read
        self.fetched_offset = offset  # after what is pending
        self.next_offset = offset  # of what is pending
        self.stored_offset = offset  # as of the last snapshot
        self.leaderless_ms: int | None = None  # since when it has no leader
        self.left = False  # as last reported: the lanes go on without it
        self.idle_ms = 0  # how long it may have no leader; 0 for ever
        self.gate: Gate | None = None
        self.held = False  # its next message waits at the gate
        self.parked = False  # and nothing more is fetched meanwhile
        self.added = False  # to its topic, while the run went on
        self.new = new  # read for the first time, and no snapshot has it yet
        self.watermark_ms = 0  # the timestamp that it has come to
        self.caught_up: bool | None = None  # as last reported; None before the first report
        self._reported_ms = 0

    def add(self, messages: list[Message]) -> None:
        """Append messages that have been fetched."""
        self.end = self.end.after(Signal.RECORDS)
        self._added_bytes += _bytes(messages)
        self.pending.extend(messages)
        after = messages[-1][0] + 1
        self._highest = max(self._highest, after)  # what has come was committed
        # Last, because `take` reads it first.
        self.fetched_offset = after

    @property
    def pending_bytes(self) -> int:
        """How many bytes of keys and values wait."""
        return self._added_bytes - self._taken_bytes

    def skip_to(self, offset: int) -> None:
        """Take in that no message is below the offset but those that have been fetched."""
        self.fetched_offset = max(self.fetched_offset, offset)
        self.announced_offset = offset

    def note_answer(self, high_watermark: int, now_ms: int) -> None:
        """Take in where the log ended when Kafka sent what has just been added."""
        if self._is_early(high_watermark):
            return
        if self.fetched_offset >= high_watermark:
            self.end = self.end.after(Signal.END)
        if len(self.goals) < MAX_GOALS:
            self.goals.append(Goal(high_watermark, now_ms))

    def check_end(self, high_watermark: int, now_ms: int) -> None:
        """Take in where the log ends by now, though nothing has come.

        More may be held up, or the leader may not know yet how far the log goes.
        """
        if self._is_early(high_watermark):
            self._note_early(high_watermark, now_ms)
        elif self._early_ms is not None:
            self._early_ms = None
            self.end = EndOfInput.REFETCH  # so that Kafka says anew what can be read
        elif self.end is EndOfInput.REACHED and high_watermark > self.fetched_offset:
            self.end = self.end.after(Signal.RECORDS)

    def _is_early(self, high_watermark: int) -> bool:
        """Say whether a leader that has just taken over tells less than was known before."""
        self._highest = max(self._highest, high_watermark)
        return high_watermark < self._highest

    def _note_early(self, high_watermark: int, now_ms: int) -> None:
        if self._early_ms is None:
            self._early_ms = now_ms
        if self.end is EndOfInput.REACHED:
            self.end = self.end.after(Signal.RECORDS)
        if now_ms - self._early_ms > TAKE_OVER_MS:
            self._highest = high_watermark  # the log was cut

    def held_up(self, high_watermark: int) -> bool:
        """Say whether an open transaction keeps back what is in the log."""
        return self.announced_offset == self.fetched_offset < high_watermark

    def check_goals(self) -> None:
        """Take in that everything up to a goal has been taken: that was all as of its moment."""
        while self.goals and self.next_offset >= self.goals[0].offset:
            goal = self.goals.popleft()
            self.end = self.end.after(Signal.CAUGHT_UP)
            if self.end.valid:
                self.end_ms = max(self.end_ms, goal.as_of_ms)

    def end_as_of(self, now_ms: int) -> int:
        """Return the last moment as of which everything has been taken: now, at the end."""
        if self.end is EndOfInput.REACHED and not self.pending:
            self.end_ms = now_ms
        return self.end_ms

    def invalidate_end(self, as_of_ms: int) -> None:
        """Take back that the end is known; up to as_of_ms it held."""
        if self.end.valid:
            self.end_ms = min(self.end_ms, as_of_ms)
        self.goals.clear()
        self.end = self.end.after(Signal.INVALIDATED)

    def refetch(self) -> TopicPartition:
        """Return what is to be fetched again; Kafka then says anew what can be read."""
        self.goals.clear()
        self.announced_offset = -1
        self.end = self.end.after(Signal.REFETCHED)
        return self.position()

    def position(self) -> TopicPartition:
        """Return what is fetched next."""
        return TopicPartition(self.topic, self.number, self.fetched_offset)

    def take(self, now_ms: int) -> list[Message]:
        """Take the next messages out of the queue."""
        fetched_offset, pending = self.fetched_offset, self.pending
        if fetched_offset == self.next_offset and not pending:
            return []  # as nearly always
        # One by one, because the thread that polls may be adding to it.
        count = min(len(pending), MAX_BATCH)
        if self.gate is None:
            messages = [pending.popleft() for _ in range(count)]
        else:
            messages = self._take_ready(count, self.gate)
        if messages:
            self._taken_bytes += _bytes(messages)
            self.next_offset = messages[-1][0] + 1
            self.watermark_ms = max(self.watermark_ms, min(now_ms, messages[-1][1]))
        if fetched_offset > self.next_offset and not pending:
            self.next_offset = fetched_offset
        return messages

    def _take_ready(self, count: int, gate: Gate) -> list[Message]:
        messages: list[Message] = []
        self.held = False
        while len(messages) < count and not self.held:
            if gate(self.pending[0]):
                messages.append(self.pending.popleft())
            else:
                self.held = True
        return messages

    def progress(self, parts: int, source: str, now_ms: int) -> PartitionProgress | None:
        """Return what the lanes must know: each change, and from time to time how far it is."""
        if self.may_be_left(now_ms):
            return self._leave(parts)
        self.left = False
        end_ms = self.end_as_of(now_ms)
        caught_up = now_ms - end_ms <= BEHIND_MS and self.end.valid
        if caught_up is self.caught_up and (caught_up or now_ms - self._reported_ms < REPORT_MS):
            return None
        part = f"{self.topic}/{self.number}"
        if caught_up:
            report = PartitionProgress(part, parts, None, source, end_ms, self.added)
        else:
            self.watermark_ms = max(self.watermark_ms, end_ms)
            if not self.watermark_ms and self.added and self.announced_offset >= 0:
                self.watermark_ms = now_ms  # Kafka answers, and holds up all that is there
            if not self.watermark_ms:
                return None  # nothing is known yet
            report = PartitionProgress(part, parts, self.watermark_ms, source, now_ms, self.added)
        self.caught_up, self._reported_ms = caught_up, now_ms
        return report

    def note_leader(self, now_ms: int, *, is_there: bool) -> None:
        """Take in whether it has a leader; without one its end may be outdated."""
        if is_there:
            self.leaderless_ms = None
        elif self.leaderless_ms is None:
            self.leaderless_ms = now_ms
            self.invalidate_end(now_ms - LEADER_MS)

    def may_be_left(self, now_ms: int) -> bool:
        """Say whether the lanes may go on without it, because it has had no leader for so long.

        Nobody can append to it meanwhile. But it must have been read to its end once in this run:
        before that, what an earlier run has acted on could be contradicted.
        """
        return (
            self.idle_ms > 0
            and self.end_ms > 0
            and self.leaderless_ms is not None
            and now_ms - self.leaderless_ms >= self.idle_ms
            and not self.pending
        )

    def _leave(self, parts: int) -> PartitionProgress | None:
        if self.left:
            return None
        self.left, self.caught_up = True, None
        part = f"{self.topic}/{self.number}"
        return PartitionProgress(part, parts, None, added=self.added, left=True)

    def store(self) -> int:
        """Return the offset for a snapshot: of the first message that has not been taken."""
        self.stored_offset = self.next_offset
        self.new = False
        return self.next_offset


def _bytes(messages: list[Message]) -> int:
    return sum([len(message[2] or b"") + len(message[3] or b"") for message in messages])
