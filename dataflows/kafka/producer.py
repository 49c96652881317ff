"""The producer of a process: how records are enqueued, and what happens when one fails."""

import time
from collections.abc import Callable
from functools import partial
from threading import Lock

from confluent_kafka import KafkaError, KafkaException, Producer

from dataflows.kafka.client import HANGING_MS, MakeProducer, make_producer, producer_options
from dataflows.kafka.connections import discard_unsent
from dataflows.kafka.permit import WritePermit
from dataflows.kafka.stalled_output import StalledOutput
from dataflows.metrics import SINK_QUEUE, read_from
from dataflows.settings import Settings
from session_logic.errors import HeartwheelError


class DeliveryError(HeartwheelError):
    """A record was not accepted by Kafka: the run stops and resumes from the last snapshot."""


def refusal(error: KafkaError) -> str:
    """Return why Kafka did not accept a record, and what to do where a start alone is of no use."""
    said = f"{error.str()} ({error.name()})"
    if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        said += (
            ": each start fails as well until max.message.bytes of the topic, or message.max.bytes "
            "of its brokers, takes what the run sends, which `heartwheel topics check` names"
        )
    return said


class SharedProducer:
    """The producer of this process, shared by the parts of its sink."""

    def __init__(
        self,
        settings: Settings,
        permit: WritePermit | None = None,
        make_producer: MakeProducer = make_producer,
    ) -> None:
        """Make the producer on first use; with a permit, nothing is sent without it."""
        self._settings = settings
        self._make_producer = make_producer
        self._permit = permit
        if permit is not None:
            permit.on_lapse = self.give_up
        self._producer: Producer | None = None
        # One worker thread at a time serves delivery reports, so that they come in order.
        self._serving = Lock()
        self.failure: str | None = None
        self._delivered = False  # whether a record was acknowledged since it was looked at
        self._waits_since_s = time.monotonic()
        self.blocking = False  # whether somebody waits until Kafka has acknowledged
        self.stalled = StalledOutput()
        read_from(SINK_QUEUE, self.waiting)

    def open(self) -> Producer:
        """Return the producer, made on first use."""
        if self._producer is None:
            required = {
                # Each record once and in order, whatever the connection does.
                "enable.idempotence": "true",
                "acks": "all",
                # A record is given up with the whole run, never alone: no later one may take its
                # offset. So librdkafka's own limit, which leaves a gap, is off.
                "message.timeout.ms": "0",
                "error_cb": self._on_error,
            }
            defaults = {
                "linger.ms": "1",
                "compression.type": "lz4",
                # Every snapshot holds what is not acknowledged.
                "queue.buffering.max.messages": "100000",
                "queue.buffering.max.kbytes": "32768",
                "socket.timeout.ms": HANGING_MS,
            }
            self._producer = self._make_producer(
                producer_options(self._settings, required, defaults)
            )
        return self._producer

    def waiting(self) -> int:
        """Return how many records are enqueued and not acknowledged."""
        return 0 if self._producer is None else len(self._producer)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self.fail(refusal(error))

    def fail(self, why: str) -> None:
        """Note that a record is lost, or may be; the first reason is the one that is told."""
        self.failure = self.failure or why

    def note_delivery(self) -> None:
        """Note that a record has been acknowledged."""
        self._delivered = True

    def give_up(self) -> None:
        """Send nothing more of what is enqueued, because another run may write by now.

        Records that are given up are in the last snapshot, so the run must end. With the process
        the kernel forgets what it could not deliver.
        """
        if (count := self.waiting()) and self._permit is not None:
            self.fail(
                f"the lease was not renewed in time ({self._permit.reason}), so {count} records "
                "that Kafka had not acknowledged were given up"
            )
            self.open().purge(blocking=False)
            discard_unsent()

    def send(self, produce: partial[None]) -> None:
        """Enqueue a record; on a full queue wait for room. Raises DeliveryError as `poll` does."""
        while True:
            try:
                return produce()
            except BufferError:
                self.blocking = True
                self.poll(0.01)
                self.blocking = False
            except KafkaException as error:
                self._on_error(error.args[0])
                self.check()
                raise

    def poll(self, wait_s: float = 0) -> None:
        """Handle the acknowledgements that have come.

        Raises DeliveryError if a record has been lost, or nothing was acknowledged for the
        delivery timeout.
        """
        self.serve(wait_s)
        self.check()

    def tick(self) -> None:
        """Handle the acknowledgements that have come, also while nothing is written.

        It never waits. Raises as `poll` does, if the run cannot go on.
        """
        self.serve()
        self._raise_failure()
        if self._permit is not None:
            self._permit.raise_if_over()

    def serve(self, wait_s: float = 0) -> None:
        """Handle the acknowledgements that have come; the next `check` raises what has failed."""
        producer = self.open()
        with self._serving:
            self._call(partial(producer.poll, wait_s))
        if self._delivered or not len(producer):
            self._delivered, self._waits_since_s = False, time.monotonic()
        elif time.monotonic() - self._waits_since_s > self._settings.delivery_timeout_ms / 1000:
            words = self.stalled.words(0)
            which = f" (it waits for {words})" if words else ""
            self.fail(f"nothing acknowledged for {self._settings.delivery_timeout_ms} ms{which}")

    def _call(self, call: Callable[[], int]) -> int:
        """Return what a call does that handles acknowledgements; it may bring a fatal error."""
        try:
            return call()
        except KafkaException as error:
            self._on_error(error.args[0])
        except SystemError:  # another error came with it, which the Python client cannot express
            self.fail("a fatal error of the Kafka client, which the log names")
        return 1

    def flush(self) -> None:
        """Wait until everything enqueued is acknowledged; raises DeliveryError if it is not."""
        with self._serving:
            self.blocking = True
            left = self._call(partial(self.open().flush, self._settings.delivery_timeout_ms / 1000))
            self.blocking = False
        if left:
            self.fail(f"{left} records not acknowledged in time")
        self.check()

    def check(self) -> None:
        """Raise DeliveryError if a record has been lost, FencedError if another run writes.

        Waits while it is not known whether another run writes; raises LeaseError if that lasts.
        """
        self._raise_failure()
        if self._permit is not None:
            self.blocking = True
            self._permit.check()
            self.blocking = False
            self._raise_failure()  # what has lapsed meanwhile was given up

    def _raise_failure(self) -> None:
        if self.failure is not None:
            msg = (
                f"output to {self._settings.bootstrap_servers} failed: {self.failure}; the run "
                "stops and resumes from its last snapshot when it is started again"
            )
            raise DeliveryError(msg)
