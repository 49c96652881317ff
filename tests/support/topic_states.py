"""A topic as it should be, and as it is, of which a test changes what it is about."""

from heartwheel.kafka.topics import TopicSpec, TopicState

SPEC = TopicSpec(
    name="t",
    named_by="HEARTWHEEL_INPUT_TOPICS",
    partitions=None,
    retention_ms=86_400_000,
    timestamps=None,
    replicas=3,
    min_isr=2,
    record_bytes=0,
)
INTACT = TopicState(
    name="t",
    partitions=4,
    replicas=3,
    in_sync=3,
    leaderless=(),
    retention_ms=86_400_000,
    timestamps="create",
    cleanup="delete",
    min_isr=2,
    record_bytes=1_048_588,
)
