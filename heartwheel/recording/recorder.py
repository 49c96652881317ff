"""The recorder: reads topics of a Kafka into a recording; a killed one can be resumed."""

import time
from importlib.metadata import version
from pathlib import Path
from typing import cast

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaError, Message, TopicPartition
from msgspec import Struct

from dataflows.kafka.client import TRANSIENT, consumer_options, make_consumer
from dataflows.kafka.metadata import METADATA_TIMEOUT_S, partition_counts
from dataflows.kafka.source_errors import SourceError
from dataflows.settings import Settings
from heartwheel.recording.format import (
    Header,
    Line,
    Manifest,
    Preface,
    format_of,
    part_name,
    stored_settings,
)
from heartwheel.recording.schemas_seen import SchemasSeen
from heartwheel.recording.writer import Writer
from heartwheel.text import text_or_bytes
from session_logic.errors import ConfigError

POLL_MESSAGES = 5_000
POLL_S = 0.2


class Begin(Struct, frozen=True):
    """Where to begin: at the first record, at a time in ms, or at offsets by partition."""

    from_ms: int | None = None
    offsets: dict[str, int] = {}


class Recorder:
    """Reads the topics of the settings into a recording."""

    def __init__(self, path: Path, settings: Settings, begin: Begin) -> None:
        """Open Kafka and the file; raises what Writer and partition_counts raise."""
        self._settings = settings
        self._begin = begin
        self._outputs = [
            # Its end is fixed before those of the topics apart: an end that is recorded then has
            # the heartbeats that are due before it.
            settings.output_topic, *settings.topics_apart.values(), settings.dead_letter_topic,
        ]  # fmt: skip
        self._consumer = self._open()
        self._names = self._partition_names()
        self._schemas = SchemasSeen(settings)
        self._writer = Writer(path, self._preface, stored_settings(settings), self._schemas.note)
        starts = self._writer.preface.starts
        if starts.keys() != set(self._names):
            missing = ", ".join(sorted(starts.keys() ^ set(self._names)))
            msg = f"recording {path} was begun with other partitions ({missing}); give another file"
            raise ConfigError(msg)
        self._next = {
            name: max(starts[name], self._writer.extents[name].last + 1) for name in self._names
        }
        self._ends: dict[str, int] = {}
        self._complete_ms = 0
        self.resumed = sum(extent.records for extent in self._writer.extents.values())
        self.recorded = 0

    def _open(self) -> Consumer:
        required = {
            # No group is joined and nothing is committed: the file says where to resume.
            "group.id": "heartwheel-record",
            "enable.auto.commit": "false",
            "enable.auto.offset.store": "false",
            "enable.partition.eof": "true",
            # An offset that no longer exists would be a hole in the recording.
            "auto.offset.reset": "error",
        }
        defaults = {"queued.max.messages.kbytes": "32768"}
        return make_consumer(consumer_options(self._settings, required, defaults))

    def _partition_names(self) -> list[str]:
        counts = partition_counts(self._consumer, self._settings)
        topics = [*self._outputs, *self._settings.all_input_topics]
        missing = [topic for topic in topics if topic not in counts]
        if missing:
            msg = (
                f"topic {', '.join(missing)} does not exist on {self._settings.bootstrap_servers}; "
                "correct the topics in the settings"
            )
            raise ConfigError(msg)
        return [part_name(topic, number) for topic in topics for number in range(counts[topic])]

    def _preface(self) -> Preface:
        """Return the preface of a new recording, with where each partition begins."""
        unknown = self._begin.offsets.keys() - set(self._names)
        if unknown:
            msg = f"there is no partition {', '.join(sorted(unknown))} to begin at an offset of"
            raise ConfigError(msg)
        starts = {name: self._start(name) for name in self._names}
        settings = stored_settings(self._settings)
        return Preface(
            format_of(self._settings), version("heartwheel"), settings, starts, self._begin.from_ms
        )

    def _start(self, name: str) -> int:
        low, high = self._watermarks(name)
        given = self._begin.offsets.get(name)
        if given is not None:
            if not low <= given <= high:
                msg = f"{name} cannot begin at offset {given}: it has {low} to {high}"
                raise ConfigError(msg)
            return given
        if self._begin.from_ms is None:
            return low
        where = _where(name, self._begin.from_ms)
        offset: int = self._consumer.offsets_for_times([where], METADATA_TIMEOUT_S)[0].offset
        return high if offset < 0 else offset

    def _watermarks(self, name: str) -> tuple[int, int]:
        return self._consumer.get_watermark_offsets(_where(name), METADATA_TIMEOUT_S)

    def fix_ends(self) -> int:
        """Record up to the current ends; return how many offsets that is.

        The ends of the output are asked for first. The recording then has the input that caused
        all of its output, and it is complete up to the moment between the two questions.
        """
        inputs = [name for name in self._names if name.rpartition("/")[0] not in self._outputs]
        for name in self._names:
            if name not in inputs:
                self._ends[name] = self._watermarks(name)[1]
        self._complete_ms = int(time.time() * 1000)
        for name in inputs:
            self._ends[name] = self._watermarks(name)[1]
        return sum(max(0, self._ends[name] - self._next[name]) for name in self._names)

    def start(self) -> None:
        """Begin to read."""
        self._consumer.assign([_where(name, offset) for name, offset in self._next.items()])

    def step(self) -> bool:
        """Write what has arrived; say whether everything up to the ends is written."""
        for message in self._consumer.consume(POLL_MESSAGES, POLL_S):
            error = message.error()
            if error is None:
                self._add(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                name = part_name(cast("str", message.topic()), cast("int", message.partition()))
                self._next[name] = max(self._next[name], cast("int", message.offset()))
            elif error.code() not in TRANSIENT:
                where = f"{message.topic()}/{message.partition()}"
                msg = (
                    f"recording {where}: {error.str()} ({error.name()}); if its records have "
                    "expired meanwhile, begin a new file"
                )
                raise SourceError(msg)
        return bool(self._ends) and all(self._next[name] >= end for name, end in self._ends.items())

    def _add(self, message: Message) -> None:
        topic, partition = cast("str", message.topic()), cast("int", message.partition())
        name, offset = part_name(topic, partition), cast("int", message.offset())
        if offset < self._next[name] or offset >= self._ends.get(name, offset + 1):
            self._next[name] = max(self._next[name], offset)
            return
        self._next[name] = offset + 1
        kind, timestamp_ms = message.timestamp()
        headers = cast("list[tuple[str, bytes | None]]", message.headers() or [])
        key, key_base64 = text_or_bytes(message.key())
        value, value_base64 = text_or_bytes(message.value())
        self._writer.add(
            Line(
                topic=topic,
                partition=partition,
                offset=offset,
                timestamp_ms=timestamp_ms,
                timestamp_type="append" if kind == TIMESTAMP_LOG_APPEND_TIME else "create",
                key=key,
                key_base64=key_base64,
                value=value,
                value_base64=value_base64,
                headers=[Header(header, *text_or_bytes(content)) for header, content in headers],
            )
        )
        self.recorded += 1

    def finish(self) -> Manifest:
        """Complete the recording."""
        # The clock of the recorded run may be ahead of this machine's.
        written_ms = max(
            self._writer.extents[name].latest_ms
            for name in self._names
            if name.rpartition("/")[0] in self._outputs
        )
        self._writer.flush()
        return self._writer.finish(max(self._complete_ms, written_ms), self._schemas.texts())

    def close(self) -> None:
        """Leave Kafka and the file."""
        self._writer.close()
        self._consumer.close()


def _where(name: str, offset: int = 0) -> TopicPartition:
    topic, _, partition = name.rpartition("/")
    return TopicPartition(topic, int(partition), offset)
