"""Heartwheel processes on a real Kafka, with topics of their own."""

import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
)
from msgspec import Struct
from msgspec.json import decode

from dataflows.kafka.lease_record import Held
from dataflows.settings_sources import environment
from session_logic.codec import decode_output
from session_logic.events import OutputEvent
from tests.support.broker import ROOT, create_topics
from tests.support.waiting import without_waits

WAIT_S = 30
INPUT_PARTITIONS = 2
SENDER = {
    "partitioner": "consistent",
    "log_level": "0",
    # A sender that soon finds the brokers that are there.
    "reconnect.backoff.max.ms": "1000",
    "topic.metadata.refresh.interval.ms": "2000",
    "socket.timeout.ms": "10000",
}


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

    def __init__(
        self,
        address: str,
        folder: Path,
        name: str,
        *,
        lanes: int = 4,
        heartbeat_ms: int = 1_000,
        replicas: int = 1,
        topic_config: dict[str, str] | None = None,
        input_partitions: int = INPUT_PARTITIONS,
        partitioner: str = "consistent",
    ) -> None:
        """Make the topics."""
        self.address = address
        self.folder = folder
        self.console, self.pc = f"{name}-console", f"{name}-pc"
        self.inputs = {self.console: "console", self.pc: "pc"}
        self.output, self.letters = f"{name}-out", f"{name}-letters"
        self.heartbeat_topics: list[str] = []  # that runs have had
        self.admin = AdminClient({"bootstrap.servers": address, "log_level": "0"})
        partitions = {
            self.console: input_partitions,
            self.pc: input_partitions,
            self.output: lanes,
            self.letters: 1,
        }
        self.replicas = replicas
        self.input_partitions = input_partitions
        self.devices_moved = False  # whether some have events in several partitions, one by one
        self.outages = False  # whether Kafka is away at times, which is no silence of devices
        create_topics(self.admin, partitions, replicas, **(topic_config or {}))
        self._producer = Producer(
            SENDER | {"bootstrap.servers": address, "partitioner": partitioner}
        )
        self._processes: list[subprocess.Popen[str]] = []
        self._counter = self._reader()
        self._lanes = [TopicPartition(self.output, lane) for lane in range(lanes)]
        self._count = 0
        self.variables = {
            "HEARTWHEEL_BOOTSTRAP_SERVERS": address,
            "HEARTWHEEL_INPUT_TOPICS": f"{self.console}=console,{self.pc}=pc",
            "HEARTWHEEL_OUTPUT_TOPIC": self.output,
            "HEARTWHEEL_DEAD_LETTER_TOPIC": self.letters,
            "HEARTWHEEL_LANES": str(lanes),
            "HEARTWHEEL_LOG_FORMAT": "text",
            "HEARTWHEEL_RECOVERY_DIR": str(folder / "recovery"),
            "HEARTWHEEL_HEARTBEAT_MS": str(heartbeat_ms),
            "HEARTWHEEL_HTTP_PORT": "0",
        }

    def configure(self, topic: str, name: str, value: str) -> None:
        """Set an option of a topic."""
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        place = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
        self.admin.incremental_alter_configs([place])[place].result()

    def add_partitions(self, count: int) -> None:
        """Give each input topic so many partitions, and let the sender know of them."""
        self.devices_moved = True
        self.admin.create_partitions([NewPartitions(topic, count) for topic in self.inputs])
        for topic in self.inputs:
            self.wait(
                "the partitions",
                lambda topic=topic: (
                    len(self._producer.list_topics(topic, timeout=10).topics[topic].partitions)
                    == count
                ),
            )

    def give_heartbeats_a_topic(self) -> str:
        """Make a topic and let the next runs send heartbeats there; return its name."""
        topic = f"{self.output}-heartbeats-{len(self.heartbeat_topics)}"
        self.heartbeat_topics.append(topic)
        return self._give_topic("HEARTWHEEL_HEARTBEAT_TOPIC", topic)

    def give_summaries_a_topic(self) -> str:
        """Make a topic and let the next runs send summaries there; return its name."""
        return self._give_topic("HEARTWHEEL_SUMMARY_TOPIC", f"{self.output}-summaries")

    def give_the_table_a_topic(self) -> str:
        """Make a topic and let the next runs keep a table there; return its name."""
        return self._give_topic("HEARTWHEEL_TABLE_TOPIC", f"{self.output}-table")

    def _give_topic(self, variable: str, topic: str) -> str:
        lanes = int(self.variables["HEARTWHEEL_LANES"])
        create_topics(self.admin, {topic: lanes}, self.replicas)
        self.variables[variable] = topic
        self._lanes += [TopicPartition(topic, lane) for lane in range(lanes)]
        return topic

    def start(
        self,
        *arguments: str,
        command: str = "heartwheel.cli",
        before: Sequence[str] = (),
        **variables: str,
    ) -> subprocess.Popen[str]:
        """Start a process; its standard error goes to a file, for `errors`."""
        program = [sys.executable, "-m", command, *(arguments or ("run",))]
        return self.start_program(*before, *program, **variables)

    def start_program(self, *program: str, **variables: str) -> subprocess.Popen[str]:
        """Start any program as such a process, with the same variables."""
        log = (self.folder / f"log-{len(self._processes)}").open("w")
        process = subprocess.Popen(
            program,
            env=environment() | self.variables | variables,
            stderr=log,
            cwd=ROOT,
            text=True,
        )
        log.close()
        self._processes.append(process)
        return process

    def errors(self, process: subprocess.Popen[str]) -> str:
        """Return what a process has written to standard error, but for waits for Kafka."""
        return without_waits((self.folder / f"log-{self._processes.index(process)}").read_text())

    def end(self) -> None:
        """Kill what still runs."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        self._counter.close()

    def send(self, kind: str, device: str, session: str, time_ms: int = 0) -> None:
        """Send an event, to the console topic for devices that begin with c."""
        value = f'{{"type":"Game{kind}","device_id":"{device}","session_id":"{session}"}}'
        self.send_raw(value.encode(), device, time_ms)

    def send_raw(
        self,
        value: bytes | None,
        key: str,
        time_ms: int = 0,
        where: tuple[str, int] | None = None,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> None:
        """Send any bytes, to where the key belongs or to another topic and partition."""
        topic, partition = where or (self.console if key.startswith("c") else self.pc, -1)
        while True:
            try:
                self._producer.produce(
                    topic, value, key, partition, timestamp=time_ms, headers=headers
                )
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
            {
                "bootstrap.servers": self.address,
                "group.id": "test",
                "enable.partition.eof": True,
                # Heartbeats that come faster than this would keep the end from being seen.
                "fetch.wait.max.ms": 10,
            }
        )
        unread = set(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, partition, 0) for partition in unread])
        records = []
        while unread:
            message = consumer.poll(10)
            assert message is not None, f"{topic} cannot be read"
            if message.error() is not None:
                assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                unread.discard(message.partition())
                continue
            records.append(
                Record(
                    message.partition(),
                    message.offset(),
                    message.timestamp()[1],
                    message.key(),
                    message.value(),
                    dict(message.headers() or []),
                )
            )
        consumer.close()
        return sorted(records, key=lambda record: (record.partition, record.offset))

    def events(self, topic: str | None = None) -> list[OutputEvent]:
        """Return the output, or that of another topic; each record has its device as key."""
        events = []
        for record in self.read(topic or self.output):
            event = decode_output(record.value or b"")
            assert record.key == event.device_id.encode()
            events.append(event)
        return events

    def records_out(self) -> int:
        """Return how many records the output has, without reading it.

        While the broker is away, it is the last number that was known.
        """
        try:
            self._count = sum(
                self._counter.get_watermark_offsets(lane, 10)[1] for lane in self._lanes
            )
        except KafkaException:  # it may go on to ask a broker that is no leader any more
            self._counter.close()
            self._counter = self._reader()
        return self._count

    def _reader(self) -> Consumer:
        return Consumer({"bootstrap.servers": self.address, "group.id": "test", "log_level": "0"})

    def wait_for_renewals(
        self,
        count: int = 1,
        seconds: float = WAIT_S,
        flow: subprocess.Popen[str] | None = None,
    ) -> None:
        """Wait until a run has renewed its lease so many times from now on, or flow has ended."""
        before = None

        def renewed() -> bool:
            nonlocal before
            if flow is not None and flow.poll() is not None:
                return True
            with suppress(KafkaException):  # the broker may have begun a moment ago
                now = self._renewals()
                before = now if before is None else before
                return now >= before + count
            return False

        self.wait(f"{count} renewals", renewed, seconds)

    def _renewals(self) -> int:
        reader = Consumer(
            {"bootstrap.servers": self.address, "group.id": f"heartwheel-{self.output}"}
        )
        try:
            (found,) = reader.committed([TopicPartition(self.output, 0)], 10)
        finally:
            reader.close()
        return decode(found.metadata, type=Held).renewal

    def wait_for_quiet(
        self, seconds: float, counted: Callable[[], int] | None = None, limit_s: float = WAIT_S
    ) -> None:
        """Wait until nothing has come to the output for so long, or to what else is counted."""
        counted = counted or self.records_out
        count, since_s = counted(), time.monotonic()

        def quiet() -> bool:
            nonlocal count, since_s
            if (now := counted()) != count:
                count, since_s = now, time.monotonic()
            return time.monotonic() - since_s > seconds

        self.wait(f"{seconds} s without news", quiet, limit_s)

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
            if time.monotonic() > deadline:
                ran = [(process.poll(), self.errors(process)) for process in self._processes]
                pytest.fail(f"waited {seconds} s for {what}; exit codes and errors: {ran}")
            time.sleep(0.1)
