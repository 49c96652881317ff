"""The input side of a run in memory: a log, a fake client, and the consumer that reads with it."""

from typing import Any

from dataflows.kafka.consumer import SharedConsumer
from dataflows.kafka.source import KafkaSource
from dataflows.run_state import RunState
from dataflows.settings import Settings
from tests.support.clocks import FixedClock
from tests.support.fake_kafka import Admin, Consumer, Log, Record

TICK_MS = 2


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
            **settings,
        )
        self.ticks = 0

    def shared(self) -> SharedConsumer:
        """Return the consumer of the process."""
        return SharedConsumer(self.settings, self.run, self._tick, self._make_consumer)

    def source(self) -> KafkaSource:
        """Return the source of the process."""
        return KafkaSource(
            self.settings, self.run, self._tick, self._make_consumer, lambda _: Admin(self.log)
        )

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
        for number in numbers:
            self.kafka.fetch(("in", number), 1_000_000)
