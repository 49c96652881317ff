"""The lease on an output topic: one run at a time writes there.

What is guaranteed: a run enqueues records only while no other run may, even if it was paused or
cut off and comes back later. Nothing is done per record for that.

How. The lease is the committed offset of a consumer group named after the topic. Its metadata say
which store and run hold it, how often it was renewed, and whether it was released. It is renewed
every second, in a transaction under a fixed transactional id. Two things follow from that:

- Kafka grants the id to the newest producer only. From the moment when another run takes the
  lease, each renewal of the old run fails, and nothing it does brings its right back.
- A run may write for LEASE_S from the beginning of its last renewal that succeeded. After that,
  `check` waits until a renewal succeeds again, or raises FencedError.

A run of another store takes the lease only after it has seen it unchanged for LEASE_S; if it is
renewed meanwhile, its holder is alive and the newcomer stops. A run of the same store need not
wait, because it has the lock of the store: the holder is dead.

The invariant: the right of the old run ends before that of the new one begins. The old one counts
from before its last renewal, the new one from after it has seen that renewal; both count LEASE_S
by their own monotonic clock, and no two clocks are compared.

A broker that was away may refuse the producer of the rightful run as well. So a refused run reads
the lease: while its own name is there, nobody has taken it, and it takes it again.

What would break it: a producer that sends without `check` before it; monotonic clocks that go at
clearly different speeds; a broker that loses committed transactions. What librdkafka has queued
when a process is paused is sent when it wakes up, before any check. That is not prevented but
found: the other run's next acknowledgement has an unexpected offset, and it stops.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from uuid import uuid4

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from dataflows.kafka.client import (
    FENCED,
    MakeConsumer,
    MakeProducer,
    consumer_options,
    make_consumer,
    make_producer,
    producer_options,
)
from dataflows.logs import announce, announced
from dataflows.settings import Settings
from session_logic.errors import HeartwheelError

RENEW_S = 1.0
# A lease that was not renewed for this long is over, and its run writes nothing more.
LEASE_S = 5.0
TIMEOUT_S = 30.0
# A broker that was just started, or had no group yet, creates its coordinator first.
NO_COORDINATOR_YET = {
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
}


NO_SIGN: Mapping[str, str] = MappingProxyType({})


class FencedError(HeartwheelError):
    """Another run writes to the output topic: only one may."""


class Lease:
    """The right of this run to write to its output topic."""

    def __init__(
        self,
        settings: Settings,
        store: str,
        make_consumer: MakeConsumer = make_consumer,
        make_producer: MakeProducer = make_producer,
        sign: Mapping[str, str] = NO_SIGN,
    ) -> None:
        """Make the clients; `acquire` takes the lease, for the run of this store.

        The sign is said with it (see owner.py).
        """
        self._settings = settings
        self._make_producer = make_producer
        self._store = store
        self._sign = sign
        self._run = uuid4().hex
        self._topic = settings.output_topic
        self._group = f"heartwheel-{settings.output_topic}"
        options = consumer_options(
            settings,
            {
                "group.id": self._group,
                "enable.auto.commit": "false",
                # A run that was killed while it renewed would keep a reader waiting otherwise.
                "isolation.level": "read_uncommitted",
            },
            tuned=False,
        )
        self._consumer = make_consumer(options)
        self._producer = self._new_producer()
        self._renewed_s = 0.0
        self._renewals = 0
        self._lost = False  # whether Kafka has refused the producer
        self._fenced = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def _new_producer(self) -> Producer:
        required = {"transactional.id": self._group}
        return self._make_producer(producer_options(self._settings, required, tuned=False))

    def acquire(self, check: Callable[[], None] = lambda: None) -> None:
        """Take the lease and keep it; says so while it waits.

        check is called when no other run can write any more, and before the lease says that this
        one does. Raises FencedError if another store's run has it, or Kafka does not give it.
        """
        waiting = f"waiting for Kafka to give the lease on {self._topic}"
        try:
            with announced(waiting):
                held = self._held()
            if held is not None:
                self._wait_for(held)
            with announced(waiting):
                self._producer.init_transactions(TIMEOUT_S)
                self._check_holder(held)  # from here on no other run can renew it
                check()
                self._renew(released=False)
        except KafkaException as error:
            msg = (
                f"the lease on output topic {self._topic} cannot be taken: "
                f"{error.args[0].str()}; the broker must allow transactions (or set "
                "HEARTWHEEL_FENCING=false and see to it that only one run writes)"
            )
            raise FencedError(msg) from None
        self._thread.start()

    def _wait_for(self, held: dict[str, object]) -> None:
        """Return once a lease that was held is over; raises FencedError if it is renewed."""
        if held["store"] == self._store or held["released"]:
            return
        announce(
            f"waiting {LEASE_S:g} s for the lease on {self._topic}: another run (store "
            f"{held['store']}) has held it"
        )
        deadline_s = time.monotonic() + LEASE_S
        while time.monotonic() < deadline_s:
            time.sleep(RENEW_S / 4)
            self._check_holder(held)

    def _check_holder(self, held: dict[str, object] | None) -> None:
        """Raise FencedError if another store's run has renewed the lease since it was as held."""
        now = self._held()
        if now is None or now == held or now["store"] == self._store or now["released"]:
            return
        msg = (
            f"output topic {self._topic} is being written to by another run (store "
            f"{now['store']}); stop that one, or use another output topic"
        )
        raise FencedError(msg)

    def _where(self) -> TopicPartition:
        return TopicPartition(self._topic, 0)

    def _held(self) -> dict[str, object] | None:
        """Return what the lease says now."""
        found = self._committed()
        if found.offset < 0 or not found.metadata:
            return None
        held: dict[str, object] = json.loads(found.metadata)
        return held

    def _committed(self) -> TopicPartition:
        """Return the committed offset, once there is a coordinator."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while True:
            try:
                (found,) = self._consumer.committed([self._where()], TIMEOUT_S)
            except KafkaException as error:
                passes = error.args[0].code() in NO_COORDINATOR_YET
                if not passes or time.monotonic() > deadline_s:
                    raise
                time.sleep(0.1)
            else:
                return found

    def _renew(self, *, released: bool) -> None:
        self._renewals += 1
        begin_s = time.monotonic()
        said = {
            **self._sign,
            "store": self._store,
            "run": self._run,
            "renewal": self._renewals,
            "released": released,
        }
        lease = TopicPartition(self._topic, 0, 0, json.dumps(said))
        self._producer.begin_transaction()
        self._producer.send_offsets_to_transaction(
            [lease], self._consumer.consumer_group_metadata(), LEASE_S
        )
        self._producer.commit_transaction(LEASE_S)
        self._renewed_s = begin_s

    def _keep(self) -> None:
        """Renew the lease until it is released or lost, and try again what fails."""
        while not self._fenced and not self._over.wait(RENEW_S):
            try:
                if self._lost:
                    self._take_again()
                if self._fenced:
                    return
                self._renew(released=False)
            except KafkaException as error:
                self._recover(error.args[0])

    def _recover(self, error: KafkaError) -> None:
        self._lost = self._lost or error.code() in FENCED or error.fatal()
        if not self._lost:
            try:
                self._producer.abort_transaction(LEASE_S)
            except KafkaException as again:
                self._lost = again.args[0].code() in FENCED or again.args[0].fatal()

    def _take_again(self) -> None:
        """Take the lease again after Kafka has refused this producer, unless another run has it."""
        held = self._held()
        if held is None or held["run"] != self._run:
            self._fenced = True
            self._over.set()
            return
        self._producer = self._new_producer()
        self._producer.init_transactions(LEASE_S)
        self._lost = False

    def check(self) -> None:
        """Return if this run may write, and wait while that is not known. Raises FencedError."""
        while self._fenced or time.monotonic() - self._renewed_s > LEASE_S:
            if self._fenced:
                msg = (
                    f"another run has taken over output topic {self._topic}: this one writes "
                    "nothing more and stops; run only one"
                )
                raise FencedError(msg)
            time.sleep(0.01)

    def release(self) -> None:
        """Give the lease back, after everything has been written."""
        self._over.set()
        self._thread.join()
        if not self._fenced:
            try:
                self._renew(released=True)
            except KafkaException as error:
                self._recover(error.args[0])
