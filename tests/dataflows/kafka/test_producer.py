"""The producer of a process: a full queue, and each way in which Kafka may not take a record."""

import ctypes
import re
import sys
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from dataflows.kafka import permit as permit_module
from dataflows.kafka import producer as producer_module
from dataflows.kafka.client import make_producer
from dataflows.kafka.letter_queue import LetterProducer
from dataflows.kafka.permit import LEASE_S, FencedError, LeaseError, WritePermit
from dataflows.kafka.producer import DeliveryError, SharedProducer, refusal
from dataflows.settings import Settings
from tests.support.errors import one_line
from tests.support.fake_kafka import FATAL

TIMEOUT_MS = 50


class FakeProducer:
    """A producer whose queue has room for two, and which acknowledges when it is told to."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self.queue: deque[str] = deque()
        self.takes = True
        self.error: KafkaError | None = None
        self.waits_s: list[float] = []
        self.other_events = 0  # served by a poll that acknowledges nothing
        self.on_delivery = lambda: None

    def produce(self, value: str) -> None:
        if self.error is not None:
            raise KafkaException(self.error)
        if len(self.queue) == 2:
            raise BufferError
        self.queue.append(value)

    def __len__(self) -> int:
        return len(self.queue)

    def poll(self, wait_s: float) -> int:
        self.waits_s.append(wait_s)
        if not self.takes or not self.queue:
            return self.other_events
        self.queue.popleft()
        self.on_delivery()
        return 1

    def purge(self, *, blocking: bool) -> None:
        assert not blocking
        self.queue.clear()

    def flush(self, _wait_s: float) -> int:
        if self.takes:
            self.queue.clear()
        return len(self.queue)


class Shared:
    """A shared producer with its fake."""

    def __init__(self, **arguments: Any) -> None:
        self.kafka = FakeProducer()
        settings = Settings(delivery_timeout_ms=TIMEOUT_MS, producer={"linger.ms": "7"})
        self.producer = SharedProducer(settings, make_producer=self._make, **arguments)
        self.producer.open()
        self.kafka.on_delivery = self.producer.note_delivery

    def _make(self, options: dict[str, Any]) -> Any:
        self.kafka.options = options
        return self.kafka

    def send(self, value: str) -> None:
        self.producer.send(partial(self.kafka.produce, value))


@pytest.fixture
def shared() -> Shared:
    """Return a shared producer with its fake."""
    return Shared()


def test_required_options_win_over_the_users_and_those_over_ours(shared: Shared) -> None:
    """Idempotence cannot be switched off; what is ours by taste can be changed."""
    assert shared.kafka.options["enable.idempotence"] == "true"
    assert shared.kafka.options["message.timeout.ms"] == "0"
    assert shared.kafka.options["linger.ms"] == "7"


def test_full_queue_waits_for_room_and_loses_nothing(shared: Shared) -> None:
    """Each wait serves acknowledgements."""
    for value in "abcd":
        shared.send(value)
    assert list(shared.kafka.queue) == ["c", "d"]
    assert shared.kafka.waits_s == [0.01, 0.01]
    assert not shared.producer.blocking


def test_fatal_error_of_a_record_ends_the_run(shared: Shared) -> None:
    """The message names the broker, the cause and what happens next."""
    shared.kafka.error = FATAL
    with pytest.raises(DeliveryError, match=r"127\.0\.0\.1:9092 failed: a record was refused"):
        shared.send("a")


def test_record_that_is_too_large_names_the_setting_and_another_refusal_does_not() -> None:
    """What Kafka refuses for its size it refuses after each start."""
    too_large = refusal(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
    assert "(MSG_SIZE_TOO_LARGE): each start fails as well until max.message.bytes" in too_large
    assert "`heartwheel topics check`" in too_large
    assert refusal(KafkaError(KafkaError.INVALID_MSG)).endswith("(INVALID_MSG)")


def test_fatal_error_between_records_ends_the_run(shared: Shared) -> None:
    """librdkafka tells it by a callback; an error that passes is none."""
    on_error = shared.kafka.options["error_cb"]
    on_error(KafkaError(KafkaError._TRANSPORT))
    shared.producer.poll()
    on_error(FATAL)
    with pytest.raises(DeliveryError, match="a record was refused"):
        shared.producer.poll()


def make_fatal(producer: Producer) -> None:
    """Let the real client meet a fatal error, as a test of librdkafka does."""
    (path,) = Path(confluent_kafka.__path__[0]).parent.glob("confluent_kafka.libs/librdkafka*")
    client = ctypes.c_void_p.from_address(id(producer) + object.__basicsize__).value
    code = KafkaError.INVALID_PRODUCER_EPOCH
    fail = ctypes.CDLL(str(path)).rd_kafka_test_fatal_error
    assert fail(ctypes.c_void_p(client), code, b"made up") == 0


@pytest.mark.skipif(sys.platform != "linux", reason="librdkafka is elsewhere in other wheels")
@pytest.mark.parametrize("call", ["poll", "flush"])
def test_fatal_error_of_the_real_client_is_one_line(call: str) -> None:
    """It is raised out of whatever serves reports, and is told to no callback."""
    settings = Settings(bootstrap_servers="127.0.0.1:1", delivery_timeout_ms=500)
    shared = SharedProducer(settings)
    make_fatal(shared.open())
    with pytest.raises(DeliveryError) as found:
        getattr(shared, call)()
    one_line(found, "output to 127.0.0.1:1 failed", "resumes from its last snapshot")
    assert re.search("made up|fatal error of the Kafka client", str(found.value))


@pytest.mark.skipif(sys.platform != "linux", reason="librdkafka is elsewhere in other wheels")
def test_fatal_error_of_the_dead_letters_client_is_one_line() -> None:
    """As that of the output."""
    letters = LetterProducer(Settings(bootstrap_servers="127.0.0.1:1"), make_producer)
    make_fatal(letters.open())
    with pytest.raises(DeliveryError) as found:
        letters.poll()
    one_line(found, "dead letters to 127.0.0.1:1 failed", "made up")


def test_error_that_is_not_fatal_is_raised_as_it_is(shared: Shared) -> None:
    """Nothing is known to be lost, so the program must not go on as if it were sent."""
    shared.kafka.error = KafkaError(KafkaError._UNKNOWN_PARTITION)
    with pytest.raises(KafkaException):
        shared.send("a")


def test_nothing_acknowledged_for_the_timeout_ends_the_run(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time without anything enqueued does not count."""
    now_s = 100.0
    monkeypatch.setattr(producer_module.time, "monotonic", lambda: now_s)
    shared.producer.poll()
    now_s += 1
    shared.producer.poll()
    shared.kafka.takes = False
    shared.kafka.other_events = 3  # errors and statistics are no acknowledgement
    shared.send("a")
    now_s += TIMEOUT_MS / 1000
    shared.producer.poll()
    now_s += 0.001
    with pytest.raises(DeliveryError, match=f"nothing acknowledged for {TIMEOUT_MS} ms"):
        shared.producer.poll()


def test_flush_with_records_left_ends_the_run(shared: Shared) -> None:
    """The last snapshot must not claim what Kafka has not acknowledged."""
    shared.send("a")
    shared.producer.flush()
    shared.kafka.takes = False
    shared.send("b")
    with pytest.raises(DeliveryError, match="1 records not acknowledged in time"):
        shared.producer.flush()


@pytest.fixture
def permit(monkeypatch: pytest.MonkeyPatch) -> WritePermit:
    """Return a permit that is valid, by a clock that stands still."""
    monkeypatch.setattr(permit_module, "boot_time_s", lambda: 1_000.0)
    made = WritePermit("session-events", LEASE_S)
    made.renew(1_000)
    return made


def test_run_that_is_fenced_off_sends_nothing_more(permit: WritePermit) -> None:
    """The permit is asked for before anything else is sent, and at every tick."""
    shared = Shared(permit=permit)
    shared.producer.poll()
    permit.end(FencedError("another run"))
    with pytest.raises(FencedError):
        shared.producer.poll()
    with pytest.raises(FencedError):
        shared.producer.tick()


def test_permit_that_lapses_gives_up_what_is_enqueued_and_ends_the_run(
    permit: WritePermit,
) -> None:
    """It must not be sent when the network comes back, and is in the last snapshot."""
    shared = Shared(permit=permit)
    shared.kafka.takes = False
    shared.send("a")
    shared.send("b")
    permit.reason = "Broker: No route"
    permit.on_lapse()
    assert not shared.kafka.queue
    for act in (shared.producer.poll, shared.producer.tick):
        with pytest.raises(DeliveryError, match=r"renewed in time \(Broker: No route\), so 2 rec"):
            act()


def test_permit_that_lapses_while_nothing_is_enqueued_waits_for_its_renewal(
    permit: WritePermit,
) -> None:
    """Nothing can be sent late, so the run need not end."""
    shared = Shared(permit=permit)
    permit.on_lapse()
    shared.producer.tick()
    shared.producer.poll()


def test_permit_that_is_not_renewed_ends_a_run_that_writes_nothing(permit: WritePermit) -> None:
    """A tick does not wait for it; the line has the reason."""
    shared = Shared(permit=permit)
    permit.renew(1_000 - LEASE_S - 0.1)
    permit.reason = "Broker: No route"
    with pytest.raises(LeaseError, match=r"could not be renewed for 30 s: Broker: No route"):
        shared.producer.tick()
