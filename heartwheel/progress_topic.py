"""A topic in which the processes of a run tell how they are doing, for whoever listens to many.

It is for people and tools that look on, so it holds up nothing: a record that Kafka does not take
in time is dropped, and counted.
"""

from collections.abc import Mapping

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message

from dataflows.kafka.client import make_producer, producer_options
from dataflows.metrics import PROGRESS_DROPPED
from dataflows.settings import Settings

# A record that is older says nothing any more.
TIMEOUTS = {"message.timeout.ms": "30000", "queue.buffering.max.messages": "100"}


class ProgressTopic:
    """Sends what a process has to tell, by its number, without waiting for Kafka."""

    def __init__(self, settings: Settings, process: int) -> None:
        """Send to the topic of the settings; raises ConfigError for options that are refused."""
        self._topic, self._process = settings.progress_topic, process
        self._named = {"process": process, "output_topic": settings.output_topic}
        self._producer = make_producer(producer_options(settings, TIMEOUTS, tuned=False))

    def send(self, time_ms: int, values: Mapping[str, object]) -> None:
        """Send a record of a moment."""
        record = {"time_ms": time_ms, **self._named, **values}
        try:
            self._producer.produce(
                self._topic,
                msgspec.json.encode(record),
                str(self._process),
                on_delivery=self._note,
                timestamp=time_ms,
            )
        except (BufferError, KafkaException):  # full, or the topic is not there
            PROGRESS_DROPPED.inc()
        self._producer.poll(0)

    @staticmethod
    def _note(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            PROGRESS_DROPPED.inc()
