"""The lease on an output topic: one run at a time writes there.

What is guaranteed: a run enqueues records only while no other run may, even if it was paused or
cut off and comes back later. Nothing is done per record for that.

How. The lease is the committed offset of a consumer group named after the topic. Its metadata say
which store and run hold it, where that store is locked, how often it was renewed, and whether it
was released. It is renewed every second, in a transaction under a fixed transactional id. Two
things follow from that:

- Kafka grants the id to the newest producer only. From the moment when another run takes the
  lease, each renewal of the old run fails, and nothing it does brings its right back.
- A run may write for LEASE_S from the beginning of its last renewal that succeeded (permit.py).

A run takes the lease only after it has seen it unchanged for LEASE_S; if it is renewed meanwhile,
its holder is alive and the newcomer stops. It need not wait if it has the lock that the holder had
on the same file of the same running system, because the holder is dead then. Other processes of a
cluster may still be alive elsewhere, and their right ends after FOLLOWED_S (followed_lease.py). A
store's name alone proves nothing: a copy of the directory, or a restored one, has the same.

A store that `heartwheel store reshard` has made takes over from runs with other leases
(inherited_leases.py). No run gets a lease where one of a later resharding was.

The invariant: the right of the old run ends before that of the new one begins. The old one counts
from before its last renewal, the new one from after it has seen that renewal; both count LEASE_S
by a clock of their own that nobody sets, and no two clocks are compared.

Every call has a way out, also one that never returns (bounded_call.py). Whatever fails, and
however, its producer is given up: a transaction that timed out can neither be begun again nor
aborted until it has been resumed. The next turn takes the lease again with a new producer, which
ends what the old one left open. A broker that was away may also refuse the producer of the rightful
run. So the lease is read before and after: while the run's own name is there, nobody has taken it.

What would break it: a producer that sends without `check` before it; clocks that go at clearly
different speeds; a broker that loses committed transactions. Requests that a broker or a network
has when a process is paused or cut off cannot be taken back: they may still arrive. (What the
process's own kernel has does not: connections.py.) That is found: the other run's next
acknowledgement has an unexpected offset, and it stops.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from confluent_kafka import KafkaException, Producer
from msgspec.structs import replace

from dataflows.clock import boot_time_s
from dataflows.kafka.bounded_call import bounded
from dataflows.kafka.client import (
    FENCED,
    PASSING,
    MakeConsumer,
    MakeProducer,
    make_consumer,
    make_producer,
    producer_options,
)
from dataflows.kafka.inherited_leases import FENCED_TIMES, InheritedLeases, watch
from dataflows.kafka.lease_record import (
    CALL_S,
    REQUIRED,
    SPARE_S,
    UNREADABLE,
    Held,
    LeaseRecord,
)
from dataflows.kafka.patience import ask_again
from dataflows.kafka.permit import (
    FOLLOWED_S,
    LEASE_S,
    FencedError,
    LeaseError,
    WritePermit,
    describe,
)
from dataflows.logs import announce, announced, log
from dataflows.settings import Settings
from dataflows.shard import Shard

RENEW_S = 1.0
# A start has time for a broker that begins as well.
TIMEOUT_S = 30.0
CONNECT_S = 0.5


class Lease:
    """The right of this run to write to its output topic."""

    def __init__(
        self,
        settings: Settings,
        own: Held,
        make_consumer: MakeConsumer = make_consumer,
        make_producer: MakeProducer = make_producer,
        *,
        ancestors: frozenset[str] = frozenset(),
    ) -> None:
        """Make the clients; `acquire` takes the lease, for a run that has its store locked.

        ancestors are the stores that its own was made of.
        """
        self._settings = settings
        self._make_producer = make_producer
        self._own = own
        self._record = LeaseRecord(settings, make_consumer)
        self._inherited = InheritedLeases(
            self._record, own, ancestors, self._new_producer, TIMEOUT_S
        )
        self._topic = settings.output_topic
        self._producer: Producer | None = None  # none if the last renewal failed
        self.permit = WritePermit(self._topic, settings.delivery_timeout_ms / 1000)

    def acquire(self, check: Callable[[], None] = lambda: None) -> None:
        """Take the lease and keep it; says so while it waits.

        check is called when no other run can write any more, and before the lease says that this
        one does. Raises FencedError if another run has it, LeaseError if Kafka does not give it.
        """
        waiting = f"waiting for Kafka to give the lease on {self._topic}"
        try:
            with announced(waiting):
                held = self._record.read(TIMEOUT_S)
                inherited = self._inherited.find()
            if held is not None:
                self._check_shards(held)
                self._wait_for(held)
            self._inherited.wait_for(inherited)
            with announced(waiting):
                self._inherited.take_over(inherited)
                producer = self._take(held, check)
                self._check_others(producer)
        except KafkaException as error:
            if error.args[0].code() in FENCED:
                msg = (
                    f"another run has just taken the lease on output topic {self._topic}: this one "
                    "has written nothing and stops; run only one, or use another output topic"
                )
                raise FencedError(msg) from None
            raise LeaseError(self._not_given(error)) from None
        self.permit.keep(self._turn, RENEW_S)

    def _take(self, held: Held | None, check: Callable[[], None]) -> Producer:
        """Take the own lease, which was held so; return the producer that renews it."""

        def take() -> Producer:
            producer = self._new_producer(TIMEOUT_S)
            self._check_holder(held)  # from here on no other run can renew it
            check()
            self._renew(producer, released=False)
            return producer

        return ask_again(take, TIMEOUT_S, FENCED_TIMES)

    def _check_others(self, producer: Producer) -> None:
        """Raise FencedError if a shard of another number of shards may write to the same lanes.

        Of two that begin at once each has its own lease by then, so at least one sees the other.
        """
        try:
            for number, held in self._record.read_others(TIMEOUT_S).items():
                self._check_shards(held, number)
        except FencedError:
            self._renew(producer, released=True)
            self.permit.close()
            raise

    def _check_shards(self, held: Held, number: int | None = None) -> None:
        """Raise FencedError if a lease is that of a run which may have the lanes of this one.

        Without a number, it is that of the run with the number of this one. One that a tool has
        written over tells of no lanes: whoever is alive writes it again.
        """
        if held == UNREADABLE:
            return
        own = self._record.shard
        shard = Shard(own.number if number is None else number, held.shards)
        if not shard.overlaps(own):
            return
        if held.generation > self._own.generation:
            msg = (
                f"shard {shard} of output topic {self._topic} was made by `heartwheel store "
                "reshard`, and this store is of before: start the stores that were made then"
            )
            raise FencedError(msg)
        inherited = number is None and self._inherited.has(held)
        if shard.shards != own.shards and not held.released and not inherited:
            msg = (
                f"shard {shard} of output topic {self._topic} writes there, or was not stopped "
                f"cleanly, and this run is {own}: start that one as it was and stop it with "
                "SIGTERM, then use the same number of shards everywhere"
            )
            raise FencedError(msg)

    def _not_given(self, error: KafkaException) -> str:
        what = f"the lease on output topic {self._topic} cannot be taken: {describe(error)}"
        if error.args[0].code() in PASSING:
            return f"{what}; start again once Kafka's coordinator answers"
        return (
            f"{what}; the broker must allow transactions (or set HEARTWHEEL_FENCING=false and see "
            "to it that only one run writes)"
        )

    def _wait_for(self, held: Held) -> None:
        """Return once a lease that was held is over; raises FencedError if it is renewed."""
        wait_s = self._lasts_s(held)
        if not wait_s:
            return
        announce(
            f"waiting {wait_s:g} s for the lease on {self._topic}: a run (store {held.store}) "
            "holds it, or did not give it back"
        )
        watch(wait_s, lambda: self._check_holder(held))

    def _lasts_s(self, held: Held) -> float:
        """Return for how long a process may still write by a lease that is not renewed."""
        if held.released:
            return 0
        if not held.is_proven_dead_by(self._own):
            return LEASE_S
        return FOLLOWED_S if held.processes > 1 else 0

    def _check_holder(self, held: Held | None) -> None:
        """Raise FencedError if another run has renewed the lease since it was as held."""
        now = self._record.read(TIMEOUT_S)
        if now is None or now == held or now.released or now.is_proven_dead_by(self._own):
            return
        if now.run == self._own.run:
            return  # Kafka has not said that it had what it was told before
        which = "another directory has a copy of this store" if now.store == self._own.store else ""
        msg = (
            f"output topic {self._topic} is being written to by another run (store {now.store}"
            f"{which and f', and {which}'}); stop that one, or use another output topic"
        )
        raise FencedError(msg)

    def _new_producer(self, timeout_s: float, number: int | None = None) -> Producer:
        """Return a producer that alone may renew a lease, and ends what an earlier one left.

        Without a number it is the lease of this run.
        """
        required = {**REQUIRED, "transactional.id": self._record.transactional_id(number)}
        producer = self._make_producer(producer_options(self._settings, required, tuned=False))
        self._connect(producer)
        bounded(partial(producer.init_transactions, timeout_s), timeout_s + SPARE_S)
        return producer

    def _connect(self, producer: Producer) -> None:
        """Wait until a producer has a broker that it can ask for its coordinator.

        Without one librdkafka asks again after half a second (`rd_kafka_txn_coord_query`). Twice,
        because the first answer has it go over from the address that was given to the brokers'.
        For all topics, because to ask for one may create it.
        """
        with suppress(KafkaException):  # the next call has the time, and the words, for that
            for _ in range(2):
                producer.list_topics(timeout=CONNECT_S)

    def _renew(self, producer: Producer, *, released: bool) -> None:
        begin_s = boot_time_s()
        self._own = replace(self._own, renewal=self._own.renewal + 1, released=released)
        self._record.write(producer, self._own)
        self._producer = producer
        self.permit.renew(begin_s)

    def _turn(self) -> None:
        """Renew the lease; raises FencedError if another run has it, KafkaException if it fails."""
        producer, self._producer = self._producer, None
        if producer is None:
            self._check_own()
            producer = self._new_producer(CALL_S)
            self._check_own()  # from here on no other run can renew it
        self._renew(producer, released=False)

    def _check_own(self) -> None:
        """Raise FencedError if the lease is another run's."""
        held = self._record.read()
        if held is not None and held != UNREADABLE and held.run != self._own.run:
            msg = (
                f"another run has taken over output topic {self._topic}: this one writes nothing "
                "more and stops; run only one"
            )
            raise FencedError(msg)

    def release(self) -> None:
        """Give the lease back, after everything has been written."""
        if not self.permit.close() or self._producer is None:
            return
        try:
            self._renew(self._producer, released=True)
        except KafkaException as error:
            log.warning(
                f"the lease is not given back: a run elsewhere has to wait {LEASE_S:g} s",
                topic=self._topic,
                error=describe(error),
            )
