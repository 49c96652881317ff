"""Topics in Avro and in framed JSON, on a real Kafka with a real schema registry."""

import json
import signal
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from dataflows.kafka.parking import MAX_HELD
from heartwheel.recording.reader import Recording
from session_logic.events import Heartbeat, OutputEvent, SessionActive, SessionEnd
from tests.support.avro import framed
from tests.support.cluster import Cluster
from tests.support.endpoint import STOP_S, get, start
from tests.support.registry import RealRegistry
from tests.support.scrape import Metrics

# A registry is got and started, and killed twice.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(360)]

BACKLOG = 2 * MAX_HELD
TABLES = """
[inputs.{pc}]
format = "avro"
platform = "pc"
type = "kind"
start = "START"
end = "END"
device = ["device", "device_id"]
session = "session"
time = "at"

[inputs.{console}]
format = "json_sr"
platform = "console"
type = "kind"
start = "START"
end = "END"
device = "device"
session = "session"
"""
KIND = {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["START", "END"]}}
SESSION = {"name": "session", "type": "long"}
AT = {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}
OLD = {
    "type": "record",
    "name": "Event",
    "namespace": "example",
    "fields": [KIND, {"name": "device_id", "type": "string"}, SESSION, AT],
}
# A field was renamed, and one was added.
NEW = OLD | {
    "fields": [
        KIND,
        {"name": "title", "type": ["null", "string"], "default": None},
        {"name": "device", "type": "string", "aliases": ["device_id"]},
        SESSION,
        AT,
    ]
}
JSON_SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "properties": {"kind": {"type": "string"}},
}


class Sender:
    """Sends events of both schemas to one partition, so that they are read in order."""

    def __init__(self, cluster: Cluster, registry: RealRegistry) -> None:
        subject = f"{cluster.pc}-value"
        self._cluster = cluster
        self.old, self.new = registry.register(subject, OLD), registry.register(subject, NEW)
        self.json = registry.register(f"{cluster.console}-value", JSON_SCHEMA, schemaType="JSON")

    def send(self, value: bytes) -> None:
        """Send any bytes."""
        self._cluster.send_raw(value, "key", where=(self._cluster.pc, 0))

    def send_old(self, kind: str, device: str, session: int, time_ms: int) -> None:
        """Send an event by the first schema."""
        value = {"kind": kind, "device_id": device, "session": session, "at": time_ms}
        self.send(framed(self.old, OLD, value))

    def send_new(self, kind: str, device: str, session: int, time_ms: int) -> None:
        """Send an event by the second schema."""
        value = {"kind": kind, "device": device, "session": session, "at": time_ms, "title": "x"}
        self.send(framed(self.new, NEW, value))

    def send_json(self, kind: str, device: str, session: int) -> None:
        """Send an event in framed JSON."""
        event = {"kind": kind, "device": device, "session": session}
        value = b"\0" + self.json.to_bytes(4, "big") + json.dumps(event).encode()
        self._cluster.send_raw(value, device, where=(self._cluster.console, -1))


@pytest.fixture
def sender(cluster: Cluster, registry: RealRegistry) -> Sender:
    """Return a sender; runs read its topics by tables."""
    config = cluster.folder / "heartwheel.toml"
    config.write_text(TABLES.format(pc=cluster.pc, console=cluster.console))
    del cluster.variables["HEARTWHEEL_INPUT_TOPICS"]
    cluster.variables["HEARTWHEEL_CONFIG"] = str(config)
    cluster.variables["HEARTWHEEL_REGISTRY_URL"] = registry.url
    return Sender(cluster, registry)


def now_ms() -> int:
    return int(time.time() * 1000)


def is_whole(records: list[OutputEvent]) -> bool:
    """Say whether a session has its start, each heartbeat in turn, and its end or none yet."""
    first, *beats = records
    if beats and isinstance(beats[-1], SessionEnd):
        beats.pop()
    return isinstance(first, SessionActive) and all(
        isinstance(beat, Heartbeat) and beat.sequence == number
        for number, beat in enumerate(beats, 1)
    )


def test_events_in_avro_and_framed_json_become_sessions(
    cluster: Cluster, sender: Sender, registry: RealRegistry
) -> None:
    """While the schema changes; the time is the event's, and each bad record has its reason.

    A recording of it is replayed to the same output without a registry.
    """
    flow = cluster.start(HEARTWHEEL_CATCH_UP="all")
    begun_ms = now_ms() - 1_500
    sender.send_old("START", "d1", 11, begun_ms)
    sender.send_new("START", "d2", 22, begun_ms + 1)
    sender.send_json("START", "d3", 33)
    good = framed(sender.old, OLD, {"kind": "START", "device_id": "x", "session": 1, "at": 1})
    bad = {
        "unknown_schema": [b"\0\x7f\xff\xff\xff" + good[5:]],
        "not_avro": [
            good[:-1],
            good + b"\0",
            b"\0" + sender.json.to_bytes(4, "big") + good[5:],
            b"\xff\xfe garbage",
            b'{"kind":"START"}',
        ],
    }
    for values in bad.values():
        for value in values:
            sender.send(value)
    sender.send_new("END", "d1", 11, begun_ms + 1_200)
    cluster.flush()

    def arrived() -> bool:
        sessions = cluster.sessions()
        ended = isinstance(sessions.get("11", [None])[-1], SessionEnd)
        return ended and all(len(sessions.get(session, [])) > 2 for session in ("22", "33"))

    cluster.wait("sessions", arrived)
    sessions = cluster.sessions()
    assert sessions["11"][0] == SessionActive("d1", "11", "pc", begun_ms, begun_ms)
    end = sessions["11"][-1]
    assert isinstance(end, SessionEnd)
    assert (end.reason, end.duration_ms) == ("ended", 1_200)
    assert sessions["22"][0].time_ms == begun_ms + 1
    assert sessions["33"][0].platform == "console"
    assert all(map(is_whole, sessions.values()))
    count = sum(map(len, bad.values()))
    cluster.wait("dead letters", lambda: len(cluster.read(cluster.letters)) == count)
    letters = cluster.read(cluster.letters)
    reasons = Counter(letter.headers["heartwheel.reason"].decode() for letter in letters)
    assert reasons == Counter({reason: len(values) for reason, values in bad.items()})
    details = b"\n".join(letter.headers["heartwheel.detail"] for letter in letters)
    assert b"has no schema 2147483647" in details
    assert b"is JSON, not AVRO" in details
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(STOP_S) == 0, cluster.errors(flow)

    recording = str(cluster.folder / "recording")
    recorder = cluster.start("record", recording, HEARTWHEEL_CATCH_UP="all")
    assert recorder.wait(STOP_S) == 0, cluster.errors(recorder)
    schemas = Recording(Path(recording)).manifest.schemas
    assert schemas.keys() == {str(sender.old), str(sender.new), str(sender.json)}
    registry.kill()
    replayed = cluster.start("replay", recording, "--check")
    assert replayed.wait(STOP_S) == 0, cluster.errors(replayed)


def test_records_wait_for_a_registry_that_is_away(
    cluster: Cluster, sender: Sender, registry: RealRegistry
) -> None:
    """The process lives and says what it waits for; a stop, a kill and a return lose nothing.

    More waits than is fetched of such a partition, and the events of another one go on.
    """
    flow, port = start(cluster)
    begun_ms = now_ms()
    sender.send_old("START", "d1", 11, begun_ms)
    cluster.flush()
    cluster.wait("a session", lambda: "11" in cluster.sessions())
    registry.kill()
    sender.send_new("START", "d2", 22, begun_ms + 1)
    sender.send_old("END", "d1", 11, now_ms())
    for number in range(BACKLOG):
        sender.send_old("END", f"other-{number}", number, now_ms())
    sender.send_json("START", "d3", 33)
    cluster.flush()
    cluster.wait("a warning", lambda: "waiting for the schema registry" in cluster.errors(flow))
    cluster.wait("a session of another topic", lambda: "33" in cluster.sessions())
    cluster.wait("its word", lambda: "waiting for schema" in str(get(port, "/readyz")[1]))
    assert get(port, "/readyz")[0] == 503
    cluster.wait_for_renewals(3)  # the lease goes on
    assert get(port, "/livez") == (200, "ok\n")
    assert Metrics(port).of("awaited_schemas") == 1
    assert Metrics(port).of("registry_failures_total") >= 1
    assert "22" not in cluster.sessions()
    begin_s = time.monotonic()
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(STOP_S) == 0, cluster.errors(flow)
    assert time.monotonic() - begin_s < STOP_S

    killed = cluster.start()
    cluster.wait("a warning", lambda: "waiting for the schema registry" in cluster.errors(killed))
    killed.kill()
    killed.wait()
    flow, port = start(cluster)
    cluster.wait("a warning", lambda: "waiting for the schema registry" in cluster.errors(flow))
    assert "22" not in cluster.sessions()
    registry.start()
    cluster.wait("the other session", lambda: len(cluster.sessions().get("22", [])) > 2, 60)
    cluster.wait("readiness", lambda: get(port, "/readyz")[0] == 200)
    sender.send_new("END", "d2", 22, now_ms())
    cluster.flush()
    cluster.wait("its end", lambda: isinstance(cluster.sessions()["22"][-1], SessionEnd))
    sessions = cluster.sessions()
    assert isinstance(sessions["11"][-1], SessionEnd)
    assert sessions["22"][0] == SessionActive("d2", "22", "pc", begun_ms + 1, begun_ms + 1)
    for records in sessions.values():
        assert len({(type(record), getattr(record, "sequence", 0)) for record in records}) == len(
            records
        )
        assert all(before.time_ms <= after.time_ms for before, after in pairwise(records))
    assert cluster.read(cluster.letters) == []
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(STOP_S) == 0, cluster.errors(flow)
