"""The end of a session as an operator sends it: an event of the input, as any device sends one."""

from confluent_kafka import KafkaError, Message
from msgspec import Struct

from dataflows.kafka.client import make_producer, producer_options
from dataflows.kafka.metadata import describe
from dataflows.settings import Settings
from dataflows.text import printable
from heartwheel.event_writer import Sent, writer_of
from session_logic.errors import ConfigError, HeartwheelError
from session_logic.event_table import FromField
from session_logic.mapping import MappedEvent

SEND_S = 30
BY_ITS_SENDER = "let the sender of its events end the session"


class SendError(HeartwheelError):
    """Kafka has not acknowledged the event: see the message."""


class Where(Struct, frozen=True):
    """Where a record is."""

    topic: str
    partition: int
    offset: int


def topic_of(settings: Settings, platform: str, given: str | None) -> str:
    """Return the input topic of a platform; raises ConfigError unless there is exactly one.

    One that is given must be an input topic that can have sessions of the platform.
    """
    shown = printable(platform)
    fitting = [topic for topic, name in settings.input_topics.items() if name == platform]
    fitting += [
        topic
        for topic, table in settings.inputs.items()
        if isinstance(table.platform, FromField) or table.platform == platform
    ]
    if given is not None:
        if given not in fitting:
            raise ConfigError(
                f"--topic {printable(given)} has no sessions of platform {shown}; these settings "
                f"have them in {', '.join(fitting) or 'no input topic'}"
            )
        return given
    if len(fitting) != 1:
        raise ConfigError(
            f"sessions of platform {shown} are in {', '.join(fitting) or 'no input topic'} of "
            "these settings; " + ("say which with --topic" if fitting else "take those of the run")
        )
    return fitting[0]


def end_of(settings: Settings, topic: str, event: MappedEvent) -> Sent:
    """Return an end as a topic has it; raises ConfigError if it has none, or cannot be written."""
    try:
        writer = writer_of(settings, topic)
    except ConfigError as error:
        raise ConfigError(f"{error}; {BY_ITS_SENDER}") from None
    if event.kind not in writer.kinds:
        raise ConfigError(f"inputs.{topic} has no {event.kind}; {BY_ITS_SENDER}")
    return writer.write(event)


def send(settings: Settings, topic: str, record: Sent, partition: int | None) -> Where:
    """Send a record, and return where it is once Kafka has acknowledged it.

    Without a partition, its key decides. Raises ConfigError if the topic is not there, SendError
    if Kafka does not take the record.
    """
    defaults = {"message.timeout.ms": str(SEND_S * 1000)}
    producer = make_producer(producer_options(settings, defaults=defaults))
    there = describe(producer, settings).topics
    if topic not in there:  # or the broker might make it
        raise ConfigError(
            f"input topic {topic} does not exist on {settings.bootstrap_servers}, or this user may "
            "not see it; create it with `heartwheel topics create`"
        )
    count = len(there[topic].partitions)
    if partition is not None and partition >= count:
        raise ConfigError(f"--partition {partition}: {topic} has {count}, which begin with 0")
    found: list[Where] = []
    failed: list[KafkaError] = []

    def note(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failed.append(error)
            return
        where, offset = message.partition(), message.offset()
        assert where is not None
        assert offset is not None
        found.append(Where(topic, where, offset))

    producer.produce(
        topic,
        record.value,
        record.key,
        -1 if partition is None else partition,
        headers=[*record.headers],
        on_delivery=note,
    )
    producer.flush(SEND_S)
    if not found:
        cause = f" ({failed[0].str()})" if failed else ""
        raise SendError(
            f"Kafka at {settings.bootstrap_servers} has not acknowledged the event{cause}; look "
            "with `heartwheel session show` whether the session has ended, then try again"
        )
    return found[0]
