"""The input side of a run in memory: a log, a fake client, and the consumer that reads with it."""

from typing import Any

from dataflows.kafka.consumer import SharedConsumer
from dataflows.kafka.end_of_input import EndOfInput
from dataflows.kafka.partition import InputPartition
from dataflows.kafka.source import KafkaSource
from dataflows.run_state import RunState
from dataflows.settings import Settings
from tests.support.clocks import FixedClock
from tests.support.fake_kafka import Admin, Consumer, Log, Record

TICK_MS, LONGEST_TICK_MS = 2, 6


def offsets(part: InputPartition) -> list[int]:
    """Return what waits in the queue of a partition."""
    return [offset for offset, *_ in part.pending]


class FakeInput:
    """Topic `in` with some partitions, and what reads it; nothing moves but by a call."""

    def __init__(self, partitions: int = 1, **settings: Any) -> None:
        self.clock = FixedClock()
        self.run = RunState(self.clock)
        self.log = Log({"in": partitions, "out": 1, "letters": 1})
        self.kafka = Consumer(self.log, self.clock.now_ms)
        self.committer = Consumer(self.log, self.clock.now_ms)
        self.settings = Settings(
            input_topics={"in": "pc"},
            output_topic="out",
            dead_letter_topic="letters",
            tick_ms=TICK_MS,
            target_latency_ms=LONGEST_TICK_MS,
            **settings,
        )
        self.ticks = 0
        self._reads: list[SharedConsumer] = []

    def shared(self) -> SharedConsumer:
        """Return the consumer of the process."""
        consumer = SharedConsumer(self.settings, self.run, self._tick, self._make_consumer)
        self._reads.append(consumer)
        return consumer

    def source(self) -> KafkaSource:
        """Return the source of the process."""
        source = KafkaSource(
            self.settings, self.run, self._tick, self._make_consumer, lambda _: Admin(self.log)
        )
        self._reads.append(source.consumer)
        return source

    def _tick(self) -> None:
        self.ticks += 1

    def _make_consumer(self, options: dict[str, Any]) -> Any:
        monitors = options["group.id"] == self.settings.monitor_group
        return (self.committer if monitors else self.kafka).configure(options)

    def append(self, number: int, *times_ms: int) -> None:
        """Let the broker take in records with these timestamps."""
        for time_ms in times_ms:
            self.log.at(("in", number)).append(Record(time_ms, b"k", b"v", None, self.clock.now))

    def begin(self, number: int, time_ms: int) -> list[int]:
        """Let a transaction begin with a record."""
        record = Record(time_ms, b"k", b"v", None, self.clock.now)
        return self.log.begin_transaction(("in", number), record)

    def end(self, number: int, transaction: list[int], *, commit: bool = True) -> None:
        """Let a transaction end."""
        self.log.end_transaction(("in", number), transaction, self.clock.now, commit=commit)

    def fetch(self, *numbers: int) -> None:
        """Bring everything of these partitions to the client."""
        for consumer in self._reads:
            consumer.fetch_new()
        for number in numbers:
            self.kafka.fetch(("in", number), 1_000_000)


class Reading(FakeInput):
    """A consumer that reads all partitions from their beginnings."""

    def __init__(self, partitions: int = 1) -> None:
        super().__init__(partitions)
        self.consumer: SharedConsumer = self.shared()
        self.parts: list[InputPartition] = [
            self.consumer.assign("in", number, 0) for number in range(partitions)
        ]
        self.consumer.fetch_new()

    def poll(self, after_ms: int = LONGEST_TICK_MS) -> None:
        """Poll after a while, by default the longest tick."""
        self.clock.now += after_ms
        self.consumer.poll()

    def reach_ends(self) -> None:
        """Read every partition to its end, and report that."""
        self.fetch(*range(len(self.parts)))
        self.poll()
        for part in self.parts:
            part.take(self.clock.now)
            part.progress(len(self.parts), self.consumer.name, self.clock.now)
        assert self.ends() == {EndOfInput.REACHED}

    def ends(self) -> set[EndOfInput]:
        """Return what is known of the ends of all partitions."""
        return {part.end for part in self.parts}
