"""The job of the demonstration: broker, fleet and flow.

The broker is the one that is built into librdkafka, in this process; the flow is a process of its
own, started as an operator would.
"""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from msgspec import Struct
from rich.panel import Panel

from dataflows.settings import Settings
from dataflows.settings_sources import environment, load_settings
from heartwheel import presence, reference
from heartwheel.event_writer import writers_of
from heartwheel.fleet import Fleet, Mix, Names
from heartwheel.http.listener import bind, url_of
from heartwheel.pinging_fleet import PingingFleet
from heartwheel.views.demo import DemoView
from session_logic.codec import decode_output
from session_logic.errors import ConfigError

LANES = 4  # a topic of the built-in broker has 4 partitions
HEARTBEAT_MS = 2_000
DEVICES = 400
EVENTS_PER_S = 60
MAX_PRESENCE_MS = 600_000
STEP_S = 0.05
STOP_TIMEOUT_S = 25
BROKER_WAIT_S = 30
# The built-in broker answers a fetch only when this is over, data or not.
FETCH_WAIT_MS = "10"


class Scene(Struct, frozen=True, kw_only=True):
    """What is shown: settings with input tables, or none for our own format, ids, and timeouts.

    With examples, records are shown as they go in and as they come out. Devices that ping do not
    end every session.
    """

    settings: str = ""
    names: Names = Names()
    heartbeat_ms: int = HEARTBEAT_MS
    max_session_ms: int
    examples: bool = False
    pings: bool = False


OWN_EVENTS = Scene(max_session_ms=10_000)
REFERENCE_EVENTS = Scene(
    settings=reference.TABLES,
    names=reference.NAMES,
    max_session_ms=reference.MAX_SESSION_MS,
    examples=True,
)


PRESENCE = {
    kind: Scene(
        settings=set_up.shown(),
        names=set_up.names,
        heartbeat_ms=0 if "heartbeat_ms = 0" in set_up.settings else HEARTBEAT_MS,
        max_session_ms=MAX_PRESENCE_MS,
        pings=True,
    )
    for kind, set_up in presence.SET_UPS.items()
}


class Example(NamedTuple):
    """A record that went in, and the one that came of it."""

    topic: str
    value: bytes
    output: bytes


class DemoJob:
    """Broker, fleet and flow of one demonstration; its view has what came out."""

    def __init__(self, folder: Path, scene: Scene = OWN_EVENTS) -> None:
        """Start the broker and the flow."""
        self._scene = scene
        self._log = folder / "flow.log"
        page = page_settings()
        self._producer = Producer(
            {"test.mock.num.brokers": "1", "linger.ms": "5", "log_level": "0"}
        )
        broker = next(iter(self._producer.list_topics(timeout=BROKER_WAIT_S).brokers.values()))
        address = f"{broker.host}:{broker.port}"
        config = folder / "heartwheel.toml"
        config.write_text(scene.settings)
        ours = {
            "HEARTWHEEL_CONFIG": str(config),
            "HEARTWHEEL_BOOTSTRAP_SERVERS": address,
            "HEARTWHEEL_LANES": str(LANES),
            "HEARTWHEEL_HEARTBEAT_MS": str(scene.heartbeat_ms),
            "HEARTWHEEL_MAX_SESSION_MS": str(scene.max_session_ms),
            "HEARTWHEEL_RECOVERY_DIR": str(folder / "recovery"),
            "HEARTWHEEL_HTTP_PORT": str(page.http_port),
            "HEARTWHEEL_KAFKA_LOG__LEVEL": "0",
            "HEARTWHEEL_LOG_LEVEL": "warning",
            "HEARTWHEEL_CONSUMER_FETCH_WAIT_MAX_MS": FETCH_WAIT_MS,
        }
        writers = writers_of(load_settings(ours))
        self._fleet: Fleet
        if scene.pings:
            self._fleet = PingingFleet(self._producer, writers, DEVICES, 1, scene.names)
        else:
            self._fleet = Fleet(self._producer, writers, Mix(devices=DEVICES), 1, scene.names)
        for topic in (*writers, "session-events", "dead-letters"):
            self._producer.list_topics(topic, timeout=BROKER_WAIT_S)  # appears on first use
        self._flow = subprocess.Popen(
            [sys.executable, "-m", "heartwheel.cli", "run"],
            env=environment() | ours,
            stderr=self._log.open("wb"),  # the live view has the terminal
            start_new_session=True,  # Ctrl-C is for the demo, which then stops the flow
        )
        self._consumer = Consumer(
            {
                "bootstrap.servers": address,
                "group.id": "demo",
                "log_level": "0",
                "fetch.wait.max.ms": FETCH_WAIT_MS,
            }
        )
        self._consumer.assign(
            [
                TopicPartition(topic, partition, OFFSET_BEGINNING)
                for topic in ("session-events", "dead-letters")
                for partition in range(LANES)
            ]
        )
        self.view = DemoView(url_of(page))

    def step(self) -> bool:
        """Send some events, then read what has come out; False if the flow has ended."""
        self._fleet.step(round(EVENTS_PER_S * STEP_S))
        self._read()
        time.sleep(STEP_S)
        return self._flow.poll() is None

    def line(self) -> str:
        """Return the numbers in one line."""
        return self.view.line(self._fleet.sent)

    def render(self, seconds: float) -> Panel:
        """Return the live view."""
        return self.view.render(
            self._fleet.sent, seconds, self._scene.heartbeat_ms, self.examples()[-1:]
        )

    def examples(self) -> list[Example]:
        """Return the newest start and the newest end of which both records are known, in order."""
        if not self._scene.examples:
            return []
        recent = {(one.event.is_start, one.event.session_id): one for one in self._fleet.recent}
        examples = []
        for kind, is_start in (("SessionActive", True), ("SessionEnd ended", False)):
            pairs = [
                Example(came_from.topic, came_from.record.value, value)
                for output, value in self.view.last[kind]
                if (came_from := recent.get((is_start, output.session_id)))
            ]
            examples += pairs[-1:]
        return examples

    def _read(self) -> None:
        for message in self._consumer.consume(5_000, 0):
            if message.error() is not None:
                continue
            if message.topic() == "dead-letters":
                self.view.counts["dead letter"] += 1
            else:
                value = message.value() or b""
                self.view.add(decode_output(value), message.timestamp()[1], value)

    def stop(self) -> int:
        """Stop the flow cleanly, read its last records, and return its exit code.

        What the flow had to say is on stderr then.
        """
        self._producer.flush(5)
        self._flow.send_signal(signal.SIGTERM)
        try:
            code = self._flow.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._flow.kill()
            code = self._flow.wait()
        time.sleep(0.2)
        self._read()
        self._consumer.close()
        sys.stderr.write(self._log.read_text())
        return code


def page_settings() -> Settings:
    """Return the settings of the status page: the usual port, or a free one if that is taken."""
    for settings in (Settings(), Settings(http_port=_free_port())):
        try:
            listener = bind(settings)
        except ConfigError:
            continue
        if listener is not None:
            listener.close()
        return settings
    return settings


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
