"""How Kafka's clients are made: whose options win, what they log, which errors pass."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, Producer
from confluent_kafka.admin import AdminClient

from dataflows.kafka.refusal import REFUSALS, refused
from dataflows.settings import Settings

# A lost connection is logged again when no line about one has come for this long.
CALM_S = 30
# A broker that hangs is left after this, for one that has taken over; Kafka itself takes 9 s to see
# that. Until then all lanes wait, because nobody knows what is in its partitions.
HANGING_MS = "10000"
Client = TypeVar("Client")
# Options of librdkafka by name; values that are no text are callbacks.
Options = Mapping[str, Any]
NONE: Options = {}
# What a broker's disk has changed is an error, and not another record.
CHECKED: Options = {"check.crcs": "true"}
# Another producer with the same transactional id has begun.
FENCED = {
    KafkaError._FENCED,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
}
# Errors that a consumer gets over by itself.
TRANSIENT = {
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._RESOLVE,
    KafkaError._WAIT_COORD,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
    # A broker that has taken over, and does not know yet how far the others have come.
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.KAFKA_STORAGE_ERROR,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.NOT_CONTROLLER,
}
# A broker that has begun, takes over a group or had none yet makes its coordinator first.
NO_COORDINATOR_YET = {
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
}
# A broker that is behind the others does not know a partition that was added, or came to it.
BEHIND = {KafkaError._UNKNOWN_PARTITION, KafkaError.UNKNOWN_TOPIC_OR_PART}
# What a question to Kafka gets over, if it is asked again.
PASSING = TRANSIENT | NO_COORDINATOR_YET
# What librdkafka, or the lease, does again by itself.
_RETRIED = {"METADATAUPDATE", "ADDOFFSETS", "TXNOFFSETS", "ENDTXN", "TXNERR", "COORD"}


class Calm(logging.Filter):
    """Shows a lost connection once, as a warning, and no retry at all; lets all else pass.

    librdkafka logs each attempt of each of its threads as an error. It goes on by itself, and
    what it gives up comes as an error of the client.
    """

    _last_s = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a line is shown; one of a lost connection becomes a warning."""
        facility, text = str(record.args[0]), record.getMessage()  # type: ignore[index]
        if facility in _RETRIED or "retrying" in text or "enable.gapless.guarantee" in text:
            return False
        if facility in ("FAIL", "ERROR", "REQTMOUT"):
            calm = record.created - self._last_s > CALM_S
            self._last_s = record.created
            record.levelno, record.levelname = logging.WARNING, "WARNING"
            return calm
        return True


LOG = logging.getLogger("kafka")
LOG.addFilter(Calm())


def consumer_options(
    settings: Settings, required: Options, defaults: Options = NONE, *, tuned: bool = True
) -> dict[str, Any]:
    """Return the options of a consumer, each from the first of these that has it.

    1. The address of the broker, and required: what our guarantees rest on.
    2. The user's `consumer` table, which is for reading a stream. A client that is not tuned,
       because it reads a few records or only keeps offsets, leaves it out.
    3. The user's `kafka` table, which is for every client.
    4. defaults: our choice where the user has made none.
    """
    table = settings.consumer if tuned else NONE
    return _options(settings, table, required, {**CHECKED, **defaults})


def producer_options(
    settings: Settings, required: Options = NONE, defaults: Options = NONE, *, tuned: bool = True
) -> dict[str, Any]:
    """Return the options of a producer, as `consumer_options` with the user's `producer` table."""
    return _options(settings, settings.producer if tuned else NONE, required, defaults)


def _options(
    settings: Settings, table: Options, required: Options, defaults: Options
) -> dict[str, Any]:
    address = {"bootstrap.servers": settings.bootstrap_servers}
    return {**defaults, **settings.kafka, **table, **required, **address}


# How source and sink get their clients; the tests have clients of another kind.
MakeConsumer = Callable[[dict[str, Any]], Consumer]
MakeProducer = Callable[[dict[str, Any]], Producer]


def make_consumer(options: dict[str, Any]) -> Consumer:
    """Return a consumer; raises ConfigError for an option that librdkafka refuses."""
    return _make_client(Consumer, options, "consumer", "kafka")


def make_producer(options: dict[str, Any]) -> Producer:
    """Return a producer; raises ConfigError for an option that librdkafka refuses."""
    return _make_client(Producer, options, "producer", "kafka")


def make_admin(settings: Settings) -> AdminClient:
    """Return an admin client, for which there is only the user's `kafka` table."""
    return _make_client(AdminClient, _options(settings, NONE, NONE, NONE), "kafka")


def _make_client(
    kind: Callable[[dict[str, Any]], Client], options: dict[str, Any], *tables: str
) -> Client:
    options = {"logger": LOG} | options
    try:
        return kind(options)
    except REFUSALS as error:
        raise refused(kind, error, options, tables) from None
