"""The open-loop load: it sends by the plan, whatever the system does, and notes every lateness.

A session id carries the moment at which its start was planned, so that the report can count
latency from there.
"""

import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from confluent_kafka import Producer
from msgspec import Struct

SLICE_MS = 10
# Of a hundred planned events: ends, starts of new sessions on idle devices, replacements of
# active sessions, and repetitions of an event just sent.
ENDS, STARTS, REPLACED = 46, 46, 6
# Records that are no events, each for another reason.
BAD = b"", b"no JSON", b"{}", b'{"type":"GameStart","device_id":"bad"}'
# Of events that are read by a table: the first field and the last one are carried.
FIELDS = 10
KINDS = 64  # of contents of these fields
STAMPEDE = 1 << 32  # the first device of a stampede, far from all others
HOT = STAMPEDE - 1  # the device that starts and ends sessions all the while
TABLE = """
[inputs."{topic}"]
platform = "{platform}"
type = "kind"
start = "GameStart"
end = "GameEnd"
other = "reject"
device = "device"
session = "session"
carry = {{first = "field0", last = "field9"}}
"""


Event = tuple[str, bytes, str]  # topic, value and key


class Plan(Struct):
    """What to send: sessions to start evenly over ramp_s, then rate events/s for steady_s.

    bad is how many records that are no events come with each hundred of them. With field_bytes
    an event has ten more fields of so many bytes each, and is as TABLE says; else it is in our own
    format. first is the number of the first device. With prepared, the ramp's records are made
    beforehand, so that they can be sent fast. hot is how many sessions one more device starts and
    ends each second of the steady phase.
    """

    bootstrap_servers: str
    topics: list[str]
    sessions: int
    ramp_s: float
    rate: float
    steady_s: float
    seed: int
    bad: int = 0
    field_bytes: int = 0
    first: int = 0
    prepared: bool = False
    hot: int = 0


class Load:
    """The devices that are started in the ramp; the steady phase ends and starts them."""

    def __init__(self, plan: Plan) -> None:
        """Connect to the broker."""
        self._plan = plan
        self._random = random.Random(plan.seed)
        self._number = plan.first
        self._bad_due = self._hot_due = 0.0
        self._sessions: dict[int, str] = {}
        self._active: list[int] = []
        self._idle: list[int] = []
        self._last: Event | None = None
        self._prepared: Iterator[Event] = iter(())
        self._fields = [self._more_fields() for _ in range(KINDS)] if plan.field_bytes else []
        self._producer = Producer(
            {
                "bootstrap.servers": plan.bootstrap_servers,
                "linger.ms": 1,
                "compression.type": "lz4",
                "queue.buffering.max.messages": 1_000_000,
                "partitioner": "consistent",
            }
        )

    def _event(self, kind: str, device: int) -> Event:
        name, session = device_name(device), self._sessions[device]
        value = f'{{"type":"{kind}","device_id":"{name}","session_id":"{session}"}}'
        if self._fields:
            who = f'"kind":"{kind}","device":"{name}","session":"{session}"'
            value = f'{{{who},"field0":"{name}{self._fields[device % KINDS]}'
        return self._plan.topics[device & 1], value.encode(), name

    def _send(self, kind: str, device: int) -> None:
        self._last = self._event(kind, device)
        self._produce(*self._last)

    def _more_fields(self) -> str:
        """Return what follows the name of a device, which begins the first field, to the end."""
        size = self._plan.field_bytes
        first, *others = (f"{self._random.getrandbits(4 * size):0{size}x}" for _ in range(FIELDS))
        fields = [f'"field{number}":"{text}"' for number, text in enumerate(others, 1)]
        return f'{first[len(device_name(0)) :]}",{",".join(fields)}}}'

    def _send_bad(self, count: float) -> None:
        self._bad_due += count
        while self._bad_due >= 1:
            self._bad_due -= 1
            number = self._random.randrange(1 << 20)
            bad = BAD[number % len(BAD)]
            self._produce(self._plan.topics[number & 1], bad, device_name(number))

    def _produce(self, topic: str, value: bytes, key: str) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key)
            except BufferError:
                self._producer.poll(0.01)
            else:
                return

    def _begin(self, device: int, planned_ms: int) -> None:
        self._number += 1
        self._sessions[device] = f"{self._number:010x}-{planned_ms:013d}"

    def _start(self, device: int, planned_ms: int) -> None:
        self._begin(device, planned_ms)
        self._send("GameStart", device)

    def _ramp(self, count: int, planned_ms: int) -> None:
        for _ in range(count):
            device = self._plan.first + len(self._active)
            self._active.append(device)
            self._start(device, planned_ms)

    def prepare(self) -> None:
        """Make what the ramp sends; its sessions do not carry the moment that is planned."""
        devices = range(self._plan.first, self._plan.first + self._plan.sessions)
        for device in devices:
            self._begin(device, 0)
        self._prepared = iter([self._event("GameStart", device) for device in devices])

    def _send_prepared(self, count: int, planned_ms: int) -> None:
        for event in islice(self._prepared, count):
            self._produce(*event)

    def _take(self, devices: list[int]) -> int:
        index = self._random.randrange(len(devices))
        devices[index], devices[-1] = devices[-1], devices[index]
        return devices.pop()

    def _send_hot(self, planned_ms: int) -> None:
        self._hot_due += self._plan.hot * SLICE_MS / 1000
        while self._hot_due >= 1:
            self._hot_due -= 1
            self._start(HOT, planned_ms)
            self._send("GameEnd", HOT)

    def _steady(self, count: int, planned_ms: int) -> None:
        self._send_bad(count * self._plan.bad / 100)
        self._send_hot(planned_ms)
        for _ in range(count):
            kind = self._random.randrange(100)
            if kind < ENDS and self._active:
                device = self._take(self._active)
                self._send("GameEnd", device)
                self._idle.append(device)
            elif kind < ENDS + STARTS and self._idle:
                device = self._take(self._idle)
                self._start(device, planned_ms)
                self._active.append(device)
            elif kind < ENDS + STARTS + REPLACED and self._active:
                device = self._random.choice(self._active)
                self._start(device, planned_ms)
            else:
                assert self._last is not None
                self._produce(*self._last)

    def _run(self, total: int, seconds: float, send: Callable[[int, int], None]) -> int:
        """Send total events evenly over seconds; return the worst lateness in ms."""
        begin_ms = time.time_ns() // 1_000_000
        sent = worst_ms = 0
        for slice_ in range(1, round(seconds * 1000 / SLICE_MS) + 1):
            planned_ms = begin_ms + slice_ * SLICE_MS
            wait_s = planned_ms / 1000 - time.time()
            if wait_s > 0:
                time.sleep(wait_s)
            worst_ms = max(worst_ms, time.time_ns() // 1_000_000 - planned_ms)
            due = round(total * slice_ * SLICE_MS / (seconds * 1000))
            send(due - sent, planned_ms)
            sent = due
            self._producer.poll(0)
        left = self._producer.flush(60)
        assert left == 0, f"{left} events not delivered"
        return worst_ms

    def ramp(self) -> int:
        """Start every session."""
        send = self._send_prepared if self._plan.prepared else self._ramp
        return self._run(self._plan.sessions, self._plan.ramp_s, send)

    def steady(self) -> int:
        """End, start, replace and repeat."""
        total = round(self._plan.rate * self._plan.steady_s)
        return self._run(total, self._plan.steady_s, self._steady)


def device_name(device: int) -> str:
    """Return the id of a device."""
    return f"device-{device:010x}"


def main() -> None:
    """Ramp up and then send the steady load; wait for a line on standard input where asked to."""
    plan = Plan(**json.loads(Path(sys.argv[1]).read_text()))
    load = Load(plan)
    if plan.prepared:
        load.prepare()
        sys.stdin.readline()
    print(json.dumps({"ramp_worst_ms": load.ramp()}), flush=True)
    sys.stdin.readline()
    print(json.dumps({"steady_worst_ms": load.steady()}), flush=True)


if __name__ == "__main__":
    main()
