"""The dead-letter topic: input that is no event, byte for byte, with where it was and why.

A dead letter is named for ever by the input record that it was, which its headers tell. So it is
written once: a resumed part first reads its topic from the stored offsets on, and leaves out what
is there already. A snapshot waits for every acknowledgement, because dead letters are rare.

A new store has no offsets yet. So the first epoch of its input has no messages, only the word that
it begins (DeadLettersBegin): with it the offsets are stored, and no dead letter is written before.

The topic is read for that alone, so nothing that happens to it stops a run. It may expire, be
emptied or made anew, have other partitions, be shared or be another topic than before. At worst, a
dead letter that a killed run wrote, and that is not found any more, comes a second time.

What was found is forgotten once all input has been read to its end: what the killed run had
rejected has been rejected again by then. Names that do not come again, because another program
writes them, would otherwise keep the stored offsets where they are.

What would break it: a dead letter in the epoch in which the part is made; records between the
stored offsets and the end that another program writes with the headers of a dead letter, of input
that this run is still to read.
"""

from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import cast

from bytewax.outputs import StatefulSinkPartition
from confluent_kafka import KafkaError, Message
from msgspec import Struct

from dataflows.formats import DEAD_LETTER_VERSION, DeadLetterState, read_dead_letters
from dataflows.kafka.producer import SharedProducer
from dataflows.kafka.reconcile import OutputReader
from dataflows.logs import log
from dataflows.messages import DeadLetter, DeadLettersBegin, RecordId, RejectedByClock
from dataflows.metrics import DEAD_LETTERS


class KnownLetters(Struct):
    """What a resumed part knows of its topic.

    Where the last snapshot and each partition ended, and the offsets of the input records whose
    dead letters are in between, by topic and partition.
    """

    stored: dict[int, int]
    ends: dict[int, int]
    written: dict[tuple[str, int], deque[int]]


class DeadLetterPart(StatefulSinkPartition[DeadLetter | DeadLettersBegin, DeadLetterState]):
    """Sends dead letters, except those that a crashed run has written already."""

    def __init__(
        self,
        topic: str,
        partitions: int,
        producer: SharedProducer,
        known: KnownLetters,
        at_end_of_input: Callable[[], bool],
    ) -> None:
        """Leave out what is known to be there, until all input has been read to its end."""
        self._topic = topic
        self._partitions = partitions
        self._producer = producer
        self._at_end_of_input = at_end_of_input
        self._was_at_end = False  # at the last snapshot
        self._stored, self._ends, self._written = known.stored, known.ends, known.written

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
        """Say whether a dead letter is there; forget it and the earlier ones of its partition."""
        found, offsets = False, self._written.get(record[:2])
        while offsets and offsets[0] <= record.offset:
            found = offsets.popleft() == record.offset
        if offsets is not None and not offsets:
            del self._written[record[:2]]
        return found

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._producer.fail(f"{self._topic}: {error.str()} ({error.name()})")
            return
        self._producer.note_delivery()
        self._ends[cast("int", message.partition())] = cast("int", message.offset()) + 1

    def snapshot(self) -> DeadLetterState:
        """Wait until the dead letters are acknowledged; return where the partitions end."""
        self._producer.flush()
        # All that was read before an earlier snapshot has come here by now.
        if self._was_at_end:
            self._written.clear()
        self._was_at_end = self._at_end_of_input()
        if not self._written:  # else a resume must find it again
            self._stored = dict(self._ends)
        return DEAD_LETTER_VERSION, self._stored


def _starts(
    topic: str, partitions: int, reader: OutputReader, stored: dict[int, int]
) -> dict[int, int]:
    """Return from where on a partition has what a killed run may have written.

    Where nothing is stored that is the end; behind what is missing, the first offset that is there.
    """
    starts = {}
    for partition in range(partitions):
        low, high = reader.bounds(topic, partition)
        start = stored.get(partition, low if stored else high)
        starts[partition] = min(max(start, low), high)
        if partition in stored and starts[partition] != start:
            log.warning(
                "the dead-letter topic does not have the stored offset any more; dead letters "
                "that a killed run wrote there may come twice",
                topic=topic,
                partition=partition,
                stored=start,
                begins=low,
                ends=high,
            )
    return starts


def read_known(
    topic: str, partitions: int, reader: OutputReader, state: tuple[object, ...] | None
) -> KnownLetters:
    """Return what is in the topic since a snapshot, nothing if there was none.

    Raises ReconcileError or ReadError if Kafka does not tell.
    """
    stored = {} if state is None else read_dead_letters(state)
    starts = _starts(topic, partitions, reader, stored)
    found: list[RecordId] = []

    def take(message: Message) -> None:
        record = _origin(_headers(message))
        if record is not None:
            found.append(record)

    ends = reader.read(topic, starts, take) if stored else starts
    written: dict[tuple[str, int], deque[int]] = {}
    for record in sorted(found):
        written.setdefault(record[:2], deque()).append(record.offset)
    return KnownLetters(starts, dict(ends), written)


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
