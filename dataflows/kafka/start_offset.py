"""Where a partition is read from, and how far it reached when that began."""

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException

from dataflows.kafka.patience import bounds, offset_at
from dataflows.kafka.source_errors import source_error
from dataflows.start import start_ms


def start_offset(consumer: Consumer, topic: str, partition: int, start: str) -> int:
    """Return the offset at which a partition begins by a start of the settings.

    Raises SourceError if Kafka does not tell.
    """
    if start == "earliest":
        return OFFSET_BEGINNING
    end = end_offset(consumer, topic, partition)
    time_ms = start_ms(start)
    if time_ms is None:
        return end
    try:  # after the end, so that what comes in between is read
        found = offset_at(consumer, topic, partition, time_ms)
    except KafkaException as error:
        raise source_error(topic, partition, error.args[0]) from None
    return end if found is None else found


def end_offset(consumer: Consumer, topic: str, partition: int) -> int:
    """Return the offset after the last record of a partition.

    Raises SourceError if Kafka does not tell.
    """
    try:
        return bounds(consumer, topic, partition)[1]
    except KafkaException as error:
        raise source_error(topic, partition, error.args[0]) from None
