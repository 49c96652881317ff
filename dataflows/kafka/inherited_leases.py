"""Leases of the shards that a store was made of, if they were not given back.

A store that `heartwheel store reshard` has made comes from others: its ancestors. Their runs had
leases of their own, and each resharding has a generation, which the leases tell.

What is guaranteed: before a new shard writes, no run with an ancestor that may have one of its
lanes can, and none ever can again. For the lease that has the number of the new shard that holds
anyway. Any other one is waited for as that is, if it was not given back. Then the new shard takes
its transactional id, so that its holder cannot renew it, and has it say that it was released, with
the new generation. So the next new shard that looks there finds it settled.

New shards that begin at once may fence one another off while they do that, so each tries again.
"""

import time
from collections.abc import Callable
from functools import partial

from confluent_kafka import Producer
from msgspec.structs import replace

from dataflows.clock import boot_time_s
from dataflows.kafka.lease_record import CALL_S, Held, LeaseRecord
from dataflows.kafka.patience import ask_again
from dataflows.kafka.permit import LEASE_S, FencedError
from dataflows.logs import announce
from dataflows.shard import Shard

# How often a run that waits looks whether a lease is renewed.
LOOK_S = 0.25
# So often others may take a lease at the same moment.
FENCED_TIMES = 4


def watch(seconds: float, look: Callable[[], object]) -> None:
    """Look again and again for so long; what a look raises ends it."""
    deadline_s = boot_time_s() + seconds
    while boot_time_s() < deadline_s:
        time.sleep(LOOK_S)
        look()


class InheritedLeases:
    """What the ancestors of a store still hold, by their numbers."""

    def __init__(
        self,
        record: LeaseRecord,
        own: Held,
        ancestors: frozenset[str],
        new_producer: Callable[[float, int], Producer],
        timeout_s: float,
    ) -> None:
        """Ask nothing yet; new_producer takes the transactional id of a number.

        Kafka has timeout_s for whatever is asked later.
        """
        self._record = record
        self._own = own
        self._ancestors = ancestors
        self._new_producer = new_producer
        self._timeout_s = timeout_s

    def has(self, held: Held) -> bool:
        """Say whether a lease is that of an ancestor, and was not given back."""
        is_earlier = held.generation < self._own.generation
        return not held.released and is_earlier and held.owner in self._ancestors

    def find(self) -> dict[int, Held]:
        """Return them, but for that with the number of this run; raises KafkaException."""
        if not self._ancestors:
            return {}
        return {
            number: held
            for number, held in self._record.read_others(self._timeout_s).items()
            if self.has(held) and Shard(number, held.shards).overlaps(self._record.shard)
        }

    def wait_for(self, leases: dict[int, Held]) -> None:
        """Return once these are over; raises FencedError if one is renewed."""
        if not leases:
            return
        announce(
            f"waiting {LEASE_S:g} s for {len(leases)} more leases on {self._record.topic}: the "
            "shards that this one was made of did not give them back"
        )
        watch(LEASE_S, lambda: [self._is_left(*lease) for lease in leases.items()])

    def take_over(self, leases: dict[int, Held]) -> None:
        """Have their holders renew them no more; raises FencedError, or KafkaException."""
        for number, held in leases.items():
            ask_again(partial(self._settle, number, held), self._timeout_s, FENCED_TIMES)

    def _settle(self, number: int, held: Held) -> None:
        if not self._is_left(number, held):
            return
        producer = self._new_producer(CALL_S, number)
        if self._is_left(number, held):  # from here on its holder can renew it no more
            run, generation = self._own.run, self._own.generation
            over = replace(held, run=run, generation=generation, released=True)
            self._record.write(producer, over, number)

    def _is_left(self, number: int, held: Held) -> bool:
        """Say whether a lease is as it was; raises FencedError if its holder has renewed it."""
        now = self._record.read_of(number)
        if now == held:
            return True
        if now is not None and now.generation == self._own.generation:
            return False  # another new shard has it, or has settled it
        msg = (
            f"shard {Shard(number, held.shards)} of output topic {self._record.topic} runs, and "
            "this store was made of its store: stop it, and make the new stores again"
        )
        raise FencedError(msg)
