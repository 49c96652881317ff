"""A simulated fleet: devices that start, end, replace and forget sessions, and send bad input."""

import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import msgspec
from confluent_kafka import KafkaError, Message, Producer
from msgspec import Struct

from heartwheel.event_writer import Sent, Writer
from session_logic.carried_json import member_name
from session_logic.mapping import Kind, MappedEvent

# Of devices on a topic whose table reads the platform from a field.
PLATFORMS = ("console", "pc")
# The share of events of a device with a session that start another one without an end.
REPLACED = 0.1
# A repeated event is one of this number of last ones.
RECENT = 100
FULL_WAIT_S = 0.01


class Mix(Struct, frozen=True, kw_only=True):
    """What a fleet is like; shares are from 0 to 1.

    churn is the share of devices whose sessions end and begin again; the others begin one and
    keep it. With skew 0 all devices are equally active; with more, activity concentrates on fewer.
    Late events have a timestamp up to late_ms in the past.
    """

    devices: int
    churn: float = 0.75
    skew: float = 0.0
    late: float = 0.0
    late_ms: int = 60_000
    duplicates: float = 0.0
    bad: float = 0.02


class Names(Struct, frozen=True):
    """What devices and sessions are called, by their numbers."""

    device: Callable[[int], str] = "device-{}".format
    session: Callable[[int], str] = "session-{}".format


class SentEvent(Struct, frozen=True):
    """An event that was sent, as what it is and as a record."""

    topic: str
    event: MappedEvent
    record: Sent


class Fleet:
    """Devices on all input topics; each step sends what some of them do.

    What which device does depends on the seed alone. What a table carries is made up: text that
    tells the device from a start, and from an end for how many seconds its session has gone on.
    """

    def __init__(
        self,
        producer: Producer,
        writers: Mapping[str, Writer],
        mix: Mix,
        seed: int,
        names: Names = Names(),  # noqa: B008  # it is frozen
    ) -> None:
        """Send through this producer to the topics of these writers; a device stays on one."""
        self._producer = producer
        self._topics = list(writers)
        self._writers = writers
        self._mix = mix
        self._random = random.Random(seed)
        self._names = names
        self._sessions: dict[int, tuple[str, int]] = {}  # with the time of the start
        self._number = 0
        self._coming = max(1, round(mix.devices * mix.churn))
        self._staying = iter(range(self._coming, mix.devices))
        self.recent: deque[SentEvent] = deque(maxlen=RECENT)
        self.sent = 0
        self.failed = 0
        self.failure: KafkaError | None = None

    @property
    def sessions(self) -> int:
        """How many devices have a session, as far as the fleet knows."""
        return len(self._sessions)

    def step(self, events: int, stop: Callable[[], bool] = lambda: False) -> None:
        """Send some events; while the producer's queue is full, wait, unless stop returns True."""
        mix = self._mix
        for _ in range(events):
            chance = self._random.random()
            late_ms = self._late_ms()
            if chance < mix.bad:
                device = self._random.randrange(mix.devices)
                topic = self._topic(device)
                some = self._writers[topic].bad(self._names.device(device))
                self._produce(topic, self._random.choice(some), late_ms, stop)
            elif chance < mix.bad + mix.duplicates and self.recent:
                again = self._random.choice(self.recent)
                self._produce(again.topic, again.record, late_ms, stop)
            else:
                new = self._next_event(late_ms)
                self.recent.append(new)
                self._produce(new.topic, new.record, late_ms, stop)
        self._producer.poll(0)

    def _late_ms(self) -> int:
        """Return how late the next record is."""
        if self._mix.late and self._random.random() < self._mix.late:
            return round(self._random.uniform(0, self._mix.late_ms))
        return 0

    def _topic(self, device: int) -> str:
        return self._topics[device % len(self._topics)]

    def _next_event(self, late_ms: int) -> SentEvent:
        """Return the next event; devices that stay begin first, with every second event."""
        device = next(self._staying, None) if self.sent % 2 else None
        if device is None:
            position = self._random.random() ** (1 + self._mix.skew)
            device = int(self._coming * position)
        if device not in self._sessions or self._random.random() < REPLACED:
            self._begin(device, late_ms)
            return self._event(device, "start", late_ms)
        event = self._event(device, "end", late_ms)
        del self._sessions[device]
        return event

    def _begin(self, device: int, late_ms: int) -> None:
        """Let a device have a new session."""
        self._number += 1
        self._sessions[device] = self._names.session(self._number), _now_ms() - late_ms

    def _event(self, device: int, kind: Kind, late_ms: int) -> SentEvent:
        """Return an event of the session of a device."""
        time_ms = _now_ms() - late_ms
        session, started_ms = self._sessions[device]
        topic = self._topic(device)
        name = self._names.device(device)
        writer = self._writers[topic]
        value = max(0, time_ms - started_ms) // 1000 if kind == "end" else f"of {name}"
        carried = _members(writer.carried(kind), value)
        platform = PLATFORMS[device // len(self._topics) % len(PLATFORMS)]
        names = (name, session, platform)
        event = MappedEvent(kind == "start", *names, time_ms, carried, ping=kind == "ping")
        return SentEvent(topic, event, writer.write(event))

    def _produce(self, topic: str, record: Sent, late_ms: int, stop: Callable[[], bool]) -> None:
        stamp_ms = _now_ms() - late_ms if late_ms else 0  # 0: now
        while True:
            try:
                self._producer.produce(
                    topic,
                    record.value,
                    record.key,
                    headers=[*record.headers],
                    on_delivery=self._on_delivery,
                    timestamp=stamp_ms,
                )
            except BufferError:
                if stop():
                    return
                self._producer.poll(FULL_WAIT_S)
            else:
                self.sent += 1
                return

    def _on_delivery(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self.failed += 1
            self.failure = error


def _members(names: Sequence[str], value: str | int) -> bytes:
    """Return what an event carries: the same value under each of these names."""
    if not names:
        return b""
    return b",".join(member_name(name) + msgspec.json.encode(value) for name in names)


def _now_ms() -> int:
    return int(time.time() * 1000)
