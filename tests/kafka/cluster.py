"""Heartwheel processes on a real Kafka, with topics of their own."""

import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from msgspec import Struct

from session_logic.codec import decode_output
from session_logic.events import Heartbeat, OutputEvent, SessionActive
from tests.broker import ROOT, create_topics, environment

WAIT_S = 30


class Record(Struct, frozen=True):
    """A record as a plain consumer reads it."""

    partition: int
    offset: int
    time_ms: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]


class Cluster:
    """Topics with names of their own, and the processes that work on them."""

    def __init__(self, address: str, folder: Path, name: str) -> None:
        """Make the topics."""
        self.address = address
        self.folder = folder
        self.console, self.pc = f"{name}-console", f"{name}-pc"
        self.output, self.letters = f"{name}-out", f"{name}-letters"
        self.admin = AdminClient({"bootstrap.servers": address})
        create_topics(self.admin, {self.console: 2, self.pc: 2, self.output: 4, self.letters: 1})
        self._producer = Producer({"bootstrap.servers": address, "partitioner": "consistent"})
        self._processes: list[subprocess.Popen[str]] = []
        self.variables = {
            "HEARTWHEEL_BOOTSTRAP_SERVERS": address,
            "HEARTWHEEL_INPUT_TOPICS": f"{self.console}=console,{self.pc}=pc",
            "HEARTWHEEL_OUTPUT_TOPIC": self.output,
            "HEARTWHEEL_DEAD_LETTER_TOPIC": self.letters,
            "HEARTWHEEL_RECOVERY_DIR": str(folder / "recovery"),
            "HEARTWHEEL_HEARTBEAT_MS": "1000",
        }

    def start(
        self, *arguments: str, command: str = "dataflows.cli", **variables: str
    ) -> subprocess.Popen[str]:
        """Start a process; its standard error goes to a file, for `errors`."""
        log = (self.folder / f"log-{len(self._processes)}").open("w")
        process = subprocess.Popen(
            [sys.executable, "-m", command, *(arguments or ("run",))],
            env=environment() | self.variables | variables,
            stderr=log,
            cwd=ROOT,
            text=True,
        )
        log.close()
        self._processes.append(process)
        return process

    def errors(self, process: subprocess.Popen[str]) -> str:
        """Return what a process has written to standard error."""
        return (self.folder / f"log-{self._processes.index(process)}").read_text()

    def end(self) -> None:
        """Kill what still runs."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait()

    def send(self, kind: str, device: str, session: str, time_ms: int = 0) -> None:
        """Send an event, to the console topic for devices that begin with c."""
        value = f'{{"type":"Game{kind}","device_id":"{device}","session_id":"{session}"}}'
        self.send_raw(value.encode(), device, time_ms)

    def send_raw(self, value: bytes | None, key: str, time_ms: int = 0) -> None:
        """Send any bytes."""
        topic = self.console if key.startswith("c") else self.pc
        while True:
            try:
                self._producer.produce(topic, value, key, timestamp=time_ms)
            except BufferError:
                self._producer.poll(0.01)
            else:
                break
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until everything sent has arrived."""
        assert self._producer.flush(60) == 0

    def read(self, topic: str) -> list[Record]:
        """Return every record of a topic, partition by partition."""
        consumer = Consumer(
            {"bootstrap.servers": self.address, "group.id": "test", "enable.partition.eof": True}
        )
        records = []
        for partition in consumer.list_topics(topic, timeout=10).topics[topic].partitions:
            consumer.assign([TopicPartition(topic, partition, 0)])
            while (message := consumer.poll(10)) is not None and message.error() is None:
                records.append(
                    Record(
                        partition,
                        message.offset(),
                        message.timestamp()[1],
                        message.key(),
                        message.value(),
                        dict(message.headers() or []),
                    )
                )
        consumer.close()
        return records

    def events(self) -> list[OutputEvent]:
        """Return the output; each record must have its device as key."""
        events = []
        for record in self.read(self.output):
            event = decode_output(record.value or b"")
            assert record.key == event.device_id.encode()
            events.append(event)
        return events

    def sessions(self) -> dict[str, list[OutputEvent]]:
        """Return the output by session, each in the order of the topic."""
        sessions: defaultdict[str, list[OutputEvent]] = defaultdict(list)
        for event in self.events():
            sessions[event.session_id].append(event)
        return dict(sessions)

    def wait(self, what: str, condition: Callable[[], object], seconds: float = WAIT_S) -> None:
        """Wait until a condition holds; fails with what was waited for."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
            time.sleep(0.1)


def kinds(events: list[OutputEvent]) -> list[str]:
    """Return what events are, in short: active, beat 1, end ended."""
    words = []
    for event in events:
        if isinstance(event, SessionActive):
            words.append("active")
        elif isinstance(event, Heartbeat):
            words.append(f"beat {event.sequence}")
        else:
            words.append(f"end {event.reason}")
    return words
