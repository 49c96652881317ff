"""Dead letters as an operator sees them: read from their topic, and selected."""

from collections.abc import Iterator
from typing import Literal, cast

from confluent_kafka import OFFSET_BEGINNING, Message, TopicPartition
from msgspec import Struct

from dataflows.kafka.client import consumer_options, make_consumer
from dataflows.kafka.headers import headers_of, senders
from dataflows.kafka.metadata import METADATA_TIMEOUT_S, describe
from dataflows.kafka.reader import END_OPTIONS, TIMEOUT_S, ReadToEnd
from dataflows.messages import Headers
from dataflows.settings import Settings
from dataflows.text import whole_number
from heartwheel.kafka.headers import (
    BECAME,
    DETAIL,
    MARK,
    REASON,
    REQUEUES,
    Origin,
    header_texts,
)
from session_logic.errors import ConfigError, HeartwheelError

# waiting: can be sent again; requeued: was sent again; twice: another dead letter is of the same
# record; left out: its value was too large to keep; foreign: not written by Heartwheel.
State = Literal["waiting", "requeued", "twice", "left out", "foreign"]
# Those of which there is nothing that could be sent.
UNSENDABLE: set[State] = {"left out", "foreign"}


class DeadLetterError(HeartwheelError):
    """Dead letters cannot be sent again: see the message."""


class StoredDeadLetter(Struct, frozen=True, kw_only=True):
    """A dead letter in its topic; origin is its input record, None if it is not Heartwheel's."""

    partition: int
    offset: int
    written_ms: int
    origin: Origin | None
    reason: str
    detail: str
    key: bytes | None
    value: bytes | None
    headers: Headers  # that its record had
    requeues: int
    state: State

    @property
    def name(self) -> str:
        """How an operator names it."""
        return f"{self.partition}/{self.offset}"


class DeadLetterFilter(Struct, frozen=True, kw_only=True):
    """Which dead letters: of a reason, of an input topic, written since and before a time in ms.

    names are pairs of partition and offset; without any, all.
    """

    reason: str | None = None
    topic: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    names: frozenset[tuple[int, int]] = frozenset()

    def takes(self, letter: StoredDeadLetter) -> bool:
        """Say whether a dead letter passes."""
        topic = letter.origin.record.topic if letter.origin else ""
        return (
            self.reason in (None, letter.reason)
            and self.topic in (None, topic)
            and (self.since_ms is None or letter.written_ms >= self.since_ms)
            and (self.until_ms is None or letter.written_ms < self.until_ms)
            and (not self.names or (letter.partition, letter.offset) in self.names)
        )


class DeadLetterReader:
    """Reads what is in the dead-letter topic at one moment, and what was sent again of it."""

    def __init__(self, settings: Settings) -> None:
        """Read what was sent again; raises ConfigError if there is no such topic."""
        self._topic = settings.dead_letter_topic
        options = consumer_options(
            settings,
            {
                **END_OPTIONS,
                "group.id": "heartwheel",
                "enable.auto.commit": "false",
                # A mark is valid if the record that it is about is.
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
            },
        )
        self._consumer = make_consumer(options)
        found = describe(self._consumer, settings, self._topic).topics[self._topic]
        if found.error is not None or not found.partitions:
            msg = (
                f"topic {self._topic} does not exist on {settings.bootstrap_servers}, or this user "
                "may not see it; correct HEARTWHEEL_DEAD_LETTER_TOPIC"
            )
            raise ConfigError(msg)
        self._bounds = {number: self._watermarks(number) for number in found.partitions}
        self._sent: dict[str, int] = {}
        self._became: dict[str, int] = {}
        self._topics = set(settings.all_input_topics)
        for message in self._messages():
            headers = header_texts(headers_of(message) or [])
            if MARK in headers:
                count = whole_number(headers.get(REQUEUES, "")) or 0
                self._sent[headers[MARK]] = count
                self._became[headers.get(BECAME, "")] = count
            elif (origin := Origin.of(headers)) is not None:
                self._topics.add(origin.record.topic)

    def _watermarks(self, partition: int) -> tuple[int, int]:
        where = TopicPartition(self._topic, partition)
        return self._consumer.get_watermark_offsets(where, METADATA_TIMEOUT_S)

    def read(self, wanted: DeadLetterFilter) -> Iterator[StoredDeadLetter]:
        """Yield dead letters, partition by partition in the order of the topic.

        Raises ConfigError for an input topic that is neither in the settings nor that of any.
        """
        if wanted.topic is not None and wanted.topic not in self._topics:
            topics = ", ".join(sorted(self._topics))
            raise ConfigError(f"no such topic {wanted.topic}; one of {topics}")
        origins: set[Origin] = set()
        for message in self._messages():
            letter = self._letter(message, origins)
            if letter is not None and wanted.takes(letter):
                if letter.origin is not None:
                    origins.add(letter.origin)
                yield letter

    def find(self, partition: int, offset: int) -> StoredDeadLetter:
        """Return one dead letter; raises ConfigError if there is none with this name."""
        low, high = self._bounds.get(partition, (0, 0))
        if low <= offset < high:
            self._consumer.assign([TopicPartition(self._topic, partition, offset)])
            for message in self._consumer.consume(1, TIMEOUT_S):
                if message.error() is None and message.offset() == offset:
                    letter = self._letter(message, set())
                    if letter is not None:
                        return letter
        raise no_such_dead_letter(f"{partition}/{offset}")

    def _letter(self, message: Message, origins: set[Origin]) -> StoredDeadLetter | None:
        """Return a dead letter, None for a mark; origins are those of the ones before it."""
        all_headers = headers_of(message) or []
        headers = header_texts(all_headers)
        if MARK in headers:
            return None
        origin = Origin.of(headers)
        reason = headers.get(REASON, "")
        state: State = "waiting"
        if origin is None:
            state = "foreign"
        elif origin in origins:
            state = "twice"
        elif reason == "too_large":
            state = "left out"
        elif str(origin) in self._sent:
            state = "requeued"
        # Its record may itself have been sent again, and rejected again.
        became = self._became.get(str(origin.record), 0) if origin else 0
        return StoredDeadLetter(
            partition=cast("int", message.partition()),
            offset=cast("int", message.offset()),
            written_ms=message.timestamp()[1],
            origin=origin,
            reason=reason,
            detail=headers.get(DETAIL, ""),
            key=message.key(),
            value=message.value(),
            headers=senders(all_headers),
            requeues=max(became, self._sent.get(str(origin), 0)),
            state=state,
        )

    def _messages(self) -> Iterator[Message]:
        """Yield what is in the topic, up to the ends that were found at the beginning."""
        wanted = {
            n: (OFFSET_BEGINNING, high) for n, (low, high) in self._bounds.items() if high > low
        }
        for message in ReadToEnd(self._consumer, self._topic, wanted):
            if cast("int", message.offset()) < self._bounds[cast("int", message.partition())][1]:
                yield message

    def close(self) -> None:
        """Leave Kafka."""
        self._consumer.close()


def no_such_dead_letter(name: str) -> ConfigError:
    """Return the error for a name that no dead letter has."""
    return ConfigError(f"no dead letter {name}; `heartwheel dead-letters list` names them")
