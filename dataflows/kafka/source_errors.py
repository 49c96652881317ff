"""What Kafka may refuse the source, and what to do about it."""

from confluent_kafka import KafkaError

from dataflows.kafka.client import TRANSIENT
from session_logic.errors import HeartwheelError

# What comes of a batch that a broker, or its client, cannot read.
DAMAGED = {
    KafkaError.UNKNOWN,
    KafkaError.INVALID_MSG,
    KafkaError._BAD_MSG,
    KafkaError._BAD_COMPRESSION,
    KafkaError._NOT_IMPLEMENTED,  # noqa: SLF001  # a version of batches that there is not
}


class SourceError(HeartwheelError):
    """Kafka cannot give what the source needs: correct what the message names, start again."""


def source_error(topic: str | None, partition: int | None, error: KafkaError) -> SourceError:
    """Return the error to raise for one of Kafka's, with what to do."""
    where = f"input {topic}/{partition}" if topic else "Kafka"
    if error.code() == KafkaError._AUTO_OFFSET_RESET:
        return SourceError(
            f"{where}: the stored offset is not in the topic any more ({error.str()}): records, or "
            "markers of transactions, have expired unread, or the topic was made anew; `heartwheel "
            "store skip` goes on without them and keeps the sessions"
        )
    hint = ""
    if "AUTHORIZATION" in error.name():
        hint = "; docs/security.md lists the rights that a run needs"
    elif error.code() in TRANSIENT:
        hint = "; start again once its brokers answer"
    elif error.code() == KafkaError._BAD_COMPRESSION:
        hint = (
            "; if it is larger than receive.message.max.bytes when unpacked, one start with "
            "HEARTWHEEL_CONSUMER_RECEIVE_MESSAGE_MAX_BYTES=1000000000 gets past it"
        )
    if topic:
        hint += damage_hint(topic, partition, error)
    return SourceError(f"{where}: {error.str()} ({error.name()}){hint}")


def damage_hint(topic: str, partition: int | None, error: KafkaError) -> str:
    """Return what to do where the log of a partition may be damaged; nothing for other errors."""
    if error.code() not in DAMAGED:
        return ""
    return (
        "; if the broker's log is damaged there, let another replica lead; or `heartwheel store "
        f"skip --to {topic}/{partition}=OFFSET` goes on behind it and keeps the sessions"
    )
