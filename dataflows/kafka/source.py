"""Kafka as a Bytewax source: every partition of the input topics."""

import time
from collections.abc import Callable
from datetime import datetime
from threading import Event

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from confluent_kafka import KafkaException

from dataflows.kafka.client import MakeConsumer, make_consumer
from dataflows.kafka.consumer import SharedConsumer
from dataflows.kafka.metadata import partition_counts
from dataflows.kafka.partition import InputPartition
from dataflows.kafka.source_errors import source_error
from dataflows.messages import PartitionBatch
from dataflows.run_state import RunState
from dataflows.settings import Settings
from session_logic.errors import ConfigError


class KafkaSource(FixedPartitionedSource[PartitionBatch, int]):
    """Reads every partition of the input topics."""

    def __init__(
        self,
        settings: Settings,
        run: RunState,
        on_tick: Callable[[], None] = lambda: None,
        make_consumer: MakeConsumer = make_consumer,
    ) -> None:
        """Read what the settings name, until the run is stopped.

        on_tick is called at every poll.
        """
        self._settings = settings
        self._stop = run.stop
        self._consumer = SharedConsumer(settings, run, on_tick, make_consumer)
        self._parts = 0

    def check(self) -> None:
        """Raise ConfigError if no broker answers or an input topic is missing."""
        self._find_parts()

    def list_parts(self) -> list[str]:
        """Return topic/partition of all input; Bytewax calls it before it builds any of them."""
        parts = self._find_parts()
        self._parts = len(parts)
        return parts

    def _find_parts(self) -> list[str]:
        counts = partition_counts(self._consumer.open(), self._settings)
        missing = [topic for topic in self._settings.input_topics if not counts.get(topic)]
        if missing:
            msg = (
                f"input topic {', '.join(missing)} does not exist on "
                f"{self._settings.bootstrap_servers}; create it or correct HEARTWHEEL_INPUT_TOPICS"
            )
            raise ConfigError(msg)
        return [
            f"{topic}/{partition}"
            for topic in self._settings.input_topics
            for partition in range(counts[topic])
        ]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> "_SourcePart":
        """Build a partition, from its stored offset or from where the settings say."""
        topic, _, number = for_part.rpartition("/")
        try:
            part = self._consumer.assign(topic, int(number), resume_state)
        except KafkaException as error:
            raise source_error(topic, int(number), error.args[0]) from None
        platform = self._settings.input_topics[topic]
        return _SourcePart(self._consumer, part, platform, self._parts, self._stop)


class _SourcePart(StatefulSourcePartition[PartitionBatch, int]):
    """One topic partition for Bytewax; its state is the next offset to read.

    The first epoch of a new one has no messages: once it is stored, so is where the dead letters
    begin, and whatever a crash leaves of them is found again.
    """

    def __init__(
        self,
        consumer: SharedConsumer,
        part: InputPartition,
        platform: str,
        parts: int,
        stop: Event,
    ) -> None:
        self._consumer = consumer
        self._part = part
        self._platform = platform
        self._parts = parts
        self._stop = stop
        self._told_stop = False
        self._told_begin = not part.new
        self._snapshot_s: float | None = None  # when the last one began, until it is complete

    def next_batch(self) -> list[PartitionBatch]:
        """Return what has come, and what there is to tell the lanes."""
        if not self._told_begin:
            return self._tell_begin()
        if self._snapshot_s is not None:
            # Bytewax asks for more only when everything of the epoch before has been stored.
            self._consumer.snapshots.note(self._part, self._snapshot_s)
            self._snapshot_s = None
        if self._stop.is_set():
            return self._tell_stop()
        consumer, part = self._consumer, self._part
        now = consumer.poll()
        messages = [] if part.new else part.take(now)
        progress = part.progress(self._parts, consumer.name, now) or consumer.renewal(now)
        if not messages and progress is None:
            return []
        return [PartitionBatch(part.topic, part.number, self._platform, messages, progress)]

    def _tell_begin(self) -> list[PartitionBatch]:
        """Tell that the partition is read for the first time."""
        self._told_begin = True
        part = self._part
        return [PartitionBatch(part.topic, part.number, self._platform, [], None, begins=True)]

    def _tell_stop(self) -> list[PartitionBatch]:
        """Tell every process of the cluster to stop, then end."""
        if self._told_stop:
            raise StopIteration
        self._told_stop = True
        part = self._part
        return [PartitionBatch(part.topic, part.number, self._platform, [], None, stop=True)]

    def next_awake(self) -> datetime | None:
        """Return when the consumer is polled next."""
        return self._consumer.wake_at

    def snapshot(self) -> int:
        """Return the next offset."""
        self._snapshot_s = time.monotonic()
        return self._part.store()

    def close(self) -> None:
        """Close the consumer with its last partition."""
        self._consumer.close(self._part)
