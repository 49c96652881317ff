"""The job of the demonstration: broker, fleet and flow.

The broker is the one that is built into librdkafka, in this process; the flow is a process of its
own, started as an operator would.
"""

import os
import signal
import subprocess
import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from dataflows.settings import Settings, environment
from heartwheel.demo.view import DemoView
from heartwheel.fleet import Fleet, Mix
from heartwheel.http.server import bind, url_of
from session_logic.codec import decode_output
from session_logic.errors import ConfigError

LANES = 4  # a topic of the built-in broker has 4 partitions
HEARTBEAT_MS = 2_000
MAX_SESSION_MS = 10_000
DEVICES = 400
EVENTS_PER_S = 60
STEP_S = 0.05
STOP_TIMEOUT_S = 25
# The built-in broker answers a fetch only when this is over, data or not.
FETCH_WAIT_MS = "10"


class DemoJob:
    """Broker, fleet and flow of one demonstration."""

    def __init__(self, folder: str) -> None:
        """Start the broker and the flow."""
        page = page_settings()
        self._producer = Producer(
            {"test.mock.num.brokers": "1", "linger.ms": "5", "log_level": "0"}
        )
        broker = next(iter(self._producer.list_topics(timeout=10).brokers.values()))
        address = f"{broker.host}:{broker.port}"
        variables = environment() | {
            "HEARTWHEEL_BOOTSTRAP_SERVERS": address,
            "HEARTWHEEL_LANES": str(LANES),
            "HEARTWHEEL_HEARTBEAT_MS": str(HEARTBEAT_MS),
            "HEARTWHEEL_MAX_SESSION_MS": str(MAX_SESSION_MS),
            "HEARTWHEEL_RECOVERY_DIR": os.path.join(folder, "recovery"),
            "HEARTWHEEL_HTTP_PORT": str(page.http_port),
            "HEARTWHEEL_KAFKA_LOG__LEVEL": "0",
            "HEARTWHEEL_LOG_LEVEL": "warning",
            "HEARTWHEEL_CONSUMER_FETCH_WAIT_MAX_MS": FETCH_WAIT_MS,
        }
        self._fleet = Fleet(
            self._producer, ["console-events", "pc-events"], Mix(devices=DEVICES), seed=1
        )
        for topic in ("console-events", "pc-events", "session-events", "dead-letters"):
            self._producer.list_topics(topic, timeout=10)  # appears on first use
        self._flow = subprocess.Popen(
            [sys.executable, "-m", "heartwheel.cli", "run"],
            env=variables,
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
        self.view = DemoView(url_of(page) if page.http_port else "")

    @property
    def sent(self) -> int:
        """How many events the fleet has sent."""
        return self._fleet.sent

    def running(self) -> bool:
        """Say whether the flow still runs."""
        return self._flow.poll() is None

    def step(self) -> None:
        """Send some events and take in what has come out."""
        self._fleet.step(round(EVENTS_PER_S * STEP_S))
        self._read()
        time.sleep(STEP_S)

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
        """Stop the flow cleanly, take in its last records and return its exit code."""
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
        return code


def page_settings() -> Settings:
    """Return where the status page is to be; port 0 if the usual one is taken."""
    settings = Settings()
    try:
        listener = bind(settings)
    except ConfigError:
        return Settings(http_port=0)
    if listener is not None:
        listener.close()
    return settings
