"""What Kafka says of the input topics: their ids, how many partitions they have, and where.

A name says little: a topic that is deleted and made again has the same one, and so has that of
another cluster. An offset is of one topic of one cluster, so it is stored with the ids of both,
and compared with those that are there now.
"""

from collections.abc import Callable
from concurrent.futures import TimeoutError as LateError

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from msgspec import Struct

from dataflows.formats import Position
from dataflows.kafka.metadata import METADATA_TIMEOUT_S
from dataflows.kafka.patience import ASK_S, patiently
from dataflows.kafka.source_errors import source_error
from dataflows.settings import Settings
from session_logic.errors import ConfigError, HeartwheelError

MakeAdmin = Callable[[Settings], AdminClient]


class OtherTopicError(ConfigError):
    """An input topic is not the one that was read: decide what to do with what is in it."""


class InputTopics(Struct, frozen=True):
    """The input topics that there are, as (id, partitions), and the id of their cluster.

    An id that Kafka does not tell is "". Of the topics with a partition for each lane that there
    are, lane_topics has how many partitions. Ports are those of the brokers that are there.
    """

    cluster_id: str
    topics: dict[str, tuple[str, int]]
    lane_topics: dict[str, int] = {}
    ports: frozenset[int] = frozenset()

    def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has; 0 where there is none."""
        return self.topics.get(topic, ("", 0))[1]

    def position(self, topic: str, offset: int) -> Position:
        """Return an offset of a topic with the ids that it is of."""
        return Position(offset, self.topics[topic][0], self.cluster_id)


def describe_inputs(admin: AdminClient, settings: Settings) -> InputTopics:
    """Return what Kafka says of the input topics; a missing one is left out, and none is made.

    Raises KafkaException if it does not answer or refuses.
    """
    cluster = admin.list_topics(timeout=METADATA_TIMEOUT_S)
    lane_topics = {
        name: len(found.partitions)
        for name, found in cluster.topics.items()
        if name in settings.lane_topics and found.error is None
    }
    ports = frozenset(broker.port for broker in cluster.brokers.values())
    if cluster.controller_id not in cluster.brokers:
        # The broker that is built into librdkafka: it has no controller, and so tells no ids.
        counts = {
            name: len(found.partitions)
            for name, found in cluster.topics.items()
            if name in settings.all_input_topics and found.error is None
        }
        known = {name: ("", count) for name, count in counts.items() if count}
        return InputTopics(cluster.cluster_id or "", known, lane_topics, ports)
    wanted = admin.describe_topics(
        TopicCollection(settings.all_input_topics), request_timeout=ASK_S
    )
    topics = {}
    for name, answer in wanted.items():
        try:
            found = answer.result(METADATA_TIMEOUT_S)
        except LateError:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from None
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
        else:
            topic_id = str(found.topic_id)  # only zeros, which are As, before Kafka 2.8
            topics[name] = "" if topic_id.strip("A=") == "" else topic_id, len(found.partitions)
    return InputTopics(cluster.cluster_id or "", topics, lane_topics, ports)


def find_inputs(admin: AdminClient, settings: Settings) -> InputTopics:
    """Return what `describe_inputs` does, once Kafka answers; raises SourceError if it does not."""
    try:
        return patiently(lambda: describe_inputs(admin, settings), "what its input topics are")
    except KafkaException as error:
        raise source_error(None, None, error.args[0]) from None


def other_topic(topic: str, stored: Position, now: Position) -> HeartwheelError | None:
    """Return the error to raise where an offset is of another topic, or of another cluster.

    None where it is of this one, and where that is not known.
    """
    accept = (
        f"`heartwheel store skip --anew {topic}` reads this one from its beginning, and keeps the "
        "sessions"
    )
    if stored.offset < 0:
        return None  # nothing of it has been read
    if stored.cluster_id and now.cluster_id and stored.cluster_id != now.cluster_id:
        return OtherTopicError(
            f"input {topic}: this store has read Kafka cluster {stored.cluster_id}, and "
            f"HEARTWHEEL_BOOTSTRAP_SERVERS leads to {now.cluster_id}: set it back; or {accept}"
        )
    if stored.topic_id and now.topic_id and stored.topic_id != now.topic_id:
        return OtherTopicError(
            f"input {topic} was made anew: this store has read the topic with id "
            f"{stored.topic_id}, and it has id {now.topic_id} now; {accept}"
        )
    return None
