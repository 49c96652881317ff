"""The dead-letter topic: input that is no event, byte for byte, with where it was and why."""

from collections import Counter
from functools import partial
from typing import cast

from bytewax.outputs import StatefulSinkPartition
from confluent_kafka import KafkaError, Message

from dataflows.kafka.producer import SharedProducer
from dataflows.kafka.reconcile import OutputReader
from dataflows.messages import DeadLetter
from dataflows.metrics import DEAD_LETTERS
from session_logic.errors import SnapshotError

DEAD_LETTER_VERSION = 2
# (version, the end offset of each partition)
DeadLetterState = tuple[int, dict[int, int]]
# Input topic, partition and offset: the name of a dead letter for ever.
Name = tuple[str, int, int]


class DeadLetterPart(StatefulSinkPartition[DeadLetter, DeadLetterState]):
    """Sends dead letters; after a crash those that are in the topic already are left out."""

    def __init__(
        self,
        topic: str,
        partitions: int,
        producer: SharedProducer,
        reader: OutputReader,
        state: tuple[object, ...] | None,
    ) -> None:
        """Begin at the ends of the partitions, or with what is there since the snapshot."""
        self._topic = topic
        self._partitions = partitions
        self._producer = producer
        self._written: set[Name] = set()
        if state is None:
            self._stored = {p: reader.bounds(topic, p)[1] for p in range(partitions)}
            self._ends = dict(self._stored)
        else:
            self._stored = starts_of(state)
            self._ends = reader.read(topic, self._stored, self._remember)

    def _remember(self, message: Message) -> None:
        headers = dict(cast("list[tuple[str, bytes]]", message.headers() or []))
        topic = headers.get("heartwheel.topic", b"").decode(errors="replace")
        partition, offset = headers.get("heartwheel.partition"), headers.get("heartwheel.offset")
        if partition and offset and partition.isdigit() and offset.isdigit():
            self._written.add((topic, int(partition), int(offset)))

    def write_batch(self, items: list[DeadLetter]) -> None:
        """Enqueue what is not there already."""
        self._producer.poll()
        produce = self._producer.open().produce
        reasons: Counter[str] = Counter()
        for letter in items:
            offset, time_ms, key, value = letter.message
            if self._written and self._is_written((letter.topic, letter.partition, offset)):
                continue
            reasons[letter.reason] += 1
            headers: dict[str, str | bytes | None] = {
                "heartwheel.topic": letter.topic,
                "heartwheel.partition": str(letter.partition),
                "heartwheel.offset": str(offset),
                "heartwheel.timestamp": str(time_ms),
                "heartwheel.reason": letter.reason,
                "heartwheel.detail": letter.detail,
            }
            self._producer.send(
                partial(
                    produce,
                    self._topic,
                    value,
                    key,
                    letter.partition % self._partitions,
                    self._on_delivery,
                    headers=headers,
                )
            )
        for reason, count in reasons.items():
            DEAD_LETTERS.labels(reason).inc(count)

    def _is_written(self, name: Name) -> bool:
        """Say whether a letter is there; earlier ones of its partition are not asked for again."""
        found = name in self._written
        self._written = {w for w in self._written if w[:2] != name[:2] or w[2] > name[2]}
        return found

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._producer.failure = f"{self._topic}: {error.str()} ({error.name()})"
            return
        self._ends[cast("int", message.partition())] = cast("int", message.offset()) + 1

    def snapshot(self) -> DeadLetterState:
        """Wait until the letters are acknowledged; return where the partitions end."""
        self._producer.flush()
        if not self._written:  # else it is still to be found by a resume
            self._stored = dict(self._ends)
        return DEAD_LETTER_VERSION, self._stored


def starts_of(state: tuple[object, ...]) -> dict[int, int]:
    """Return the end offsets of a snapshot; version 1 did not have them."""
    version, ends = state
    if not isinstance(version, int) or version > DEAD_LETTER_VERSION:
        msg = (
            f"recovery store, dead letters: version {version} is newer than this program knows "
            f"({DEAD_LETTER_VERSION}); run the version of Heartwheel that wrote it, or a later one"
        )
        raise SnapshotError(msg)
    return dict(cast("dict[int, int]", ends)) if version > 1 else {}
