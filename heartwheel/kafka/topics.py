"""The topics that the settings name: what they should be, what they are, and their creation."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, cast

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigEntry
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.admin._metadata import TopicMetadata
from confluent_kafka.cimpl import NewPartitions, NewTopic
from msgspec import Struct
from msgspec.structs import replace

from dataflows.kafka.client import make_admin
from dataflows.kafka.letter_queue import MAX_HEADER_BYTES
from dataflows.kafka.metadata import METADATA_TIMEOUT_S, describe
from dataflows.kafka.topic_config import ask_config
from dataflows.logs import announced
from dataflows.settings import VARIABLES_APART, Settings
from session_logic.errors import HeartwheelError

# Which clock timestamps a record: the broker's on append, or the producer's on create.
Timestamps = Literal["append", "create"]
Cleanup = Literal["delete", "compact"]
TIMESTAMP_TYPES: dict[Timestamps, str] = {"append": "LogAppendTime", "create": "CreateTime"}
# What Heartwheel's own headers of a dead letter and its record may need beside all else.
DEAD_LETTER_OVERHEAD_BYTES = 4_096
# The options that bound a batch, and what each of them is by default. A broker counts what is left
# of a batch when it is compressed, which may be all.
BATCH_OPTIONS = ("batch.size", "message.max.bytes")
BATCH_BYTES = 1_000_000
# With three, one may be lost and the run goes on; more cost more than they protect.
MAX_REPLICAS = 3
# What names the topics with a partition for each lane.
OF_LANES = ("HEARTWHEEL_OUTPUT_TOPIC", *VARIABLES_APART.values())
_CONFIG = (
    "retention.ms",
    "message.timestamp.type",
    "cleanup.policy",
    "min.insync.replicas",
    "max.message.bytes",
)


class TopicError(HeartwheelError):
    """Kafka refuses to describe or create a topic: see the message."""


class TopicSpec(Struct, frozen=True, kw_only=True):
    """What a topic should be; None for partitions or timestamps: any."""

    name: str
    named_by: str  # a variable, or a table of the file
    partitions: int | None
    retention_ms: int
    timestamps: Timestamps | None
    replicas: int
    min_isr: int
    record_bytes: int
    batch_bytes: int = 0
    cleanup: Cleanup = "delete"


class TopicState(Struct, frozen=True, kw_only=True):
    """What a topic is; in_sync is the lowest number of replicas in sync of any partition.

    written says whether it was ever written to, where that matters: for one that lanes write to,
    with more partitions than there are lanes.
    """

    name: str
    partitions: int
    replicas: int
    in_sync: int
    leaderless: tuple[int, ...]
    retention_ms: int
    timestamps: Timestamps
    cleanup: str
    min_isr: int
    record_bytes: int
    written: bool = False


class TopicOptions(Struct, frozen=True, kw_only=True):
    """What an operator asks for; None for replicas or min_isr: what suits the cluster."""

    retention_ms: int
    timestamps: Timestamps | None
    input_partitions: int | None = None
    replicas: int | None = None
    min_isr: int | None = None


class Topics:
    """The topics of the settings on their Kafka."""

    def __init__(self, settings: Settings) -> None:
        """Connect; raises ConfigError if no broker answers, or Kafka refuses the login."""
        self._settings = settings
        self._admin = make_admin(settings)
        self._brokers = len(describe(self._admin, settings).brokers)

    def specs(self, options: TopicOptions) -> list[TopicSpec]:
        """Return what the topics should be, with these options and the brokers that there are."""
        settings = self._settings
        replicas = options.replicas or min(MAX_REPLICAS, self._brokers)
        written = {*settings.lane_topics, settings.dead_letter_topic}
        batch_bytes = _batch_bytes(settings)

        def spec(
            name: str,
            named_by: str,
            partitions: int | None = None,
            timestamps: Timestamps | None = None,
            record_bytes: int = 0,
        ) -> TopicSpec:
            return TopicSpec(
                name=name,
                named_by=named_by,
                partitions=partitions,
                retention_ms=options.retention_ms,
                timestamps=timestamps,
                replicas=replicas,
                min_isr=options.min_isr or max(1, replicas - 1),
                record_bytes=record_bytes,
                batch_bytes=batch_bytes if name in written else 0,
                cleanup="compact" if name == settings.table_topic else "delete",
            )

        partitions = options.input_partitions
        if settings.route == "partition":
            partitions = partitions or settings.lanes
        dead_letter_bytes = (
            settings.max_record_bytes + MAX_HEADER_BYTES + DEAD_LETTER_OVERHEAD_BYTES
        )
        return [
            *(
                spec(
                    topic,
                    f"[inputs.{topic}]" if topic in settings.inputs else "HEARTWHEEL_INPUT_TOPICS",
                    partitions,
                    options.timestamps,
                )
                for topic in settings.all_input_topics
            ),
            *(
                spec(topic, variable, settings.lanes)
                for topic, variable in settings.lane_topics.items()
            ),
            spec(
                settings.dead_letter_topic,
                "HEARTWHEEL_DEAD_LETTER_TOPIC",
                record_bytes=dead_letter_bytes,
            ),
            *(
                [spec(settings.progress_topic, "HEARTWHEEL_PROGRESS_TOPIC")]
                if settings.progress_topic
                else []
            ),
        ]

    def state(self, name: str) -> TopicState | None:
        """Return what a topic is, None if there is none; raises TopicError if Kafka refuses."""
        topic = describe(self._admin, self._settings).topics.get(name)
        if topic is None:
            return None
        if topic.error is not None:
            raise _refused(name, topic.error)
        state = _state(topic, topic_config(self._admin, self._settings, name))
        settings = self._settings
        if name not in settings.lane_topics or state.partitions <= settings.lanes:
            return state
        # Kafka does not tell where a partition without a leader ends, which is a fault in any case.
        told = [number for number in range(state.partitions) if number not in state.leaderless]
        return replace(state, written=self._was_written(name, told))

    def _was_written(self, name: str, partitions: Iterable[int]) -> bool:
        """Say whether some partitions of a topic ever had a record.

        Raises TopicError if Kafka refuses, or does not answer within 15 s.
        """
        latest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        places = {TopicPartition(name, number): latest for number in partitions}
        silent = (
            f"Kafka at {self._settings.bootstrap_servers} does not tell where it ends; check that "
            "its brokers are well, then try again"
        )
        with _answering(name, f"tell where topic {name} ends", silent):
            ends = self._admin.list_offsets(places) if places else {}
            return any(end.result(METADATA_TIMEOUT_S).offset for end in ends.values())

    def create(self, spec: TopicSpec, *, dry_run: bool) -> bool:
        """Create a topic, or only let Kafka check that it could; False if it exists by now."""
        config = {
            "retention.ms": str(spec.retention_ms),
            "message.timestamp.type": TIMESTAMP_TYPES[spec.timestamps or "append"],
            "min.insync.replicas": str(spec.min_isr),
            "cleanup.policy": spec.cleanup,
        }
        new = NewTopic(spec.name, spec.partitions or 1, spec.replicas, config=config)
        try:
            with announced(f"waiting for Kafka to create topic {spec.name}"):
                self._admin.create_topics([new], validate_only=dry_run)[spec.name].result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return False
            raise _refused(spec.name, error.args[0]) from None
        return True

    def add_partitions(self, spec: TopicSpec, state: TopicState, *, dry_run: bool) -> bool:
        """Give a topic the partitions that it lacks, or only let Kafka check that it could.

        False if it lacks none, or was written to: then devices would move between partitions.
        Raises TopicError if Kafka refuses.
        """
        if not _is_short(spec, state):
            return False
        if self._was_written(spec.name, range(state.partitions)):
            return False
        try:
            with announced(f"waiting for Kafka to add partitions to topic {spec.name}"):
                more = NewPartitions(spec.name, cast("int", spec.partitions))
                self._admin.create_partitions([more], validate_only=dry_run)[spec.name].result()
        except KafkaException as error:
            raise _refused(spec.name, error.args[0]) from None
        return True


def _is_short(spec: TopicSpec, state: TopicState) -> bool:
    return spec.partitions is not None and state.partitions < spec.partitions


def _batch_bytes(settings: Settings) -> int:
    """Return how large a batch of the producers may be."""
    options = settings.kafka | settings.producer
    bounds = [str(options.get(name, BATCH_BYTES)) for name in BATCH_OPTIONS]
    return min(int(bound) if bound.isdecimal() else BATCH_BYTES for bound in bounds)


def topic_config(admin: AdminClient, settings: Settings, name: str) -> dict[str, ConfigEntry]:
    """Return the settings of a topic by name; says so while it waits.

    Raises TopicError if Kafka refuses, or does not answer within 15 s.
    """
    silent = (
        f"Kafka at {settings.bootstrap_servers} does not describe its settings; check that its "
        "brokers are well and answer DescribeConfigs, then try again"
    )
    with _answering(name, f"describe topic {name}", silent):
        return ask_config(admin, name, METADATA_TIMEOUT_S)


@contextmanager
def _answering(name: str, what: str, silent: str) -> Iterator[None]:
    """Say that Kafka is waited for; raise TopicError if it refuses, or is silent."""
    try:
        with announced(f"waiting for Kafka to {what}"):
            yield
    except KafkaException as error:
        raise _refused(name, error.args[0]) from None
    except TimeoutError:
        raise TopicError(f"topic {name}: {silent}") from None


def _state(topic: TopicMetadata, config: dict[str, ConfigEntry]) -> TopicState:
    values = {name: cast("str", config[name].value) for name in _CONFIG}
    parts = topic.partitions.values()
    broker_clock = values["message.timestamp.type"] == TIMESTAMP_TYPES["append"]
    return TopicState(
        name=cast("str", topic.topic),
        partitions=len(parts),
        replicas=min(len(part.replicas) for part in parts),
        in_sync=min(len(part.isrs) for part in parts),
        leaderless=tuple(part.id for part in parts if part.leader < 0),
        retention_ms=int(values["retention.ms"]),
        timestamps="append" if broker_clock else "create",
        cleanup=values["cleanup.policy"],
        min_isr=int(values["min.insync.replicas"]),
        record_bytes=int(values["max.message.bytes"]),
    )


def faults(spec: TopicSpec, state: TopicState | None) -> Iterator[str]:
    """Yield a line for each fault, with what to do."""
    if state is None:
        yield (
            "does not exist, or this user may not see it; run `heartwheel topics create`, "
            f"or correct {spec.named_by}"
        )
        return
    yield from _shape_faults(spec, state)
    yield from _replica_faults(spec, state)


def notes(spec: TopicSpec, state: TopicState | None) -> Iterator[str]:
    """Yield a line for what is no fault, and still not as `heartwheel topics create` makes it."""
    if state is not None and state.written:
        yield (
            f"has {state.partitions} partitions, not {spec.partitions}: a run whose store has "
            "written to it goes on, and those beyond the lanes stay empty; for a new store create "
            "a new topic, or correct HEARTWHEEL_LANES"
        )


def _shape_faults(spec: TopicSpec, state: TopicState) -> Iterator[str]:
    # Where lanes have written, a start goes on with more partitions, and nobody can take them away.
    if spec.partitions not in (None, state.partitions) and not state.written:
        yield _partition_fault(spec, state)
    if state.cleanup != spec.cleanup:
        keeps = "removes" if spec.cleanup == "delete" else "does not keep the newest of all"
        yield f"has cleanup.policy={state.cleanup}, which {keeps} records; set it to {spec.cleanup}"
    if spec.timestamps not in (None, state.timestamps):
        yield (
            f"has message.timestamp.type={TIMESTAMP_TYPES[state.timestamps]}; set it to "
            f"{TIMESTAMP_TYPES[spec.timestamps]}, or say --timestamps {state.timestamps}"
        )
    kept_ms, least_ms = state.retention_ms, spec.retention_ms
    is_short = kept_ms >= 0 and (least_ms < 0 or kept_ms < least_ms)
    if is_short and spec.cleanup == "delete":  # compaction keeps the newest records for ever
        yield f"has retention.ms={kept_ms}, less than {least_ms}; set it, or say --retention"
    if state.record_bytes < spec.record_bytes:
        yield (
            f"has max.message.bytes={state.record_bytes}, and a dead letter may have "
            f"{spec.record_bytes}; set it, or a lower HEARTWHEEL_MAX_RECORD_BYTES"
        )
    elif state.record_bytes < spec.batch_bytes:
        yield (
            f"has max.message.bytes={state.record_bytes}, and a run may send {spec.batch_bytes} "
            "in one batch, which Kafka then refuses each time; set it, or a lower "
            "HEARTWHEEL_PRODUCER_BATCH_SIZE"
        )


def _partition_fault(spec: TopicSpec, state: TopicState) -> str:
    """Say what to do: a broker with auto-creation makes a topic with its own default of them."""
    has = f"has {state.partitions} partition{'' if state.partitions == 1 else 's'}"
    if spec.named_by in OF_LANES and not _is_short(spec, state):
        return (
            f"{has}, not {spec.partitions}, and was never written to: delete it and run "
            "`heartwheel topics create`, or correct HEARTWHEEL_LANES"
        )
    if spec.named_by in OF_LANES:
        other = "else correct HEARTWHEEL_LANES, or see `heartwheel store migrate`"
    else:
        other = "else create a new topic, because more partitions would move devices between them"
    if _is_short(spec, state):
        create = "`heartwheel topics create` adds them to a topic that was never written to"
    else:
        create = "if it is empty (auto-created), delete it and run `heartwheel topics create`"
    return f"{has}, not {spec.partitions}: {create}; {other}"


def _replica_faults(spec: TopicSpec, state: TopicState) -> Iterator[str]:
    least = f"min.insync.replicas={state.min_isr}"
    if state.replicas < spec.replicas:
        yield f"has {state.replicas} replicas, not {spec.replicas}; add or say --replication"
    if state.leaderless:
        parts = ", ".join(map(str, state.leaderless))
        yield f"has no leader for partition {parts}; start the brokers that have it"
    elif state.in_sync < state.min_isr:
        yield (
            f"cannot be written to: {state.in_sync} replicas in sync, {least}; start the brokers "
            "that are missing, or set it lower"
        )
    if state.min_isr < spec.min_isr:
        yield (
            f"has {least}, not {spec.min_isr}: what is acknowledged may be on too few brokers; "
            "set it, or say --min-isr"
        )


def _refused(name: str, error: KafkaError) -> TopicError:
    return TopicError(f"topic {name}: {error.str()} ({error.name()})")
