"""The newest records of a topic, read without a trace: no group is joined, nothing is committed."""

import difflib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import cast

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, KafkaException, Message, TopicPartition

from dataflows.kafka.client import consumer_options, make_consumer
from dataflows.kafka.headers import headers_of
from dataflows.kafka.metadata import METADATA_TIMEOUT_S, describe
from dataflows.kafka.reader import END_OPTIONS, ReadToEnd, read_error
from dataflows.logs import announced
from dataflows.settings import Settings
from dataflows.text import printable
from heartwheel.events.records import SeenRecord
from session_logic.errors import ConfigError

# So many offsets of a partition are looked at for its newest records, where most are none: markers
# of transactions, or what was aborted or compacted away.
MAX_OFFSETS = 100_000
FURTHER = 4


class NewestRecords:
    """Reads the newest records of topics, as a run would see them."""

    def __init__(self, settings: Settings, topics: Collection[str]) -> None:
        """Find topics; raises ConfigError if Kafka does not answer, or has not all of them."""
        self._settings = settings
        self._consumer = make_consumer(
            consumer_options(
                settings,
                {
                    **END_OPTIONS,
                    "group.id": "heartwheel",
                    "enable.auto.commit": "false",
                    "isolation.level": "read_committed",
                    "auto.offset.reset": "earliest",
                },
            )
        )
        found = describe(self._consumer, settings).topics
        missing = [name for name in topics if name not in found or found[name].error is not None]
        if missing:
            raise ConfigError(_missing(settings, missing, found))
        self._partitions = {name: list(found[name].partitions) for name in topics}

    def of(self, topic: str, last: int) -> list[SeenRecord]:
        """Return the newest records of a topic, in the order of their timestamps.

        Raises ReadError if Kafka does not let them be read.
        """
        with announced(f"waiting for Kafka to give the newest records of topic {topic}"):
            bounds = {n: self._bounds(topic, n) for n in self._partitions[topic]}
            found = self._read(topic, bounds, last)
        messages = [message for some in found.values() for message in some]
        messages.sort(key=lambda one: (one.timestamp()[1], one.partition(), one.offset()))
        return list(map(_seen, messages[-last:]))

    def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has."""
        return len(self._partitions[topic])

    def sample(
        self,
        topic: str,
        count: int,
        since: Mapping[int, int] = {},
    ) -> Iterator[tuple[int, SeenRecord]]:
        """Yield some of the newest records with their partitions, as many of each partition.

        Looks at no more than count offsets in all, or one of each partition if that is more; and at
        all from the offsets in since on. Raises ReadError if Kafka does not let them be read.
        """
        share = -(-count // max(1, len(self._partitions[topic])))
        with announced(f"waiting for Kafka to give the newest records of topic {topic}"):
            bounds = {n: self._bounds(topic, n) for n in self._partitions[topic]}
        ends = {n: high for n, (low, high) in bounds.items() if high > low}
        starts = {
            n: (max(bounds[n][0], min(since.get(n, end), end - share)), 0)
            for n, end in ends.items()
        }
        for message in ReadToEnd(self._consumer, topic, starts, ends):
            partition, offset = cast("int", message.partition()), cast("int", message.offset())
            if offset < ends[partition]:
                yield partition, _seen(message)

    def _bounds(self, topic: str, partition: int) -> tuple[int, int]:
        where = TopicPartition(topic, partition)
        try:
            return self._consumer.get_watermark_offsets(where, METADATA_TIMEOUT_S)
        except KafkaException as error:
            raise read_error(topic, error.args[0]) from None

    def _read(
        self, topic: str, bounds: dict[int, tuple[int, int]], last: int
    ) -> dict[int, list[Message]]:
        """Return the newest records of each partition, looking further back where few are found."""
        found: dict[int, list[Message]] = {}
        reach, left = last, {n for n, (low, high) in bounds.items() if high > low}
        while left:
            starts = {n: max(bounds[n][0], bounds[n][1] - reach) for n in left}
            found |= self._read_from(topic, starts, {n: bounds[n][1] for n in left}, last)
            reach *= FURTHER
            left = {
                n
                for n in left
                if len(found[n]) < last and starts[n] > bounds[n][0] and reach <= MAX_OFFSETS
            }
        return found

    def _read_from(
        self, topic: str, starts: dict[int, int], ends: dict[int, int], last: int
    ) -> dict[int, list[Message]]:
        found: defaultdict[int, list[Message]] = defaultdict(list, {n: [] for n in starts})
        # An open transaction has its end before that of the partition.
        bounds = {n: (start, 0) for n, start in starts.items()}
        for message in ReadToEnd(self._consumer, topic, bounds, ends):
            partition, offset = cast("int", message.partition()), cast("int", message.offset())
            if offset < ends[partition]:
                found[partition].append(message)
                del found[partition][:-last]
        return found

    def close(self) -> None:
        """Leave Kafka."""
        self._consumer.close()


def _seen(message: Message) -> SeenRecord:
    kind, time_ms = message.timestamp()
    return SeenRecord(
        name=f"{message.partition()}/{message.offset()}",
        time_ms=-1 if kind == TIMESTAMP_NOT_AVAILABLE else time_ms,
        key=message.key(),
        value=message.value(),
        headers=headers_of(message) or [],
    )


def _missing(settings: Settings, missing: Sequence[str], there: Iterable[str]) -> str:
    near = {one for name in missing for one in difflib.get_close_matches(name, there, 1)}
    hint = f"did you mean {', '.join(map(printable, sorted(near)))}? else " if near else ""
    return (
        f"no topic {', '.join(map(printable, missing))} on {settings.bootstrap_servers}, or this "
        f"user may not see it; {hint}correct its name, or HEARTWHEEL_BOOTSTRAP_SERVERS"
    )
