"""The dead-letter topic: input that is no event, byte for byte, with where it was and why.

A dead letter is named for ever by the input record that it was, which its headers tell. So it is
written once: a resumed part first reads its topic from the stored offsets on, and leaves out what
is there already. A snapshot waits for nothing: it holds what is not acknowledged yet.

A new store has no offsets yet. So the first epoch of its input has no messages, only the word that
it begins (DeadLettersBegin): with it the offsets are stored, and no dead letter is written before.

The topic is read for that alone, so nothing that happens to it stops a run. It may expire, be
emptied or made anew, have other partitions, be shared, be another topic than before, or have no
leader. At worst, a dead letter that a killed run wrote, and that is not found any more, comes a
second time.

What was found is forgotten once all input has been read to its end: what the killed run had
rejected has been rejected again by then. Names that do not come again, because another program
writes them, would otherwise keep the stored offsets where they are.

What would break it: a dead letter in the epoch in which the part is made; records between the
stored offsets and the end that another program writes with the headers of a dead letter, of input
that this run is still to read.
"""

from collections import Counter, defaultdict
from time import monotonic

from bytewax.outputs import StatefulSinkPartition
from confluent_kafka import Message

from dataflows.formats import (
    DEAD_LETTER_VERSION,
    DeadLetterState,
    read_dead_letters,
    read_waiting_letters,
    to_stored_letter,
)
from dataflows.kafka.letter_queue import POLL_S, LetterProducer, LetterQueue
from dataflows.kafka.letter_topic import LetterTopic, header_bytes, origin_of
from dataflows.kafka.producer import SharedProducer
from dataflows.logs import log
from dataflows.messages import DeadLetter, DeadLettersBegin
from dataflows.metrics import DEAD_LETTERS
from dataflows.run_state import RunState

# A stop waits so long for what is not acknowledged.
STOP_S = 2.0


class FoundLetters:
    """What a crashed run had written of the dead letters that this run makes again."""

    def __init__(self, topic: LetterTopic, starts: dict[int, int] | None) -> None:
        """Read what is there from the starts on; without starts nothing can be found."""
        self._offsets: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
        self._last: dict[tuple[str, int], int] = {}
        self._made_again = False
        ends = topic.ends() if starts is None else topic.read(starts, self._remember)
        self._ends = (starts or {}) | ends
        # Until all that was found has been made again, it must be found by another start as well.
        self._stored = ends | (starts or {}) if self._offsets else self._ends

    def _remember(self, message: Message) -> None:
        record = origin_of(header_bytes(message))
        if record is not None:
            self._offsets[record[:2]].add(record.offset)

    def take(self, letter: DeadLetter) -> bool:
        """Say whether a letter is there; those before it in its input will not come again."""
        place = letter.topic, letter.partition
        if place not in self._offsets:
            return False
        offset, offsets = letter.message[0], self._offsets[place]
        if place not in self._last:
            self._last[place] = max(offsets)
        if offset >= self._last[place]:
            del self._offsets[place]
        return offset in offsets

    def ends(self, taken: dict[int, int], *, all_read: bool) -> dict[int, int]:
        """Return where another start must begin, if a snapshot is taken now.

        taken is how far letters have been taken. all_read says that all input which an earlier run
        can have read has been read; letters of it are here by the next snapshot at the latest.
        """
        if self._made_again:
            self._offsets.clear()
        self._made_again = all_read
        self._ends |= taken
        if not self._offsets:
            self._stored = dict(self._ends)
        return self._stored


class DeadLetterPart(StatefulSinkPartition[DeadLetter | DeadLettersBegin, DeadLetterState]):
    """Sends dead letters, except those that a crashed run has written already."""

    def __init__(
        self,
        *,
        topic: LetterTopic,
        letters: LetterProducer,
        producer: SharedProducer,
        run: RunState,
        state: tuple[object, ...] | None,
    ) -> None:
        """Read what is there since the snapshot (state), and send what waited in it.

        letters sends them, as long as producer may.
        """
        self._letters = letters
        self._producer = producer
        self._run = run
        self._queues = [LetterQueue(topic.name, n, letters) for n in range(topic.partitions)]
        self._found = FoundLetters(topic, None if state is None else read_dead_letters(state))
        with letters.serving:
            self._send([] if state is None else read_waiting_letters(state))

    def write_batch(self, items: list[DeadLetter | DeadLettersBegin]) -> None:
        """Enqueue what is not there already."""
        self._producer.poll()
        with self._letters.serving:
            reasons = self._send([item for item in items if isinstance(item, DeadLetter)])
            for reason, count in reasons.items():
                DEAD_LETTERS.labels(reason).inc(count)
            self._letters.poll()

    def _send(self, items: list[DeadLetter]) -> Counter[str]:
        """Enqueue what is not there already; return how many it was by their reasons."""
        reasons: Counter[str] = Counter()
        for letter in items:
            if not self._found.take(letter):
                reasons[letter.reason] += 1
                self._queues[letter.partition % len(self._queues)].put(letter)
        return reasons

    def snapshot(self) -> DeadLetterState:
        """Return where the partitions end, and what is not acknowledged."""
        with self._letters.serving:
            return self._snapshot()

    def _snapshot(self) -> DeadLetterState:
        self._letters.poll()
        if self._run.stop.is_set():
            self._wait()
        taken = {n: queue.end for n, queue in enumerate(self._queues) if queue.end is not None}
        ends = self._found.ends(taken, all_read=self._run.at_end_of_input())
        waiting = [to_stored_letter(x) for queue in self._queues for x in queue.waiting()]
        return DEAD_LETTER_VERSION, ends, waiting

    def _wait(self) -> None:
        """Wait a moment for acknowledgements; what is missing then is in the snapshot."""
        deadline_s = monotonic() + STOP_S
        while any(queue.waiting() for queue in self._queues) and monotonic() < deadline_s:
            self._letters.poll(POLL_S)
        waiting = sum(len(queue.waiting()) for queue in self._queues)
        if waiting:
            log.warning(
                "the topic has not taken all dead letters, so they wait in the store: the next "
                "start sends them",
                letters=waiting,
            )
