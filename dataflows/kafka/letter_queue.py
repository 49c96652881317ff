"""Dead letters on their way to a partition of their topic.

What is guaranteed: a topic that does not take dead letters holds up no session, and what waits for
it is bounded. A letter is kept until Kafka has acknowledged it. A snapshot holds those that wait,
and a resumed run sends them.

A partition that takes nothing (no leader, no broker) is waited for once, PATIENCE_S, when as many
letters wait as may. Then each further letter is dropped until it takes some again. That is counted
and logged, and the record is still in the input topic.

The letters have a producer of their own, so that their queue is not that of the sessions, nor their
failure to be acknowledged one of the output.
"""

import time
from functools import partial
from threading import RLock

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from dataflows.kafka.client import HANGING_MS, MakeProducer, producer_options
from dataflows.kafka.headers import OWN, senders, size_of
from dataflows.kafka.producer import DeliveryError, refusal
from dataflows.logs import log
from dataflows.messages import DeadLetter
from dataflows.metrics import DEAD_LETTERS_DROPPED
from dataflows.settings import Settings

# What may wait for a partition: more than is under way while a broker is well.
MAX_LETTERS = 2_000
MAX_BYTES = 2_000_000
PATIENCE_S = 5.0
# With the largest key and value that are kept, a letter fits into what brokers take by default.
MAX_HEADER_BYTES = 16_384
POLL_S = 0.01


class LetterProducer:
    """The producer of the dead letters of this process."""

    def __init__(self, settings: Settings, make_producer: MakeProducer) -> None:
        """Connect with the first dead letter."""
        self._settings = settings
        self._make_producer = make_producer
        self._producer: Producer | None = None
        self.failure: str | None = None
        # Whoever has it sees no acknowledgement come but by its own polls.
        self.serving = RLock()

    def open(self) -> Producer:
        """Return the producer, made on first use."""
        if self._producer is None:
            required = {
                # Each letter once and in order, and for as long as it takes.
                "enable.idempotence": "true",
                "acks": "all",
                "message.timeout.ms": "0",
                # The queues here are the limit.
                "queue.buffering.max.messages": "500000",
                "queue.buffering.max.kbytes": "262144",
            }
            defaults = {
                "linger.ms": "5",
                "compression.type": "lz4",
                "socket.timeout.ms": HANGING_MS,
            }
            self._producer = self._make_producer(
                producer_options(self._settings, required, defaults)
            )
        return self._producer

    def poll(self, wait_s: float = 0) -> None:
        """Take in acknowledgements; raises DeliveryError if Kafka has refused a letter."""
        if self._producer is not None:
            try:
                self._producer.poll(wait_s)
            except KafkaException as error:  # that is how a fatal error comes
                self.failure = refusal(error.args[0])
            except SystemError:  # it came with another one
                self.failure = "a fatal error of the Kafka client, which the log names"
        if self.failure is not None:
            msg = (
                f"dead letters to {self._settings.bootstrap_servers} failed: {self.failure}; the "
                "run stops and resumes from its last snapshot when it is started again"
            )
            raise DeliveryError(msg)

    def tick(self) -> None:
        """Take in acknowledgements, also while no letter comes; never waits. Raises as `poll`."""
        if self.serving.acquire(blocking=False):
            try:
                self.poll()
            finally:
                self.serving.release()


class LetterQueue:
    """The letters that a partition of the topic has not acknowledged, in order."""

    def __init__(self, topic: str, partition: int, producer: LetterProducer) -> None:
        """Begin empty."""
        self._topic, self._partition = topic, partition
        self._producer = producer
        self._waiting: dict[int, DeadLetter] = {}
        self._sent = 0
        self._bytes = 0
        self._taken_s = 0.0  # when it last took a letter, or began to wait for one
        self._away = False
        self.end: int | None = None  # after the last letter that it has taken

    def waiting(self) -> list[DeadLetter]:
        """Return what is not acknowledged."""
        return list(self._waiting.values())

    def put(self, letter: DeadLetter) -> None:
        """Send a letter, or drop it if the partition takes none.

        Raises DeliveryError if Kafka has refused one.
        """
        if not self._waiting:
            self._taken_s = time.monotonic()
        while not self._has_room() or not self._produce(letter):
            if not self._wait():
                DEAD_LETTERS_DROPPED.inc()
                return
        self._waiting[self._sent] = letter
        self._sent += 1
        self._bytes += _size(letter)

    def _has_room(self) -> bool:
        return len(self._waiting) < MAX_LETTERS and self._bytes < MAX_BYTES

    def _produce(self, letter: DeadLetter) -> bool:
        """Hand a letter to the Kafka client; say whether it had room."""
        _, _, key, value, *_ = letter.message
        on_delivery = partial(self._on_delivery, self._sent)
        headers = letter_headers(letter)
        try:
            self._producer.open().produce(
                self._topic, value, key, self._partition, on_delivery, headers=headers
            )
        except BufferError:
            return False
        except KafkaException as error:
            self._refuse(error.args[0])
            self._producer.poll()
        return True

    def _wait(self) -> bool:
        """Wait a little for room; say whether that makes sense."""
        patient = time.monotonic() - self._taken_s <= PATIENCE_S
        if not patient and not self._away:
            self._away = True
            log.warning(
                "the topic of the dead letters takes none, so they are dropped until it does; what "
                "they were is still in the input",
                topic=self._topic,
                partition=self._partition,
            )
        self._producer.poll(POLL_S if patient else 0)
        return patient or self._has_room()

    def _on_delivery(self, number: int, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._refuse(error)
            return
        self._bytes -= _size(self._waiting.pop(number))
        self.end = (message.offset() or 0) + 1
        self._taken_s, self._away = time.monotonic(), False

    def _refuse(self, error: KafkaError) -> None:
        self._producer.failure = f"{self._topic}: {refusal(error)}"


def letter_headers(letter: DeadLetter) -> list[tuple[str, str | bytes | None]]:
    """Return what a letter has as headers: those of its record, then where and why it was."""
    offset, time_ms, *_, headers = letter.message
    own, detail = senders(headers), letter.detail
    if (size := size_of(own)) > MAX_HEADER_BYTES:
        own, detail = [], f"{detail} (its {size} bytes of headers are left out)"
    said = {
        "topic": letter.topic,
        "partition": str(letter.partition),
        "offset": str(offset),
        "timestamp": str(time_ms),
        "reason": letter.reason,
        "detail": detail,
    }
    return [*own, *((f"{OWN}{name}", text) for name, text in said.items())]


def _size(letter: DeadLetter) -> int:
    _, _, key, value, *_ = letter.message
    return len(key or b"") + len(value or b"")
