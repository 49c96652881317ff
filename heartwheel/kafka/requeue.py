"""Sends dead letters again: each in one transaction with its mark, so never twice by mistake."""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import cast

from confluent_kafka import KafkaError, KafkaException, Message

from dataflows.kafka.client import FENCED, make_producer, producer_options
from dataflows.kafka.metadata import describe
from dataflows.settings import Settings
from heartwheel.kafka.dead_letters import DeadLetterError, StoredDeadLetter
from heartwheel.kafka.headers import BECAME, LETTER, MARK, REQUEUES, Origin
from session_logic.errors import ConfigError

# Readers of the input wait for an open transaction. So it is short, and it times out soon if this
# process dies in it.
BATCH_DEAD_LETTERS = 100
TRANSACTION_MS = "10000"
TIMEOUT_S = 10.0


class Requeue:
    """Sends dead letters to the partitions that they came from; only one can do so at a time."""

    def __init__(self, settings: Settings) -> None:
        """Fence off any other that sends dead letters of this topic; raises DeadLetterError."""
        self._settings = settings
        self._topic = settings.dead_letter_topic
        self._became: dict[Origin, str] = {}
        self._failure: KafkaError | None = None
        options = producer_options(
            settings,
            {
                "transactional.id": f"heartwheel-requeue-{self._topic}",
                "transaction.timeout.ms": TRANSACTION_MS,
                "message.timeout.ms": TRANSACTION_MS,
            },
        )
        self._producer = make_producer(options)
        topics = describe(self._producer, settings).topics
        self._partitions = {name: len(topic.partitions) for name, topic in topics.items()}
        try:
            self._producer.init_transactions(TIMEOUT_S)
        except KafkaException as error:
            raise self._error(error.args[0], 0) from None

    def check(self, origin: Origin) -> None:
        """Raise ConfigError unless the input partition still exists."""
        topic, partition, _ = origin.record
        if topic not in self._settings.all_input_topics:
            msg = (
                f"dead letters of topic {topic} cannot be sent again: it is neither in "
                "HEARTWHEEL_INPUT_TOPICS nor has a table; add it, or select others with --topic"
            )
            raise ConfigError(msg)
        if partition >= self._partitions.get(topic, 0):
            msg = (
                f"dead letters of {topic}/{partition} cannot be sent again: there is no "
                f"such partition on {self._settings.bootstrap_servers}; select others by name"
            )
            raise ConfigError(msg)

    def send(self, letters: Iterable[StoredDeadLetter], shown: Callable[[int], None]) -> int:
        """Send dead letters; return how many. Raises DeadLetterError, with how many were sent."""
        waiting, sent = iter(letters), 0
        while batch := list(islice(waiting, BATCH_DEAD_LETTERS)):
            try:
                self._producer.begin_transaction()
                self._send_batch(batch)
                self._producer.commit_transaction(TIMEOUT_S)
            except KafkaException as error:
                self._abort()
                raise self._error(error.args[0], sent) from None
            except BaseException:  # Ctrl-C, too: readers of the input would wait otherwise
                self._abort()
                raise
            sent += len(batch)
            shown(sent)
        return sent

    def _send_batch(self, batch: list[StoredDeadLetter]) -> None:
        for letter in batch:
            origin = letter.origin
            assert origin is not None
            self._producer.produce(
                origin.record.topic,
                letter.value,
                letter.key,
                origin.record.partition,
                partial(self._on_delivery, origin),
                timestamp=max(0, origin.time_ms),
                headers=[
                    *letter.headers,
                    (REQUEUES, str(letter.requeues + 1)),
                    (LETTER, f"{self._topic}/{letter.partition}/{letter.offset}"),
                ],
            )
        self._flush()
        for letter in batch:
            assert letter.origin is not None
            if letter.origin not in self._became:
                raise KafkaException(self._cause())
            self._producer.produce(
                self._topic,
                partition=letter.partition,
                headers={
                    MARK: str(letter.origin),
                    BECAME: self._became.pop(letter.origin),
                    REQUEUES: str(letter.requeues + 1),
                },
            )

    def _on_delivery(self, origin: Origin, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failure = self._failure or error
        else:
            record = origin.record._replace(offset=cast("int", message.offset()))
            self._became[origin] = str(record)

    def _flush(self) -> None:
        """Wait until every record sent has its offset; one without has failed."""
        try:
            self._producer.flush(TIMEOUT_S)
        except KeyboardInterrupt:
            raise
        except:  # noqa: E722  # a fatal error comes as what is no Exception, or as SystemError
            return

    def _cause(self) -> KafkaError:
        """Return why a record has no offset: the fatal error, which any call raises, or its own."""
        try:
            self._producer.begin_transaction()
        except KafkaException as error:
            if error.args[0].fatal():
                return cast("KafkaError", error.args[0])
        return self._failure or KafkaError(KafkaError._MSG_TIMED_OUT)

    def _abort(self) -> None:
        try:
            self._producer.abort_transaction(TIMEOUT_S)
        except KafkaException:
            return  # Kafka aborts it when it times out

    def _error(self, error: KafkaError, sent: int) -> DeadLetterError:
        where = f"{sent} dead letters of {self._topic} sent again, then none"
        if error.code() in FENCED:
            return DeadLetterError(f"{where}: another `dead-letters requeue` has begun; run one")
        return DeadLetterError(
            f"{where}: {error.str()} ({error.name()}); what was sent is marked, so the same "
            "command sends the others"
        )
