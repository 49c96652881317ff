"""Topics as other systems write them: some devices, each with sessions one after the other."""

import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from uuid import UUID

from msgspec import Struct

from heartwheel.events.records import SeenRecord

BEGIN_MS = 1_764_000_000_000
DELAY_MS = 300  # from an event to the timestamp of its record
Event = dict[str, object]


class Moment(Struct, frozen=True):
    """A start or an end of a session, and where it stands among all."""

    number: int
    is_start: bool
    device: str
    session: int
    time_ms: int
    started_ms: int


def moments(devices: list[str], sessions: int = 2) -> Iterator[Moment]:
    """Yield the starts and ends of so many sessions of each device, in the order of time."""
    rng = random.Random(len(devices))
    found = []
    for device in devices:
        time_ms = BEGIN_MS + rng.randrange(60_000)
        for _ in range(sessions):
            session, end_ms = rng.randrange(10**9, 10**10), time_ms + rng.randrange(5_000, 60_000)
            found.append((time_ms, True, device, session, time_ms))
            found.append((end_ms, False, device, session, time_ms))
            time_ms = end_ms + rng.randrange(100, 5_000)
    for number, (at_ms, is_start, device, session, started_ms) in enumerate(sorted(found)):
        yield Moment(number, is_start, device, session, at_ms, started_ms)


def record(
    number: int,
    time_ms: int,
    value: object,
    key: str | None = None,
    headers: dict[str, str] | None = None,
) -> SeenRecord:
    """Return a record with a JSON value; bytes stay as they are."""
    plain = value is None or isinstance(value, bytes)
    return SeenRecord(
        name=f"0/{number}",
        time_ms=time_ms,
        key=None if key is None else key.encode(),
        value=value if plain else json.dumps(value).encode(),  # type: ignore[arg-type]
        headers=[(name, text.encode()) for name, text in (headers or {}).items()],
    )


def iso(time_ms: int) -> str:
    """Return a time as 2025-11-01T00:06:45.000+00:00."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")


def uuid(*parts: object) -> str:
    """Return the same id for the same parts."""
    return str(UUID(int=random.Random(repr(parts)).getrandbits(128)))


def reference(device: str = "hostPcId", devices: int = 8, sessions: int = 2) -> list[SeenRecord]:
    """Return a topic of the reference pipeline; device is its name for a device's field."""
    records = []
    for one in moments([uuid(device, n) for n in range(devices)], sessions):
        event: Event = {
            "eventId": "ApplicationSession" + ("Start" if one.is_start else "EndBi"),
            "appSessionId": one.session,
            "psnAccountId": uuid("account", one.device),
            device: one.device,
            "timestamp": iso(one.time_ms),
        }
        if not one.is_start:
            event["totalFgTime"] = (one.time_ms - one.started_ms) // 1000
        records.append(record(one.number, one.time_ms + DELAY_MS, event))
    return records


def reference_table(topic: str) -> str:
    """Return a table for a topic of PCs of the reference pipeline, which carries nothing."""
    return f"""
[inputs.{topic}]
platform = "pc"
type = "eventId"
start = ["ApplicationSessionStart"]
end = ["ApplicationSessionEndBi"]
device = "hostPcId"
session = "appSessionId"
time = "timestamp"
"""


def aws_iot() -> list[SeenRecord]:
    """Return presence events of AWS IoT."""
    records = []
    for one in moments([f"thing-{n}" for n in range(8)]):
        event: Event = {
            "clientId": one.device,
            "timestamp": one.time_ms,
            "eventType": "connected" if one.is_start else "disconnected",
            "sessionIdentifier": f"{one.session:032x}",
            "principalIdentifier": "12345678901234567890123456789012",
            "versionNumber": one.number,
        }
        if one.is_start:
            event["ipAddress"] = "192.0.2.1"
        else:
            event |= {"clientInitiatedDisconnect": True,
                      "disconnectReason": "CLIENT_INITIATED_DISCONNECT"}  # fmt: skip
        records.append(record(one.number, one.time_ms + DELAY_MS, event, one.device))
    return records


def emqx(version: int = 4) -> list[SeenRecord]:
    """Return client events of EMQX; the ends of older versions do not tell the start."""
    records = []
    for one in moments([f"c_{n}" for n in range(8)]):
        event: Event = {
            "username": f"user of {one.device}",
            "timestamp": one.time_ms,
            "sockname": "0.0.0.0:1883",
            "peername": "192.0.2.1:50123",
            "node": "emqx@127.0.0.1",
            "event": "client." + ("connected" if one.is_start else "disconnected"),
            "clientid": one.device,
        }
        if one.is_start:
            event |= {"connected_at": one.started_ms, "proto_name": "MQTT", "keepalive": 60,
                      "clean_start": True, "conn_props": {"User-Property": {}}}  # fmt: skip
        else:
            event |= {"reason": "normal", "disconnected_at": one.time_ms}
            if version >= 5:
                event["connected_at"] = one.started_ms
        records.append(record(one.number, one.time_ms + DELAY_MS, event))
    return records


def cloud_events(*, binary: bool = False) -> list[SeenRecord]:
    """Return CloudEvents, whose attributes are in the value or in headers."""
    records = []
    for one in moments([f"device-{n}" for n in range(8)]):
        data = {"sessionId": str(one.session), "title": "Astro"}
        attributes = {
            "specversion": "1.0",
            "type": f"com.example.session.{'started' if one.is_start else 'ended'}.v1",
            "source": "/players",
            "subject": one.device,
            "id": uuid(one.number),
            "time": iso(one.time_ms).replace("+00:00", "Z"),
        }
        headers = {f"ce_{name}": text for name, text in attributes.items()}
        records.append(
            record(one.number, one.time_ms, data, one.device, headers)
            if binary
            else record(one.number, one.time_ms, attributes | {"data": data}, one.device)
        )
    return records


def debezium() -> list[SeenRecord]:
    """Return change events of a table of sessions, each deleted row with its tombstone."""
    records = []
    for one in moments([f"d{n}" for n in range(8)]):
        row = {"id": one.session, "device_id": one.device, "account_id": 7,
               "started_at": one.started_ms * 1000}  # fmt: skip
        event = {
            "before": None if one.is_start else row,
            "after": row if one.is_start else None,
            "source": {"connector": "postgresql", "ts_ms": one.time_ms - 5, "table": "sessions",
                       "lsn": one.number * 100},
            "op": "c" if one.is_start else "d",
            "ts_ms": one.time_ms,
            "transaction": None,
        }  # fmt: skip
        key = json.dumps({"id": one.session})
        records.append(record(2 * one.number, one.time_ms + DELAY_MS, event, key))
        if not one.is_start:
            records.append(record(2 * one.number + 1, one.time_ms + DELAY_MS, None, key))
    return records


# By the name of a topic.
SAMPLES: dict[str, Callable[[], list[SeenRecord]]] = {
    "pc_sessions": reference,
    "console_sessions": lambda: reference("openPsid"),
    "iot-presence": aws_iot,
    "emqx": emqx,
    "cloud-events": cloud_events,
    "cloud.events.binary": lambda: cloud_events(binary=True),
    "pg.public.sessions": debezium,
}
