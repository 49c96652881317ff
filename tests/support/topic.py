"""Whole topics of a real Kafka, read fast: as facts for the model, and as output to check."""

from collections.abc import Iterator, Mapping

from confluent_kafka import (
    TIMESTAMP_CREATE_TIME,
    Consumer,
    KafkaError,
    Message,
    TopicPartition,
)
from msgspec.structs import replace

from session_logic.codec import decode_input, decode_output
from session_logic.events import Fact, GamePing, GameStart, OutputEvent, Rejected
from session_logic.mapping import MappedEvent, Skipped
from session_logic.mapping import Mapping as EventMapping

BATCH = 20_000
# Short, because a batch that the end of the partition cuts off waits for it.
BATCH_S = 0.2


def messages(address: str, topic: str) -> Iterator[Message]:
    """Yield every record, partition by partition in the order of offsets."""
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": "test",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.message.max.bytes": 8_000_000,
            # Heartbeats that come faster than this would keep the end from being seen.
            "fetch.wait.max.ms": 10,
        }
    )
    try:
        for partition in consumer.list_topics(topic, timeout=15).topics[topic].partitions:
            consumer.assign([TopicPartition(topic, partition, 0)])
            yield from _to_the_end(consumer)
    finally:
        consumer.close()


def _to_the_end(consumer: Consumer) -> Iterator[Message]:
    while True:
        for message in consumer.consume(BATCH, BATCH_S):
            if message.error() is None:
                yield message
            else:
                assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                return


def facts(
    address: str,
    inputs: Mapping[str, str],
    *,
    bad: bool = False,
    tables: Mapping[str, EventMapping] | None = None,
    idle_timeouts_ms: Mapping[str, int] | None = None,
) -> Iterator[Fact]:
    """Yield the facts of input topics (topic -> platform); without bad, no record may be none.

    Topics that have a table are read by it.
    """
    for topic, platform in inputs.items():
        table = (tables or {}).get(topic)
        idle_timeout_ms = (idle_timeouts_ms or {}).get(topic, 0)
        for message in messages(address, topic):
            fact = _own(message, platform) if table is None else _mapped(message, table)
            if isinstance(fact, Fact):
                yield replace(fact, idle_timeout_ms=idle_timeout_ms) if idle_timeout_ms else fact
            else:
                assert bad, fact


def _own(message: Message, platform: str) -> Fact | Rejected:
    event = decode_input(message.value())
    if isinstance(event, Rejected):
        return event
    kind, time_ms = message.timestamp()
    return Fact(
        isinstance(event, GameStart),
        event.device_id,
        event.session_id,
        platform,
        time_ms,
        created=kind == TIMESTAMP_CREATE_TIME,
        ping=isinstance(event, GamePing),
    )


def _mapped(message: Message, table: EventMapping) -> Fact | Rejected | Skipped:
    kind, time_ms = message.timestamp()
    event = table.read(message.key(), message.value(), message.headers(), time_ms)
    if not isinstance(event, MappedEvent):
        return event
    return Fact(
        event.is_start,
        event.device_id,
        event.session_id,
        event.platform,
        time_ms if event.time_ms is None else event.time_ms,
        created=event.time_ms is not None or kind == TIMESTAMP_CREATE_TIME,
        carried=event.carried,
        ping=event.ping,
    )


def outputs(address: str, topic: str) -> Iterator[tuple[int, OutputEvent]]:
    """Yield (timestamp in ms, event) of every record; each record has its device as key."""
    for message in messages(address, topic):
        yield message.timestamp()[1], output_of(message)


def output_of(message: Message) -> OutputEvent:
    """Return the event of a record, which has its device as key."""
    event = decode_output(message.value())
    assert message.key() == event.device_id.encode()
    return event
