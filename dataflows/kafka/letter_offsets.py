"""From where on dead letters are to be read, for the processes that do not have the store.

What a run has rejected stays rejected, so each process reads the dead letters since the last
snapshot. Only the first one has the store, which says where that is. It commits these offsets to
the group of the output topic before the others can begin. Without them, a process would read the
whole topic.
"""

from confluent_kafka import Consumer, KafkaException, TopicPartition

from dataflows.kafka.client import MakeConsumer, consumer_options, make_consumer
from dataflows.kafka.metadata import partition_counts
from dataflows.kafka.patience import commit, committed
from dataflows.kafka.reader import TIMEOUT_S
from dataflows.logs import log
from dataflows.settings import Settings


class LetterOffsets:
    """The offsets of the dead-letter topic, from the store or from Kafka."""

    def __init__(
        self,
        settings: Settings,
        stored: dict[int, int] | None,
        make_consumer: MakeConsumer = make_consumer,
    ) -> None:
        """Take what the store says, None if it does not say it or is not here."""
        self._settings = settings
        self._stored = stored
        self._make_consumer = make_consumer
        self.waiting = False  # for Kafka

    def _open(self) -> tuple[Consumer, list[TopicPartition]]:
        """Return a client, and the partitions of the topic."""
        topic = self._settings.dead_letter_topic
        required = {
            "group.id": f"heartwheel-{self._settings.output_topic}",
            "enable.auto.commit": "false",
            "isolation.level": "read_uncommitted",
        }
        consumer = self._make_consumer(consumer_options(self._settings, required, tuned=False))
        count = partition_counts(consumer, self._settings).get(topic, 0)
        return consumer, [TopicPartition(topic, number, 0) for number in range(count)]

    def share(self) -> None:
        """Commit the offsets of the store for the others; for one that has none, all is read."""
        consumer, parts = self._open()
        for part in parts:
            part.offset = max(0, (self._stored or {}).get(part.partition, 0))
        try:
            if parts:
                commit(consumer, parts, TIMEOUT_S)
        except KafkaException as error:
            log.warning(
                "the offsets of the dead letters cannot be committed: the other processes read the "
                "whole topic, or what an earlier start has committed",
                error=error.args[0].str(),
            )
        finally:
            consumer.close()

    def find(self) -> dict[int, int] | None:
        """Return the offsets, None if neither the store nor Kafka has them."""
        if self._stored is not None:
            return self._stored
        self.waiting = True
        try:
            return self._committed()
        finally:
            self.waiting = False

    def _committed(self) -> dict[int, int] | None:
        consumer, parts = self._open()
        try:
            found = committed(consumer, parts, TIMEOUT_S)
        except KafkaException:
            return None
        finally:
            consumer.close()
        return {part.partition: part.offset for part in found if part.offset >= 0} or None
