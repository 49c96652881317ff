"""Kafka as a Bytewax source: every partition of the input topics."""

from collections.abc import Callable

from bytewax.inputs import FixedPartitionedSource
from confluent_kafka import KafkaException

from dataflows.kafka.client import MakeConsumer, make_consumer, partition_counts
from dataflows.kafka.consumer import SharedConsumer
from dataflows.kafka.partition import Partition, source_error
from dataflows.messages import PartitionBatch
from dataflows.run_state import RunState
from dataflows.settings import Settings
from session_logic.errors import ConfigError


class KafkaSource(FixedPartitionedSource[PartitionBatch, int]):
    """Reads every partition of the input topics."""

    def __init__(
        self,
        settings: Settings,
        run: RunState,
        on_tick: Callable[[], None] = lambda: None,
        make_consumer: MakeConsumer = make_consumer,
    ) -> None:
        """Read what the settings name, until the run is stopped.

        on_tick is called at every poll.
        """
        self._settings = settings
        self._hub = SharedConsumer(settings, run, on_tick, make_consumer)

    def list_parts(self) -> list[str]:
        """Return topic/partition of all input; raises ConfigError if a topic is missing."""
        counts = partition_counts(self._hub.open(), self._settings)
        missing = [topic for topic in self._settings.input_topics if not counts.get(topic)]
        if missing:
            msg = (
                f"input topic {', '.join(missing)} does not exist on "
                f"{self._settings.bootstrap_servers}; create it or correct HEARTWHEEL_INPUT_TOPICS"
            )
            raise ConfigError(msg)
        parts = [
            f"{topic}/{partition}"
            for topic in self._settings.input_topics
            for partition in range(counts[topic])
        ]
        self._hub.parts = len(parts)
        return parts

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> Partition:
        """Build a partition, from its stored offset or from where the settings say."""
        topic, _, partition = for_part.rpartition("/")
        try:
            return self._hub.add(topic, int(partition), resume_state)
        except KafkaException as error:
            raise source_error(topic, int(partition), error.args[0]) from None
