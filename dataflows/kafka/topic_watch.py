"""What becomes of the topics while a run goes on: deleted, made anew, or with more partitions."""

from collections import Counter
from functools import cache, partial
from threading import Event

from confluent_kafka import KafkaException
from msgspec.structs import replace

from dataflows.kafka.consumer import SharedConsumer
from dataflows.kafka.input_topics import (
    InputTopics,
    MakeAdmin,
    describe_inputs,
    find_inputs,
    other_topic,
)
from dataflows.kafka.lane_topics import warn_of_more
from dataflows.kafka.metadata import partition_counts
from dataflows.kafka.topic_config import warn_of_compaction
from dataflows.logs import log
from dataflows.metrics import UNREAD_PARTITIONS
from dataflows.settings import Settings
from session_logic.errors import ConfigError

# So many partitions of a topic can be added while a run goes on, and are read at once.
SPARE_PARTITIONS = 16
LOOK_S = 10.0
# A topic that is missing in so many looks in a row is gone.
GONE_LOOKS = 2


class TopicWatch:
    """Knows the input topics as they were at the start, and as they are.

    It is asked from worker threads, and looks from a thread of its own.
    """

    def __init__(self, settings: Settings, consumer: SharedConsumer, make_admin: MakeAdmin) -> None:
        """Know of no topic yet."""
        # An input partition without a lane cannot be read.
        self.spare_partitions = 0 if settings.route == "partition" else SPARE_PARTITIONS
        self._settings = settings
        self._consumer = consumer
        consumer.look = self.look
        self._admin = cache(partial(make_admin, settings))
        self.stored: frozenset[str] = frozenset()  # topics that the store knows
        self.begun = InputTopics("", {})
        self.now = self.begun
        self._missed: Counter[str] = Counter()  # topics that are missing, for how many looks

    def begin(self) -> None:
        """Take in which topics there are.

        Raises ConfigError if no broker answers, or a topic is missing.
        """
        settings = self._settings
        counts = partition_counts(self._consumer.open(), settings)
        missing = [topic for topic in settings.all_input_topics if not counts.get(topic)]
        if missing:
            msg = (
                f"input topic {', '.join(missing)} does not exist on "
                f"{settings.bootstrap_servers}, or this user may not see it; run "
                '"heartwheel topics create", or correct HEARTWHEEL_INPUT_TOPICS'
            )
            raise ConfigError(msg)
        if settings.route == "partition":
            self._check_partitions({topic: counts[topic] for topic in settings.all_input_topics})
        self.begun = self.now = self._with_lanes(find_inputs(self._admin(), settings))

    def _with_lanes(self, found: InputTopics) -> InputTopics:
        """Return the topics with what of them can be read: by route partition what has a lane."""
        settings = self._settings
        if settings.route == "hash":
            return found
        most = settings.lanes
        topics = {name: (its, min(count, most)) for name, (its, count) in found.topics.items()}
        return replace(found, topics=topics)

    def _check_partitions(self, counts: dict[str, int]) -> None:
        """Raise ConfigError unless each input partition has a lane of the same number.

        Where partitions were added to a topic that was read, a start goes on as a run does: its
        sessions are in the lanes that there are, until the store is made one with more.
        """
        lanes = self._settings.lanes
        for topic, count in counts.items():
            if count < lanes or (count > lanes and topic not in self.stored):
                msg = (
                    f"input topic {topic} has {count} partitions and HEARTWHEEL_LANES is {lanes}: "
                    "by HEARTWHEEL_ROUTE=partition all input topics must have as many as there are "
                    "lanes; give each as many, or see docs/shards.md if partitions were added"
                )
                raise ConfigError(msg)

    def is_there(self, topic: str, number: int) -> bool:
        """Say whether there is such a partition."""
        return number < self.now.partitions(topic)

    def may_come(self, topic: str, number: int) -> bool:
        """Say whether a partition is there, or can be read as soon as it is."""
        begun = self.begun.partitions(topic)
        return begun > 0 and number < begun + self.spare_partitions

    def watch(self, stop: Event) -> None:
        """Say what is wrong with the output topics, then look again and again, until the stop."""
        warn_of_compaction(self._admin(), self._settings)
        while not stop.wait(LOOK_S):
            self.look()

    def look(self) -> None:
        """Take in what is there by now; a topic that was made anew ends the run."""
        try:
            found = describe_inputs(self._admin(), self._settings)
            topics = {**self.now.topics, **found.topics}
            lane_topics = {**self.now.lane_topics, **found.lane_topics}
            ports = self.now.ports | found.ports
            now = replace(found, topics=topics, lane_topics=lane_topics, ports=ports)
            if now != self.now:
                self._consumer.open().list_topics(
                    None, timeout=LOOK_S
                )  # so that it knows them as well
        except KafkaException:
            return  # whoever reads says so
        self._note_gone(found)
        self._note_lane_topics(found.lane_topics)
        for topic in found.topics:
            error = other_topic(topic, self.begun.position(topic, 0), found.position(topic, 0))
            if error is not None:
                self._consumer.failure = error
                return
            self._note_partitions(topic, found.partitions(topic))
        self.now = now

    def _note_gone(self, found: InputTopics) -> None:
        """Say once that an input topic is not there any more; for a moment Kafka may not know."""
        missing = self.now.topics.keys() - found.topics.keys()
        self._missed = Counter({topic: self._missed[topic] + 1 for topic in sorted(missing)})
        for topic, looks in self._missed.items():
            if looks == GONE_LOOKS:
                log.warning(
                    "an input topic is not there any more, and the run goes on without it; no "
                    "start does, until it is there again or the settings leave it out",
                    topic=topic,
                )

    def _note_lane_topics(self, counts: dict[str, int]) -> None:
        """Say once of each that it was given more partitions than there are lanes."""
        for topic, partitions in counts.items():
            if partitions > max(self._settings.lanes, self.now.lane_topics.get(topic, 0)):
                warn_of_more(self._settings, topic, partitions, added=True)

    def _note_partitions(self, topic: str, count: int) -> None:
        """Say once that there are more, and whether they are read."""
        readable = self.begun.partitions(topic) + self.spare_partitions
        UNREAD_PARTITIONS.labels(topic).set(max(0, count - readable))
        if count <= self.now.partitions(topic):
            return
        if not self.spare_partitions:
            log.warning(
                "partitions were added to an input topic, and there is no lane for them, so they "
                "are not read; docs/shards.md says how to go on with more partitions",
                topic=topic,
                partitions=count,
                read=readable,
            )
        elif count > readable:
            log.warning(
                "more partitions were added to an input topic than a run takes in; a start reads "
                "the others, too, from their beginning",
                topic=topic,
                partitions=count,
                read=readable,
            )
        else:
            log.warning(
                "partitions were added to an input topic; they are read from their beginning",
                topic=topic,
                partitions=count,
                before=self.now.partitions(topic),
            )
