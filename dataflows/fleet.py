"""A small fleet of devices that starts, ends, replaces and forgets sessions, and errs."""

import random

from confluent_kafka import Producer

BAD_INPUT = (b"not json", b"[]", b'{"type":"GamePause"}', b'{"type":"GameStart","device_id":""}')


class Fleet:
    """Devices on both platforms; each step sends what some of them do.

    A share of the devices never ends its session, so that timeouts are seen too.
    """

    def __init__(self, producer: Producer, topics: list[str], devices: int, seed: int) -> None:
        """Send through this producer; a device keeps to one topic."""
        self._producer = producer
        self._topics = topics
        self._devices = devices
        self._random = random.Random(seed)
        self._sessions: dict[int, str] = {}
        self._number = 0
        self.sent = 0

    def step(self, events: int) -> None:
        """Send some events."""
        for _ in range(events):
            device = self._random.randrange(self._devices)
            session = self._sessions.get(device)
            chance = self._random.random()
            if chance < 0.02:
                self._produce(device, self._random.choice(BAD_INPUT))
            elif session is None or chance < 0.12:
                self._start(device)
            elif device % 4:
                self._send("GameEnd", device, session)
                del self._sessions[device]
        self._producer.poll(0)

    def _start(self, device: int) -> None:
        self._number += 1
        self._sessions[device] = f"session-{self._number}"
        self._send("GameStart", device, self._sessions[device])

    def _send(self, kind: str, device: int, session: str) -> None:
        name = f"device-{device}"
        value = f'{{"type":"{kind}","device_id":"{name}","session_id":"{session}"}}'
        self._produce(device, value.encode())

    def _produce(self, device: int, value: bytes) -> None:
        topic = self._topics[device % len(self._topics)]
        self._producer.produce(topic, value, f"device-{device}")
        self.sent += 1
