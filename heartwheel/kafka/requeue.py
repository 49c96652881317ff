"""Dead letters sent again: each with its mark in one transaction, so never twice by mistake."""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import cast

from confluent_kafka import KafkaError, KafkaException, Message

from dataflows.kafka.client import FENCED, make_producer, producer_options
from dataflows.kafka.metadata import describe
from dataflows.settings import Settings
from heartwheel.kafka.dead_letters import Letter, LetterError, Place
from heartwheel.kafka.headers import BECAME, MARK, REQUEUES
from session_logic.errors import ConfigError

# Readers of the input wait for an open transaction, so it is short, and soon over if this
# process dies in it.
BATCH_LETTERS = 100
TRANSACTION_MS = "10000"
TIMEOUT_S = 10.0


class Requeue:
    """Sends letters to the partitions that they came from; of several at a time only one can."""

    def __init__(self, settings: Settings) -> None:
        """Keep out any other that sends letters of this topic; raises LetterError if refused."""
        self._settings = settings
        self._topic = settings.dead_letter_topic
        self._became: dict[Place, str] = {}
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

    def check(self, place: Place) -> None:
        """Raise ConfigError unless there still is such an input partition."""
        if place.topic not in self._settings.input_topics:
            msg = (
                f"letters of topic {place.topic} cannot be sent again: it is not in "
                "HEARTWHEEL_INPUT_TOPICS; add it, or choose others with --topic"
            )
            raise ConfigError(msg)
        if place.partition >= self._partitions.get(place.topic, 0):
            msg = (
                f"letters of {place.topic}/{place.partition} cannot be sent again: there is no "
                f"such partition on {self._settings.bootstrap_servers}; choose others by name"
            )
            raise ConfigError(msg)

    def send(self, letters: Iterable[Letter], shown: Callable[[int], None]) -> int:
        """Send letters; return how many. Raises LetterError, with how many were sent before."""
        waiting, sent = iter(letters), 0
        while batch := list(islice(waiting, BATCH_LETTERS)):
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

    def _send_batch(self, batch: list[Letter]) -> None:
        for letter in batch:
            place = letter.place
            assert place is not None
            self._producer.produce(
                place.topic,
                letter.value,
                letter.key,
                place.partition,
                partial(self._on_delivery, place),
                timestamp=max(0, place.time_ms),
                headers={
                    REQUEUES: str(letter.requeues + 1),
                    "heartwheel.letter": f"{self._topic}/{letter.partition}/{letter.offset}",
                },
            )
        self._flush()
        for letter in batch:
            assert letter.place is not None
            if letter.place not in self._became:
                raise KafkaException(self._cause())
            self._producer.produce(
                self._topic,
                partition=letter.partition,
                headers={
                    MARK: str(letter.place),
                    BECAME: self._became.pop(letter.place),
                    REQUEUES: str(letter.requeues + 1),
                },
            )

    def _on_delivery(self, place: Place, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failure = self._failure or error
        else:
            self._became[place] = f"{place.topic}/{place.partition}/{message.offset()}"

    def _flush(self) -> None:
        """Wait until what was sent has its offset; what has none has failed."""
        try:
            self._producer.flush(TIMEOUT_S)
        except KeyboardInterrupt:
            raise
        except:  # noqa: E722  # a fatal error comes as what is no Exception, or as SystemError
            return

    def _cause(self) -> KafkaError:
        """Return why a letter has no offset: the fatal error, which any call tells, or its own."""
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
            return  # Kafka does it when the transaction's time is over

    def _error(self, error: KafkaError, sent: int) -> LetterError:
        where = f"{sent} letters of {self._topic} sent again, then none"
        if error.code() in FENCED:
            return LetterError(f"{where}: another `dead-letters requeue` has begun; run one only")
        return LetterError(
            f"{where}: {error.str()} ({error.name()}); what was sent is marked, so the same "
            "command goes on with the others"
        )
