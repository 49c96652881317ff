"""The settings of a topic in Kafka, and those of which a run says that they break its promises."""

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigEntry, ConfigResource

from dataflows.kafka.patience import ASK_S
from dataflows.logs import log
from dataflows.settings import Settings


def ask_config(admin: AdminClient, topic: str, timeout_s: float) -> dict[str, ConfigEntry]:
    """Return the settings of a topic by name.

    Raises KafkaException if Kafka refuses, TimeoutError if it does not answer in time.
    """
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    # Longer than the wait, so that no answer is always the same error.
    answer = admin.describe_configs([resource], request_timeout=timeout_s + 1)[resource]
    config: dict[str, ConfigEntry] = answer.result(timeout_s)
    return config


def warn_of_compaction(admin: AdminClient, settings: Settings) -> None:
    """Say of each output topic that is compacted what may happen, where Kafka tells of it."""
    for topic in settings.lane_topics:
        if topic == settings.table_topic:
            continue
        try:
            policy = ask_config(admin, topic, ASK_S)["cleanup.policy"].value or ""
        except (KafkaException, TimeoutError, KeyError):
            continue  # the right to describe is none that a run needs
        if "compact" in policy:
            log.warning(
                "a topic of output is compacted: what was written since the last snapshot may be "
                "gone when a run that was killed is started again, and is sent a second time; set "
                "its cleanup.policy=delete",
                topic=topic,
                cleanup_policy=policy,
            )
