"""Silence that ends sessions, pings, and outages that are no silence, on a real Kafka."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest
from confluent_kafka import Producer
from msgspec import Struct

from session_logic.events import Heartbeat, OutputEvent, SessionActive, SessionEnd
from tests.support.broker import Broker, create_topics
from tests.support.cluster import Cluster
from tests.support.command import command
from tests.support.pages import page

IDLE_MS, PING_S, OUTAGE_S = 4_000, 0.5, 12
DEVICES = [f"p{number}" for number in range(20)]
LANES = 4
MUTE = "p-mute"
SETTINGS = {"HEARTWHEEL_IDLE_TIMEOUT_MS": str(IDLE_MS)}


@contextmanager
def pinging(cluster: Cluster, devices: list[str]) -> Iterator[None]:
    """Start a session on each device, and let all ping until the end; pings may be lost."""
    options = {"bootstrap.servers": cluster.address, "message.timeout.ms": 1_000, "log_level": "0"}
    producer, over = Producer(options), Event()

    def ping() -> None:
        while not over.wait(PING_S):
            for device in devices:
                event = {"type": "GamePing", "device_id": device, "session_id": f"s-{device}"}
                producer.produce(cluster.pc, json.dumps(event), device)
            producer.poll(0)

    for device in devices:
        cluster.send("Start", device, f"s-{device}")
    cluster.flush()
    thread = Thread(target=ping)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        producer.flush(2)


def of_device(cluster: Cluster, device: str) -> list[OutputEvent]:
    """Return the records of a device."""
    return [event for event in cluster.events() if event.device_id == device]


def silent(cluster: Cluster) -> dict[str, SessionEnd]:
    """Return the ends of silent sessions, by device; each device has one session."""
    return {
        event.device_id: event
        for event in cluster.events()
        if isinstance(event, SessionEnd) and event.reason == "went_silent"
    }


def check_end(end: SessionEnd) -> None:
    """Check that an end is one timeout after what was last heard, and not in the middle."""
    assert isinstance(end.last_seen_ms, int)
    assert end.time_ms == end.last_seen_ms + IDLE_MS
    assert end.duration_ms == end.last_seen_ms - end.started_ms


def test_device_that_says_nothing_ends_and_one_that_pings_goes_on(cluster: Cluster) -> None:
    """Through a kill as well, right after the end: each record is there once."""
    # With `latest` a replay does not know which heartbeat was the newest when a run was back.
    cluster.variables["HEARTWHEEL_CATCH_UP"] = "all"
    flow = cluster.start(**SETTINGS)
    with pinging(cluster, DEVICES):
        cluster.send("Start", MUTE, "s-mute")
        cluster.flush()
        cluster.wait("the silent end", lambda: MUTE in silent(cluster))
        flow.kill()
        flow.wait()
        again = cluster.start(**SETTINGS)
        cluster.wait("lanes", lambda: cluster.errors(again).count("restored") == LANES, 60)
        time.sleep(IDLE_MS / 1000)
        ends = silent(cluster)
        assert list(ends) == [MUTE]
        check_end(ends[MUTE])
    active, *beats, end = of_device(cluster, MUTE)
    assert isinstance(active, SessionActive)
    sequences = [beat.sequence for beat in beats if isinstance(beat, Heartbeat)]
    assert sequences == sorted(set(sequences))
    assert len(sequences) == len(beats) == len(set(sequences))
    assert end == ends[MUTE]
    cluster.wait("the ends of all", lambda: silent(cluster).keys() == {*DEVICES, MUTE})
    again.terminate()
    assert again.wait(30) == 0
    recording = str(cluster.folder / "run.recording")
    variables = cluster.variables | SETTINGS
    assert command("record", recording, **variables).returncode == 0
    checked = command("replay", recording, "--check")
    assert checked.returncode == 0, checked
    assert "differences 0" in checked.stdout


def test_stopped_run_ends_nobody_falsely_and_who_was_silent_later(cluster: Cluster) -> None:
    """A partition may have been away meanwhile, so silence begins anew when the run is back."""
    flow = cluster.start(**SETTINGS)
    with pinging(cluster, DEVICES):
        cluster.wait("the sessions", lambda: len(cluster.sessions()) == len(DEVICES))
        cluster.send("Start", MUTE, "s-mute")
        cluster.flush()
        cluster.wait("one more", lambda: of_device(cluster, MUTE))
        flow.terminate()
        assert flow.wait(30) == 0
        time.sleep(2 * IDLE_MS / 1000)
        back_ms = int(time.time() * 1000)
        cluster.start(**SETTINGS)
        cluster.wait("the silent end", lambda: MUTE in silent(cluster))
        time.sleep(IDLE_MS / 1000)
        ends = silent(cluster)
        assert list(ends) == [MUTE]
        assert ends[MUTE].time_ms > back_ms + IDLE_MS


@pytest.mark.usefixtures("kafka_libs")
def test_stopped_broker_ends_nobody_falsely(tmp_path: Path) -> None:
    """Nobody could be heard, so silence begins anew when the broker is back."""
    broker = Broker(tmp_path / "kafka")
    broker.start()
    cluster = Cluster(broker.address, tmp_path, "silence")
    try:
        flow = cluster.start(HEARTWHEEL_IDLE_TIMEOUT_MS=str(OUTAGE_S * 1000))
        with pinging(cluster, DEVICES):
            cluster.wait("the sessions", lambda: len(cluster.sessions()) == len(DEVICES))
            cluster.send("Start", MUTE, "s-mute")  # only now, so that its time is not over before
            cluster.flush()
            cluster.wait("the session", lambda: len(cluster.sessions()) == len(DEVICES) + 1)
            broker.stop()
            time.sleep(OUTAGE_S)
            broker.start()
            back_ms = int(time.time() * 1000)
            cluster.wait("the silent end", lambda: MUTE in silent(cluster), 60)
            ends = silent(cluster)
            assert list(ends) == [MUTE]
            assert ends[MUTE].time_ms > back_ms
        assert flow.poll() is None
    finally:
        cluster.end()
        broker.stop()


class SetUp(Struct):
    """A record that a set-up of the page reads, and what its sessions are then."""

    topic: str
    value: dict[str, object]
    headers: list[tuple[str, bytes]]
    platform: str
    context: dict[str, object] | None


SET_UPS = {
    "mqtt": SetUp(
        "mqtt-presence",
        {"event": "connected", "clientid": "d", "connection": 7, "site": "berlin", "ts": "NOW"},
        [],
        "berlin",
        None,
    ),
    "web": SetUp(
        "page-views",
        {"visitor": "d", "at": "ISO", "url": "/a"},
        [],
        "web",
        {"landing_page": "/a"},
    ),
    "machines": SetUp(
        "machine-reports", {"temperature": 21.5}, [("line", b"4")], "machine", {"line": "4"}
    ),
}


@pytest.mark.parametrize("number", range(len(SET_UPS)), ids=list(SET_UPS))
def test_set_up_of_the_page_runs_as_it_stands(cluster: Cluster, number: int) -> None:
    """Its records begin a session that silence ends; only the timeout is made short."""
    set_up = list(SET_UPS.values())[number]
    text = page("presence.md").blocks("toml")[number]
    config = cluster.folder / "heartwheel.toml"
    before = text.partition("idle_timeout_ms = ")[2].partition("\n")[0]
    config.write_text(text.replace(f"idle_timeout_ms = {before}", f"idle_timeout_ms = {IDLE_MS}"))
    create_topics(cluster.admin, {set_up.topic: 2}, 1)
    del cluster.variables["HEARTWHEEL_INPUT_TOPICS"]
    if "heartbeat_ms" in text:
        del cluster.variables["HEARTWHEEL_HEARTBEAT_MS"]
    cluster.start(HEARTWHEEL_CONFIG=str(config))
    now_ms = int(time.time() * 1000)
    moments = {"NOW": now_ms, "ISO": f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}"}
    value = {name: moments.get(str(one), one) for name, one in set_up.value.items()}
    where = set_up.topic, 0
    cluster.send_raw(json.dumps(value).encode(), "d", where=where, headers=set_up.headers)
    cluster.flush()
    cluster.wait("the silent end", lambda: silent(cluster))
    first, *_, last = of_device(cluster, "d")
    assert isinstance(first, SessionActive)
    assert isinstance(last, SessionEnd)
    check_end(last)
    assert first.platform == set_up.platform
    context = json.loads(bytes(first.context)) if first.context else None  # type: ignore[arg-type]
    assert context == set_up.context
