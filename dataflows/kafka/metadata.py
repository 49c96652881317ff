"""What a Kafka cluster says of itself and its topics; why it does not answer, if it does not."""

import logging
from collections.abc import Iterable
from types import TracebackType
from typing import Protocol, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin._metadata import ClusterMetadata

from dataflows.kafka.client import LOG
from dataflows.logs import announce
from dataflows.settings import Settings
from session_logic.errors import ConfigError

METADATA_TIMEOUT_S = 15
# Kafka is asked again with more patience each time, so that a refusal is reported soon.
PATIENCE_S = (1, 2, 4, 8)


class _Client(Protocol):
    def list_topics(self, topic: str | None, timeout: float) -> ClusterMetadata: ...

    def poll(self, timeout: float) -> object: ...


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
    """Return what Kafka says of a topic, or of all; says so while it waits for an answer.

    Raises ConfigError, with the cause, if there is none within 15 s, or at once if Kafka refuses
    the user or the certificate. A producer that asks for one topic creates it, where the broker
    allows that; one that asks for all does not.
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
            if patience_s == PATIENCE_S[0]:
                announce(f"waiting for Kafka at {settings.bootstrap_servers}: {cause}")
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


def partition_counts(
    client: _Client, settings: Settings, more: Iterable[str] = ()
) -> dict[str, int]:
    """Return how many partitions each topic has, of the settings and of more.

    A missing topic is left out, and none is created. Raises ConfigError if no broker answers.
    """
    found = describe(client, settings).topics
    topics = [
        *settings.all_input_topics,
        *settings.lane_topics,
        settings.dead_letter_topic,
        *more,
    ]
    return {
        topic: len(found[topic].partitions)
        for topic in topics
        if topic in found and found[topic].error is None and found[topic].partitions
    }
