"""The dead-letter topic: input that is no event, byte for byte, with where it was and why.

A dead letter is named for ever by the input record that it was, which its headers tell. So it is
written once: a resumed part first reads its topic from the stored offsets on, and leaves out what
is there already. A snapshot waits for every acknowledgement, because dead letters are rare.

A new store has no offsets yet. So the first epoch of its input has no messages, only the word that
it begins (DeadLettersBegin): with it the offsets are stored, and no dead letter is written before.

What would break it: a dead letter in the epoch in which the part is made; records between the
stored offsets and the end that another program writes with the headers of a dead letter.
"""

from collections import Counter
from functools import partial
from typing import cast

from bytewax.outputs import StatefulSinkPartition
from confluent_kafka import KafkaError, Message

from dataflows.formats import DEAD_LETTER_VERSION, DeadLetterState, read_dead_letters
from dataflows.kafka.producer import SharedProducer
from dataflows.kafka.reconcile import OutputReader
from dataflows.messages import DeadLetter, DeadLettersBegin, RecordId, RejectedByClock
from dataflows.metrics import DEAD_LETTERS


class DeadLetterPart(StatefulSinkPartition[DeadLetter | DeadLettersBegin, DeadLetterState]):
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
            # What has expired need not be found again: no copy of it is there.
            self._stored = {
                partition: max(offset, reader.bounds(topic, partition)[0])
                for partition, offset in read_dead_letters(state).items()
            }
            self._ends = reader.read(topic, self._stored, self._remember)

    def _remember(self, message: Message) -> None:
        record = _origin(_headers(message))
        if record is not None:
            self._written.add(record)

    def write_batch(self, items: list[DeadLetter | DeadLettersBegin]) -> None:
        """Enqueue what is not there already."""
        self._producer.poll()
        produce = self._producer.open().produce
        reasons: Counter[str] = Counter()
        for letter in items:
            if isinstance(letter, DeadLettersBegin):
                continue
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


def read_rejected_by_clock(
    topic: str, partitions: int, reader: OutputReader, stored: dict[int, int] | None
) -> RejectedByClock:
    """Return the input that earlier runs rejected because it was in the future.

    What one run has rejected stays rejected: by a later clock the same record would be an event.
    Only what came after the last snapshot can be decoded again, so the topic is read from the
    stored offsets on; without them (a store that another process has) from its beginning.
    """
    found: RejectedByClock = {}

    def take(message: Message) -> None:
        headers = _headers(message)
        record, time_ms = _origin(headers), headers.get("heartwheel.timestamp", b"")
        by_clock = headers.get("heartwheel.reason") == b"in_the_future"
        if record is not None and by_clock and time_ms.isdigit():
            found.setdefault(record[:2], {})[record.offset] = int(time_ms)

    starts = {}
    for partition in range(partitions):
        low, high = reader.bounds(topic, partition)
        start = max(low, (stored or {}).get(partition, low))
        if start < high:
            starts[partition] = start
    if starts:
        reader.read(topic, starts, take)
    return found


def _headers(message: Message) -> dict[str, bytes]:
    return dict(cast("list[tuple[str, bytes]]", message.headers() or []))


def _origin(headers: dict[str, bytes]) -> RecordId | None:
    """Return the input record that a dead letter was; None if headers are not Heartwheel's."""
    topic = headers.get("heartwheel.topic", b"").decode(errors="replace")
    partition, offset = headers.get("heartwheel.partition"), headers.get("heartwheel.offset")
    if partition and offset and partition.isdigit() and offset.isdigit():
        return RecordId(topic, int(partition), int(offset))
    return None
