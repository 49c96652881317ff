"""A device whose events are in several partitions, which a backlog brings in the wrong order."""

import time
from itertools import cycle

from confluent_kafka import Producer

from session_logic.events import SessionEnd
from tests.support.cluster import Cluster
from tests.support.events import kinds
from tests.support.ports import free_port
from tests.support.scrape import Metrics

FILLERS = 100_000
DEVICES = 500
AGO_MS = 30_000


class Sender:
    """Sends events with any key to any partition of the pc topic, before a run starts."""

    def __init__(self, cluster: Cluster) -> None:
        self._topic = cluster.pc
        self._producer = Producer({"bootstrap.servers": cluster.address, "linger.ms": 50})
        self.begin_ms = int(time.time() * 1000) - AGO_MS

    def send(
        self, kind: str, device: str, *, after_ms: int, partition: int, key: bytes | None
    ) -> None:
        """Send an event of the one session of a device."""
        value = f'{{"type":"Game{kind}","device_id":"{device}","session_id":"{device}-s"}}'
        while True:
            try:
                self._producer.produce(
                    self._topic, value, key, partition, timestamp=self.begin_ms + after_ms
                )
            except BufferError:
                self._producer.poll(0.01)
            else:
                return

    def fill(self, count: int) -> None:
        """Send ends of sessions that nobody knows, so that partition 0 is read later than 1."""
        for number in range(count):
            device = f"f{number % 1_000}"
            self.send("End", device, after_ms=-1, partition=0, key=device.encode())

    def flush(self) -> None:
        """Wait until all has arrived."""
        assert self._producer.flush(60) == 0


def run(cluster: Cluster, events: int) -> Metrics:
    """Start a run, and return its metrics once it has acted on so many events."""
    port = free_port()
    flow = cluster.start(HEARTWHEEL_HTTP_PORT=str(port))

    def acted() -> bool:
        assert flow.poll() is None, cluster.errors(flow)
        try:
            return Metrics(port).sum("events_total") == events
        except OSError:
            return False  # it is starting

    cluster.wait("all events", acted)
    cluster.wait("rest", lambda: not Metrics(port).of("sink_queue_records"))
    return Metrics(port)


def test_end_that_is_read_long_before_its_start_ends_it(cluster: Cluster) -> None:
    """In two partitions with a backlog in one: no session of eight hours, and a warning."""
    sender = Sender(cluster)
    sender.fill(FILLERS)
    sender.send("Start", "d", after_ms=0, partition=0, key=b"d")
    sender.send("End", "d", after_ms=5_000, partition=1, key=b"d")
    sender.flush()
    metrics = run(cluster, FILLERS + 2)
    assert metrics.sum("active_sessions") == 0
    assert metrics.all("misplaced_events_total") == {("key",): 0, ("partition",): 1}
    session = cluster.sessions()["d-s"]
    assert kinds(session) == ["active", "beat 5", "end ended"]  # a first start is an outage
    end = session[-1]
    assert isinstance(end, SessionEnd)
    assert (end.time_ms, end.duration_ms) == (sender.begin_ms + 5_000, 5_000)
    assert len(cluster.events()) == len(session)


def test_senders_without_keys_leave_no_session_behind(cluster: Cluster) -> None:
    """Round robin over two partitions, one of them with a backlog."""
    sender, partitions = Sender(cluster), cycle((0, 1))
    sender.fill(FILLERS)
    for number in range(DEVICES):
        partition = next(partitions)
        sender.send("Start", f"d{number}", after_ms=number, partition=partition, key=None)
    next(partitions)  # so that every end is where its start is not
    for number in range(DEVICES):
        partition = next(partitions)
        sender.send("End", f"d{number}", after_ms=10_000 + number, partition=partition, key=None)
    sender.flush()
    metrics = run(cluster, FILLERS + 2 * DEVICES)
    assert metrics.sum("active_sessions") == 0
    misplaced = metrics.all("misplaced_events_total")
    assert misplaced == {("key",): 2 * DEVICES, ("partition",): DEVICES}
    sessions = cluster.sessions()
    assert len(sessions) == DEVICES
    for session in sessions.values():
        assert kinds(session)[0] == "active"
        assert kinds(session)[-1] == "end ended"
