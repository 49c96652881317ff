"""What source and sink both ask of a Kafka cluster, and what its clients may log."""

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin._metadata import ClusterMetadata

from dataflows.settings import Settings
from session_logic.errors import ConfigError

METADATA_TIMEOUT_S = 15
# Kafka is asked again and again with more patience, so that a refusal is told soon.
PATIENCE_S = (1, 2, 4, 8)
# A connection counts as lost anew when this has passed without a line about one.
CALM_S = 30
Client = TypeVar("Client")
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
}


class _Client(Protocol):
    def list_topics(self, topic: str | None, timeout: float) -> ClusterMetadata: ...

    def poll(self, timeout: float) -> object: ...


# What librdkafka, or the lease, does again by itself.
_RETRIED = {"METADATAUPDATE", "ADDOFFSETS", "TXNOFFSETS", "ENDTXN", "TXNERR", "COORD"}


class _Calm(logging.Filter):
    """Shows a lost connection once, as a warning, and no retry at all; lets all else pass.

    librdkafka logs each attempt of each of its threads as an error. It goes on by itself, and
    what it gives up comes as an error of the client.
    """

    _last_s = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
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
LOG.addFilter(_Calm())


def make_client(kind: Callable[[dict[str, Any]], Client], options: dict[str, Any]) -> Client:
    """Return a consumer or producer; raises ConfigError for an option that Kafka refuses."""
    try:
        return kind(options | {"logger": LOG})
    except KafkaException as error:
        text = error.args[0].str()
        for option, value in options.items():
            if option.endswith(".location"):  # else the file that cannot be read has no name
                text = text.replace(f"{option} failed", f"{option} {value} failed")
        msg = f"a Kafka option is wrong: {text}; see the settings table in the README"
        raise ConfigError(msg) from None


# How source and sink get their clients; the tests have clients of another kind.
MakeConsumer = Callable[[dict[str, Any]], Consumer]
MakeProducer = Callable[[dict[str, Any]], Producer]


def make_consumer(options: dict[str, Any]) -> Consumer:
    """Return a consumer; raises ConfigError for an option that Kafka refuses."""
    return make_client(Consumer, options)


def make_producer(options: dict[str, Any]) -> Producer:
    """Return a producer; raises ConfigError for an option that Kafka refuses."""
    return make_client(Producer, options)


class _Listener(logging.Filter):
    """Keeps what the clients log while it is entered, and lets it go on if all ends well.

    Only in its log does librdkafka say why it cannot connect.
    """

    def __enter__(self) -> Self:
        self._records: list[logging.LogRecord] = []
        LOG.filters.insert(0, self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        LOG.removeFilter(self)
        if error is None:
            for record in self._records:
                LOG.handle(record)

    def filter(self, record: logging.LogRecord) -> bool:
        self._records.append(record)
        return False

    def cause(self) -> str:
        """Return why the last connection has failed, if that is known.

        It stands in "FAIL [client] [thrd:broker]: broker: the cause (after 3ms in state ...)".
        """
        texts = [r.getMessage() for r in self._records if str(r.args).startswith("('FAIL'")]
        return (
            texts[-1].rpartition("]: ")[2].partition(": ")[2].partition(" (after ")[0]
            if texts
            else ""
        )


def describe(client: _Client, settings: Settings, topic: str | None = None) -> ClusterMetadata:
    """Return what Kafka says of a topic, or all; raises ConfigError, with the cause, if nothing.

    A producer that asks for a topic makes it, where the broker lets it; one that asks for all
    does not.
    """
    with _Listener() as listener:
        for patience_s in PATIENCE_S:
            try:
                return client.list_topics(topic, timeout=patience_s)
            except KafkaException as error:
                client.poll(0)  # brings out what the client has logged
                cause = listener.cause() or error.args[0].str()
                if "SASL" in cause or "SSL" in cause:
                    break
        raise ConfigError(_explain(settings, cause))


def _explain(settings: Settings, cause: str) -> str:
    where = f"Kafka at {settings.bootstrap_servers}"
    if "SASL" in cause:
        return (
            f"{where} does not let Heartwheel in ({cause}); check HEARTWHEEL_KAFKA_SASL_USERNAME, "
            "HEARTWHEEL_KAFKA_SASL_PASSWORD and HEARTWHEEL_KAFKA_SASL_MECHANISMS"
        )
    if "SSL" in cause:
        return (
            f"no TLS connection to {where} ({cause}); check HEARTWHEEL_KAFKA_SSL_CA_LOCATION, "
            "HEARTWHEEL_KAFKA_SECURITY_PROTOCOL, and the certificate if the broker asks for one"
        )
    return (
        f"no answer from {where} ({cause}); check HEARTWHEEL_BOOTSTRAP_SERVERS and "
        "HEARTWHEEL_KAFKA_SECURITY_PROTOCOL, and that the broker runs"
    )


def partition_counts(client: _Client, settings: Settings) -> dict[str, int]:
    """Return how many partitions each topic of the settings has; a missing topic is left out.

    Raises ConfigError if no broker answers.
    """
    topics = [*settings.input_topics, settings.output_topic, settings.dead_letter_topic]
    counts: dict[str, int] = {}
    for topic in topics:
        metadata = describe(client, settings, topic).topics[topic]
        if metadata.error is None and metadata.partitions:
            counts[topic] = len(metadata.partitions)
    return counts
