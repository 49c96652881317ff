"""What source and sink both ask of a Kafka cluster, and what its clients may log."""

import logging
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin._metadata import ClusterMetadata

from dataflows.settings import Settings
from session_logic.errors import ConfigError

METADATA_TIMEOUT_S = 15
# A connection counts as lost anew when this has passed without a line about one.
CALM_S = 30
Client = TypeVar("Client")
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
    def list_topics(self, topic: str, timeout: float) -> ClusterMetadata: ...

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
        msg = (
            f"a Kafka option is wrong: {error.args[0].str()}; see the settings table in the README"
        )
        raise ConfigError(msg) from None


def partition_counts(client: _Client, settings: Settings) -> dict[str, int]:
    """Return how many partitions each topic of the settings has; a missing topic is left out.

    Raises ConfigError if no broker answers.
    """
    topics = [*settings.input_topics, settings.output_topic, settings.dead_letter_topic]
    counts: dict[str, int] = {}
    for topic in topics:
        try:
            metadata = client.list_topics(topic, timeout=METADATA_TIMEOUT_S).topics[topic]
        except KafkaException as error:
            client.poll(0)  # brings out what the client has logged: the cause may be there
            msg = (
                f"no answer from Kafka at {settings.bootstrap_servers} ({error.args[0].str()}); "
                "check HEARTWHEEL_BOOTSTRAP_SERVERS and that the broker runs"
            )
            raise ConfigError(msg) from None
        if metadata.error is None and metadata.partitions:
            counts[topic] = len(metadata.partitions)
    return counts
