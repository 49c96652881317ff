"""A simulated fleet: devices that start, end, replace and forget sessions, and send bad input."""

import random
import time
from collections import deque
from collections.abc import Callable

from confluent_kafka import KafkaError, Message, Producer
from msgspec import Struct

BAD_INPUT = (b"not json", b"[]", b'{"type":"GamePause"}', b'{"type":"GameStart","device_id":""}')
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


class Fleet:
    """Devices on all input topics; each step sends what some of them do.

    What which device does depends on the seed alone.
    """

    def __init__(
        self, producer: Producer, topics: list[str], mix: Mix, seed: int, name: str = ""
    ) -> None:
        """Send through this producer; a device stays on one topic. Session ids contain the name."""
        self._producer = producer
        self._topics = topics
        self._mix = mix
        self._random = random.Random(seed)
        self._name = name
        self._sessions: dict[int, str] = {}
        self._number = 0
        self._coming = max(1, round(mix.devices * mix.churn))
        self._staying = iter(range(self._coming, mix.devices))
        self._recent: deque[tuple[int, bytes]] = deque(maxlen=RECENT)
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
            if chance < mix.bad:
                bad = self._random.choice(BAD_INPUT)
                self._produce(self._random.randrange(mix.devices), bad, stop)
            elif chance < mix.bad + mix.duplicates and self._recent:
                self._produce(*self._random.choice(self._recent), stop)
            else:
                device, value = self._event()
                self._recent.append((device, value))
                self._produce(device, value, stop)
        self._producer.poll(0)

    def _event(self) -> tuple[int, bytes]:
        """Return the next event; devices that stay begin first, with every second event."""
        device = next(self._staying, None) if self.sent % 2 else None
        if device is None:
            position = self._random.random() ** (1 + self._mix.skew)
            device = int(self._coming * position)
        session = self._sessions.get(device)
        if session is None or self._random.random() < REPLACED:
            self._number += 1
            session = self._sessions[device] = f"session-{self._name}{self._number}"
            return device, _value("GameStart", device, session)
        del self._sessions[device]
        return device, _value("GameEnd", device, session)

    def _produce(self, device: int, value: bytes, stop: Callable[[], bool]) -> None:
        topic = self._topics[device % len(self._topics)]
        stamp_ms = 0  # now
        if self._mix.late and self._random.random() < self._mix.late:
            stamp_ms = int(time.time() * 1000 - self._random.uniform(0, self._mix.late_ms))
        while True:
            try:
                self._producer.produce(
                    topic,
                    value,
                    f"device-{device}",
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


def _value(kind: str, device: int, session: str) -> bytes:
    return f'{{"type":"{kind}","device_id":"device-{device}","session_id":"{session}"}}'.encode()
