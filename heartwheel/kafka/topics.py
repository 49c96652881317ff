"""The topics that the settings name: what they should be, what they are, how they are made."""

from collections.abc import Iterator
from typing import Literal, cast

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin._config import ConfigEntry, ConfigResource
from confluent_kafka.admin._metadata import TopicMetadata
from confluent_kafka.cimpl import NewTopic
from msgspec import Struct

from dataflows.kafka.client import make_admin
from dataflows.kafka.metadata import METADATA_TIMEOUT_S, describe
from dataflows.settings import Settings
from session_logic.errors import HeartwheelError

Stamp = Literal["append", "create"]
STAMPS: dict[Stamp, str] = {"append": "LogAppendTime", "create": "CreateTime"}
# Of a dead letter beside its key and value: what the headers and the record itself may take.
LETTER_BYTES = 4_096
# More replicas cost more than they protect; one may be lost without a stop of the run.
MOST_REPLICAS = 3
_CONFIG = (
    "retention.ms",
    "message.timestamp.type",
    "cleanup.policy",
    "min.insync.replicas",
    "max.message.bytes",
)


class TopicError(HeartwheelError):
    """Kafka does not let a topic be looked at or made: see the message."""


class Wanted(Struct, frozen=True):
    """What a topic should be; partitions of None and stamp of None: as they are."""

    name: str
    variable: str
    partitions: int | None
    retention_ms: int
    stamp: Stamp | None
    replicas: int
    min_isr: int
    record_bytes: int


class Found(Struct, frozen=True):
    """What a topic is; in_sync is the least number of replicas in sync of any partition."""

    name: str
    partitions: int
    replicas: int
    in_sync: int
    leaderless: tuple[int, ...]
    retention_ms: int
    stamp: Stamp
    cleanup: str
    min_isr: int
    record_bytes: int


class Goal(Struct, frozen=True):
    """What an operator asks for; replicas and min_isr of None: what suits the cluster."""

    retention_ms: int
    stamp: Stamp | None
    input_partitions: int | None = None
    replicas: int | None = None
    min_isr: int | None = None


class Topics:
    """The topics of the settings on their Kafka."""

    def __init__(self, settings: Settings) -> None:
        """Connect; raises ConfigError if no broker answers, or none lets Heartwheel in."""
        self._settings = settings
        self._admin = make_admin(settings)
        self._brokers = len(describe(self._admin, settings).brokers)

    def wanted(self, goal: Goal) -> list[Wanted]:
        """Return what the topics should be, for this goal and as many brokers as there are."""
        replicas = goal.replicas or min(MOST_REPLICAS, self._brokers)
        min_isr = goal.min_isr or max(1, replicas - 1)
        settings = self._settings
        kinds: list[tuple[str, str, int | None, Stamp | None, int]] = [
            *(
                (topic, "INPUT_TOPICS", goal.input_partitions, goal.stamp, 0)
                for topic in settings.input_topics
            ),
            (settings.output_topic, "OUTPUT_TOPIC", settings.lanes, None, 0),
            (
                settings.dead_letter_topic,
                "DEAD_LETTER_TOPIC",
                None,
                None,
                settings.max_record_bytes + LETTER_BYTES,
            ),
        ]
        return [
            Wanted(
                name, f"HEARTWHEEL_{of}", parts, goal.retention_ms, stamp, replicas, min_isr, size
            )
            for name, of, parts, stamp, size in kinds
        ]

    def found(self, name: str) -> Found | None:
        """Return what a topic is, None if there is none; raises TopicError if it is not told."""
        topic = describe(self._admin, self._settings).topics.get(name)
        if topic is None:
            return None
        if topic.error is not None:
            raise _refused(name, topic.error)
        resource = ConfigResource(ConfigResource.Type.TOPIC, name)
        try:
            config = self._admin.describe_configs([resource])[resource].result(METADATA_TIMEOUT_S)
        except KafkaException as error:
            raise _refused(name, error.args[0]) from None
        return _found(topic, config)

    def create(self, wanted: Wanted, *, dry_run: bool) -> bool:
        """Create a topic, or let Kafka only check that it could; False if it exists meanwhile."""
        config = {
            "retention.ms": str(wanted.retention_ms),
            "message.timestamp.type": STAMPS[wanted.stamp or "append"],
            "min.insync.replicas": str(wanted.min_isr),
            "cleanup.policy": "delete",
        }
        new = NewTopic(wanted.name, wanted.partitions or 1, wanted.replicas, config=config)
        try:
            self._admin.create_topics([new], validate_only=dry_run)[wanted.name].result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return False
            raise _refused(wanted.name, error.args[0]) from None
        return True


def _found(topic: TopicMetadata, config: dict[str, ConfigEntry]) -> Found:
    values = {name: cast("str", config[name].value) for name in _CONFIG}
    parts = topic.partitions.values()
    return Found(
        cast("str", topic.topic),
        len(parts),
        min(len(part.replicas) for part in parts),
        min(len(part.isrs) for part in parts),
        tuple(part.id for part in parts if part.leader < 0),
        int(values["retention.ms"]),
        "append" if values["message.timestamp.type"] == "LogAppendTime" else "create",
        values["cleanup.policy"],
        int(values["min.insync.replicas"]),
        int(values["max.message.bytes"]),
    )


def faults(wanted: Wanted, found: Found | None) -> Iterator[str]:
    """Yield a line for each thing that is not as it should be, with what to do."""
    if found is None:
        yield (
            "does not exist, or this user may not see it; make it with `heartwheel topics create`, "
            f"or correct {wanted.variable}"
        )
        return
    yield from _shape_faults(wanted, found)
    yield from _replica_faults(wanted, found)


def _shape_faults(wanted: Wanted, found: Found) -> Iterator[str]:
    if wanted.partitions not in (None, found.partitions):
        yield f"has {found.partitions} partitions, not {wanted.partitions}; " + (
            "correct HEARTWHEEL_LANES, or see `heartwheel store migrate`"
            if wanted.variable == "HEARTWHEEL_OUTPUT_TOPIC"
            else "more would move devices between partitions: make a new topic"
        )
    if found.cleanup != "delete":
        yield f"has cleanup.policy={found.cleanup}, which removes records; set it to delete"
    if wanted.stamp not in (None, found.stamp):
        yield (
            f"has message.timestamp.type={STAMPS[found.stamp]}; set the other, or say "
            f"--timestamps {found.stamp}"
        )
    kept_ms, least_ms = found.retention_ms, wanted.retention_ms
    if kept_ms >= 0 and (least_ms < 0 or kept_ms < least_ms):
        yield f"has retention.ms={kept_ms}, less than {least_ms}; set it, or say --retention"
    if found.record_bytes < wanted.record_bytes:
        yield (
            f"has max.message.bytes={found.record_bytes}, and a dead letter may have "
            f"{wanted.record_bytes}; set it, or a lower HEARTWHEEL_MAX_RECORD_BYTES"
        )


def _replica_faults(wanted: Wanted, found: Found) -> Iterator[str]:
    least = f"min.insync.replicas={found.min_isr}"
    if found.replicas < wanted.replicas:
        yield f"has {found.replicas} replicas, not {wanted.replicas}; add or say --replication"
    if found.leaderless:
        parts = ", ".join(map(str, found.leaderless))
        yield f"has no leader for partition {parts}; start the brokers that have it"
    elif found.in_sync < found.min_isr:
        yield (
            f"cannot be written to: {found.in_sync} replicas in sync, {least}; start the brokers "
            "that are missing, or set it lower"
        )
    if found.min_isr < wanted.min_isr:
        yield (
            f"has {least}, not {wanted.min_isr}: what is acknowledged may be on too few brokers; "
            "set it, or say --min-isr"
        )


def _refused(name: str, error: KafkaError) -> TopicError:
    return TopicError(f"topic {name}: {error.str()} ({error.name()})")
