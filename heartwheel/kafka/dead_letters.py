"""Dead letters as an operator sees them: read from their topic, and chosen."""

from collections.abc import Iterator
from typing import Literal, cast

from confluent_kafka import OFFSET_BEGINNING, Message, TopicPartition
from msgspec import Struct

from dataflows.kafka.client import consumer_options, make_consumer
from dataflows.kafka.metadata import METADATA_TIMEOUT_S, describe
from dataflows.kafka.reader import END_OPTIONS, TIMEOUT_S, ReadToEnd
from dataflows.settings import Settings
from heartwheel.kafka.headers import BECAME, MARK, REQUEUES
from session_logic.errors import ConfigError, HeartwheelError

# waiting: can be sent again; requeued: has been; twice: there is another letter of the same
# record; left out: its value was too large to keep; foreign: not one of Heartwheel's.
State = Literal["waiting", "requeued", "twice", "left out", "foreign"]


class LetterError(HeartwheelError):
    """Dead letters cannot be read or sent again: see the message."""


class Place(Struct, frozen=True):
    """Where an input record is; with its time, so that a topic made anew is another place."""

    topic: str
    partition: int
    offset: int
    time_ms: int

    def __str__(self) -> str:
        """Return it as the mark has it."""
        return f"{self.topic}/{self.partition}/{self.offset}/{self.time_ms}"


class Letter(Struct, frozen=True):
    """A dead letter; place is where its input record was, None if it is not Heartwheel's."""

    partition: int
    offset: int
    written_ms: int
    place: Place | None
    reason: str
    detail: str
    key: bytes | None
    value: bytes | None
    requeues: int
    state: State


class Choice(Struct, frozen=True):
    """Which letters: of a reason, of an input topic, written since and until a moment in ms."""

    reason: str | None = None
    topic: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    names: frozenset[tuple[int, int]] = frozenset()

    def takes(self, letter: Letter) -> bool:
        """Say whether a letter is among them."""
        topic = letter.place.topic if letter.place else ""
        return (
            self.reason in (None, letter.reason)
            and self.topic in (None, topic)
            and (self.since_ms is None or letter.written_ms >= self.since_ms)
            and (self.until_ms is None or letter.written_ms < self.until_ms)
            and (not self.names or (letter.partition, letter.offset) in self.names)
        )


class Letters:
    """The letters that are in the dead-letter topic now, and which have been sent again."""

    def __init__(self, settings: Settings) -> None:
        """Read what has been sent again; raises ConfigError if there is no such topic."""
        self._topic = settings.dead_letter_topic
        options = consumer_options(
            settings,
            {
                **END_OPTIONS,
                "group.id": "heartwheel",
                "enable.auto.commit": "false",
                # A mark counts when the record it speaks of does.
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
        for message in self._messages():
            headers = _headers(message)
            if MARK in headers:
                count = _number(headers.get(REQUEUES, ""))
                self._sent[headers[MARK]] = count
                self._became[headers.get(BECAME, "")] = count

    def _watermarks(self, partition: int) -> tuple[int, int]:
        where = TopicPartition(self._topic, partition)
        return self._consumer.get_watermark_offsets(where, METADATA_TIMEOUT_S)

    def read(self, choice: Choice) -> Iterator[Letter]:
        """Yield the letters of a choice, partition by partition in the order of the topic."""
        places: set[Place] = set()
        for message in self._messages():
            letter = self._letter(message, places)
            if letter is not None and choice.takes(letter):
                if letter.place is not None:
                    places.add(letter.place)
                yield letter

    def find(self, partition: int, offset: int) -> Letter:
        """Return one letter; raises ConfigError if there is none at this place."""
        low, high = self._bounds.get(partition, (0, 0))
        if low <= offset < high:
            self._consumer.assign([TopicPartition(self._topic, partition, offset)])
            for message in self._consumer.consume(1, TIMEOUT_S):
                if message.error() is None and message.offset() == offset:
                    letter = self._letter(message, set())
                    if letter is not None:
                        return letter
        msg = f"there is no letter {partition}/{offset}; `heartwheel dead-letters list` names them"
        raise ConfigError(msg)

    def _letter(self, message: Message, places: set[Place]) -> Letter | None:
        """Return a letter, None for a mark; places are those of the letters before it."""
        headers = _headers(message)
        if MARK in headers:
            return None
        place = _place(headers)
        origin = f"{place.topic}/{place.partition}/{place.offset}" if place else ""
        reason = headers.get("heartwheel.reason", "")
        state: State = "waiting"
        if place is None:
            state = "foreign"
        elif place in places:
            state = "twice"
        elif reason == "too_large":
            state = "left out"
        elif str(place) in self._sent:
            state = "requeued"
        return Letter(
            cast("int", message.partition()),
            cast("int", message.offset()),
            message.timestamp()[1],
            place,
            reason,
            headers.get("heartwheel.detail", ""),
            message.key(),
            message.value(),
            max(self._became.get(origin, 0), self._sent.get(str(place), 0)),
            state,
        )

    def _messages(self) -> Iterator[Message]:
        """Yield what is in the topic up to the ends that were found at the beginning."""
        starts = {n: OFFSET_BEGINNING for n, (low, high) in self._bounds.items() if high > low}
        for message in ReadToEnd(self._consumer, self._topic, starts):
            if cast("int", message.offset()) < self._bounds[cast("int", message.partition())][1]:
                yield message

    def close(self) -> None:
        """Leave Kafka."""
        self._consumer.close()


def _headers(message: Message) -> dict[str, str]:
    headers = cast("list[tuple[str, bytes | None]]", message.headers() or [])
    return {name: (value or b"").decode(errors="replace") for name, value in headers}


def _place(headers: dict[str, str]) -> Place | None:
    topic, *numbers = (
        headers.get(f"heartwheel.{name}", "")
        for name in ("topic", "partition", "offset", "timestamp")
    )
    try:
        return Place(topic, *map(int, numbers)) if topic else None
    except ValueError:
        return None


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
