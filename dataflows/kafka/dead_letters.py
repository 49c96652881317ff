"""The dead-letter topic: input that is no event, byte for byte, with where it was and why.

A dead letter is named for ever by the input record that it was, which its headers tell. So it is
written once: a resumed part first reads its topic from the stored offsets on, and leaves out what
is there already. A snapshot waits for every acknowledgement, because dead letters are rare.
"""

from collections import Counter
from functools import partial
from typing import cast

from bytewax.outputs import StatefulSinkPartition
from confluent_kafka import KafkaError, Message

from dataflows.formats import DEAD_LETTER_VERSION, DeadLetterState, read_dead_letters
from dataflows.kafka.producer import SharedProducer
from dataflows.kafka.reconcile import OutputReader
from dataflows.messages import DeadLetter, RecordId
from dataflows.metrics import DEAD_LETTERS


class DeadLetterPart(StatefulSinkPartition[DeadLetter, DeadLetterState]):
    """Sends dead letters, except those that a crashed run has written already."""

    def __init__(
        self,
        topic: str,
        partitions: int,
        producer: SharedProducer,
        reader: OutputReader,
        state: tuple[object, ...] | None,
    ) -> None:
        """Begin at the ends of the partitions, or read what is there since the snapshot (state)."""
        self._topic = topic
        self._partitions = partitions
        self._producer = producer
        self._written: set[RecordId] = set()
        if state is None:
            self._stored = {p: reader.bounds(topic, p)[1] for p in range(partitions)}
            self._ends = dict(self._stored)
        else:
            self._stored = read_dead_letters(state)
            self._ends = reader.read(topic, self._stored, self._remember)

    def _remember(self, message: Message) -> None:
        headers = dict(cast("list[tuple[str, bytes]]", message.headers() or []))
        topic = headers.get("heartwheel.topic", b"").decode(errors="replace")
        partition, offset = headers.get("heartwheel.partition"), headers.get("heartwheel.offset")
        if partition and offset and partition.isdigit() and offset.isdigit():
            self._written.add(RecordId(topic, int(partition), int(offset)))

    def write_batch(self, items: list[DeadLetter]) -> None:
        """Enqueue what is not there already."""
        self._producer.poll()
        produce = self._producer.open().produce
        reasons: Counter[str] = Counter()
        for letter in items:
            offset, time_ms, key, value, _ = letter.message
            if self._written and self._is_written(RecordId(letter.topic, letter.partition, offset)):
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

    def _is_written(self, record: RecordId) -> bool:
        """Say whether a dead letter is there, and forget the earlier ones of its partition."""
        found = record in self._written
        self._written = {
            other
            for other in self._written
            if other[:2] != record[:2] or other.offset > record.offset
        }
        return found

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._producer.failure = f"{self._topic}: {error.str()} ({error.name()})"
            return
        self._ends[cast("int", message.partition())] = cast("int", message.offset()) + 1

    def snapshot(self) -> DeadLetterState:
        """Wait until the dead letters are acknowledged; return where the partitions end."""
        self._producer.flush()
        if not self._written:  # else a resume must find it again
            self._stored = dict(self._ends)
        return DEAD_LETTER_VERSION, self._stored
