"""A real Kafka for tests and benchmarks: one KRaft broker on loopback, got from Maven."""

import shutil
import signal
import subprocess
import time
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from tests.support.maven import fetch
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
LIBS = ROOT / ".cache" / "kafka-4.2.0"
CLUSTER_ID = "heartwheelAAAAAAAAAAAA"
START_TIMEOUT_S = 60

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=4000
log.message.timestamp.after.max.ms=9223372036854775807
log.message.timestamp.before.max.ms=9223372036854775807
"""


class BrokerUnavailableError(Exception):
    """Java or Maven is missing, so Kafka cannot be started here."""


def fetch_kafka() -> Path:
    """Return the folder of Kafka's jars, got with Maven on first use."""
    for tool in ("java",) if LIBS.exists() else ("java", "mvn"):
        if shutil.which(tool) is None:
            msg = f"{tool} is not installed: install a JRE 17 and Maven, or set KAFKA_ADDRESS"
            raise BrokerUnavailableError(msg)
    return fetch(LIBS, "dependency:copy-dependencies", "-DincludeScope=runtime")


class Broker:
    """A broker whose data lies in one folder; it can be stopped, killed and started again."""

    def __init__(
        self,
        folder: Path,
        heap: str = "512m",
        properties: str = "",
        scram: tuple[str, ...] = (),
        controller: int | None = None,
    ) -> None:
        """Format the storage; `start` starts it. What properties say wins over the usual ones."""
        self._libs = f"{fetch_kafka()}/*"
        self._heap = heap
        self._folder = folder
        self._port, self._controller = free_port(), controller or free_port()
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._properties = folder / "server.properties"
        self._properties.write_text(
            PROPERTIES.format(port=self._port, controller=self._controller, data=folder / "data")
            + properties.format(port=self._port, controller=self._controller)
        )
        users = [option for user in scram for option in ("--add-scram", user)]
        self.run_tool(
            "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(self._properties),
            *users,
        )  # fmt: skip

    def _command(self, *arguments: str) -> list[str]:
        return ["java", f"-Xmx{self._heap}", "-XX:+UseG1GC", "-cp", self._libs, *arguments]

    def run_tool(self, *arguments: str) -> None:
        """Run one of Kafka's own tools to its end, by the name of its class."""
        subprocess.run(self._command(*arguments), check=True, capture_output=True)

    @property
    def address(self) -> str:
        """Where clients reach it."""
        return f"127.0.0.1:{self._port}"

    def topic_bytes(self, topic: str) -> int:
        """Return how large the records of a topic are on disk."""
        return sum(log.stat().st_size for log in self._folder.glob(f"data/{topic}-*/*.log"))

    def admin(self) -> AdminClient:
        """Return an admin client."""
        return AdminClient({"bootstrap.servers": self.address, "log_level": "0"})

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.launch()
        self.wait_for_answer()

    def launch(self) -> None:
        """Start it."""
        with (self._folder / "kafka.log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command("kafka.Kafka", str(self._properties)), stdout=log, stderr=log
            )

    def wait_for_answer(self) -> None:
        """Wait until it answers; fails if it ends instead."""
        assert self.process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        admin = self.admin()
        while True:
            try:
                admin.list_topics(timeout=1)
            except KafkaException:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise
            else:
                return

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> None:
        """Stop it with a signal and wait until it is gone; a stopped one stays as it is."""
        if self.process is not None:
            self.process.send_signal(sign)
            self.process.wait(timeout=60)
            self.process = None

    def pause(self) -> None:
        """Let it hang: connections stay, and nothing answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    @property
    def alive(self) -> bool:
        """Whether its process is there."""
        return self.process is not None and self.process.poll() is None

    def resume(self) -> None:
        """Let it work, whatever was done to it."""
        if not self.alive:
            self.start()
        elif self.process is not None:
            self.process.send_signal(signal.SIGCONT)


def create_topics(
    admin: AdminClient, partitions: dict[str, int], replicas: int = 1, **config: str
) -> None:
    """Create topics and wait until every one is known to the broker."""
    new = [NewTopic(name, count, replicas, config=config) for name, count in partitions.items()]
    for future in admin.create_topics(new).values():
        future.result()
    for name, count in partitions.items():
        deadline = time.monotonic() + 10
        while len(admin.list_topics(name, timeout=5).topics[name].partitions) != count:
            assert time.monotonic() < deadline, f"topic {name} did not appear"
            time.sleep(0.05)
