"""The demonstration: the whole job on the broker that is built into librdkafka."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from dataflows.settings import Settings, environment
from heartwheel.fleet import Fleet, Mix
from heartwheel.http.server import bind, url_of
from session_logic.codec import decode_output
from session_logic.errors import ConfigError
from session_logic.events import OutputEvent, SessionActive, SessionEnd

LANES = 4  # a topic of the built-in broker has 4 partitions
HEARTBEAT_MS = 2_000
MAX_SESSION_MS = 10_000
DEVICES = 400
EVENTS_PER_S = 60
STEP_S = 0.05
LINE_S = 2.0  # between the plain lines that are shown without a terminal
SHOWN = 3
STOP_TIMEOUT_S = 25
# The built-in broker answers a fetch only when this is over, data or not.
FETCH_WAIT_MS = "10"
KINDS = (
    "SessionActive",
    "Heartbeat",
    "SessionEnd ended",
    "SessionEnd replaced",
    "SessionEnd timed_out",
)


class Screen:
    """What has been seen of the output, and how to show it."""

    def __init__(self, url: str) -> None:
        """Begin with nothing seen; url is that of the status page, if there is one."""
        self.url = url
        self.active = 0
        self._begin_ms = 0
        self.counts: Counter[str] = Counter()
        self.latency_ms: dict[str, deque[int]] = {}
        self.last: dict[str, deque[str]] = {kind: deque(maxlen=SHOWN) for kind in KINDS}

    def add(self, event: OutputEvent, stamped_ms: int, value: bytes) -> None:
        """Take in a record that Kafka has stamped."""
        kind = type(event).__name__
        self._begin_ms = self._begin_ms or stamped_ms
        if event.time_ms > self._begin_ms:  # what was sent while the flow started says nothing
            delays = self.latency_ms.setdefault(kind, deque(maxlen=5_000))
            delays.append(stamped_ms - event.time_ms)
        if isinstance(event, SessionActive):
            self.active += 1
        elif isinstance(event, SessionEnd):
            self.active -= 1
            kind = f"{kind} {event.reason}"
        self.counts[kind] += 1
        self.last[kind].append(value.decode())

    def latency(self, kind: str) -> str:
        """Return p50 / p99 of a kind in ms."""
        delays = sorted(self.latency_ms.get(kind, ()))
        if not delays:
            return "-"
        return f"{delays[len(delays) // 2]} / {delays[len(delays) * 99 // 100]} ms"

    def line(self, sent: int) -> str:
        """Return everything in one line."""
        return (
            f"active {self.active}  events in {sent}  heartbeats out {self.counts['Heartbeat']}  "
            f"SessionActive p50/p99 {self.latency('SessionActive')}  "
            f"Heartbeat p50/p99 {self.latency('Heartbeat')}  "
            f"ended {self.counts['SessionEnd ended']}  "
            f"replaced {self.counts['SessionEnd replaced']}  "
            f"timed out {self.counts['SessionEnd timed_out']}  "
            f"dead letters {self.counts['dead letter']}"
        )

    def page(self) -> str:
        """Return where the status page is, to be put behind a line."""
        return f"  status page {self.url}" if self.url else ""

    def picture(self, sent: int, seconds: float) -> Panel:
        """Return the live view."""
        numbers = Table.grid(padding=(0, 3))
        for _ in range(4):
            numbers.add_column()
        rows = [
            (
                "active sessions",
                str(self.active),
                "SessionActive p50 / p99",
                self.latency("SessionActive"),
            ),
            ("events in", str(sent), "Heartbeat p50 / p99", self.latency("Heartbeat")),
            (
                "heartbeats out",
                str(self.counts["Heartbeat"]),
                "dead letters",
                str(self.counts["dead letter"]),
            ),
        ]
        for row in rows:
            numbers.add_row(row[0], Text(row[1], "bold cyan"), row[2], Text(row[3], "bold cyan"))
        records = Table(box=None, padding=(0, 1), show_header=False, expand=True)
        records.add_column(no_wrap=True, min_width=13)
        records.add_column(no_wrap=True, min_width=6, justify="right")
        records.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for kind in KINDS:
            label = kind.removeprefix("SessionEnd ").replace("_", " ")
            for index in range(SHOWN):
                shown = list(self.last[kind])
                text = shown[index] if index < len(shown) else ""
                first = (label, str(self.counts[kind])) if index == 0 else ("", "")
                records.add_row(Text(first[0], "bold"), Text(first[1], "cyan"), Text(text, "dim"))
        every_s = HEARTBEAT_MS // 1000
        title = f"Heartwheel demo, {seconds:.0f} s, heartbeat every {every_s} s, Ctrl-C ends it"
        return Panel(
            Group(numbers, Text(""), records),
            title=title,
            title_align="left",
            subtitle=self.page().strip() or None,
        )


class Demo:
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
        self.screen = Screen(url_of(page) if page.http_port else "")

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
                self.screen.counts["dead letter"] += 1
            else:
                value = message.value() or b""
                self.screen.add(decode_output(value), message.timestamp()[1], value)

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


def demo(seconds: float | None) -> int:
    """Run the demonstration for some seconds, or until Ctrl-C; return the exit code."""
    console = Console()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="heartwheel-demo-") as folder:
        shown = Demo(folder)
        live = Live(console=console, refresh_per_second=8) if console.is_terminal else None
        try:
            _watch(shown, live, seconds, begin)
        except KeyboardInterrupt:
            pass
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave the flow
            code = shown.stop()
    summary = f"{shown.screen.line(shown.sent)}{shown.screen.page()}"
    console.print(summary, style="bold", soft_wrap=True, highlight=False, markup=False)
    for kind in KINDS:
        for value in list(shown.screen.last[kind])[-1:]:
            console.print(
                json.dumps(json.loads(value)), soft_wrap=True, highlight=False, style="dim"
            )
    return code


def _watch(shown: Demo, live: Live | None, seconds: float | None, begin: float) -> None:
    last_line = begin
    if live is not None:
        live.start()
    try:
        while shown.running() and (seconds is None or time.monotonic() - begin < seconds):
            shown.step()
            now = time.monotonic()
            if live is not None:
                live.update(shown.screen.picture(shown.sent, now - begin))
            elif now - last_line >= LINE_S:
                last_line = now
                line = f"{shown.screen.line(shown.sent)}{shown.screen.page()}"
                print(f"{now - begin:5.1f} s  {line}", flush=True)
    finally:
        if live is not None:
            live.stop()
