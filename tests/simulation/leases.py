"""The leases of a simulation's runs, and a coordinator that moves from broker to broker.

While it moves, no call of the lease comes through: it is refused, or not answered, and a commit
that was not answered may have happened. A coordinator that has taken over may also refuse the
producer of the rightful run. None of that is a reason for a run to end; and by the rules in
docs/guarantees.md nothing is sent without a renewal of the last 30 s, or of the last 15 s in a
process that only follows.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from unittest.mock import patch
from uuid import uuid4

from confluent_kafka import KafkaError, KafkaException
from msgspec import Struct

from dataflows.kafka import (
    followed_lease,
    inherited_leases,
    lease,
    lease_record,
    patience,
    permit,
    producer,
)
from dataflows.kafka.followed_lease import FollowedLease
from dataflows.kafka.lease import Lease
from dataflows.kafka.lease_record import CALL_S, Held
from dataflows.kafka.permit import FOLLOWED_S, LEASE_S, WritePermit
from dataflows.settings import Settings
from tests.support.fake_lease import (
    ABORTABLE,
    FENCED,
    RETRIABLE,
    SILENT,
    LeaseBroker,
    LeaseProducer,
)

NO_COORDINATOR = [
    KafkaError(KafkaError.NOT_COORDINATOR),
    KafkaError(KafkaError.COORDINATOR_NOT_AVAILABLE),
    KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS),
]
# What a call meets with while the coordinator moves; nothing is asked of Kafka to begin.
OUTCOMES = {
    "committed": [*NO_COORDINATOR, SILENT, RETRIABLE],
    "init_transactions": [SILENT, RETRIABLE],
    "send_offsets_to_transaction": [SILENT, RETRIABLE, ABORTABLE],
    "commit_transaction": [SILENT, SILENT, RETRIABLE, ABORTABLE, FENCED],
}
# Once the coordinator answers, a lease is renewed within this: after two calls that time out.
RENEWED_MS = 15_000


class SimulatedTime:
    """The time for what asks for it by itself; who waits lets it pass, but for the leases."""

    def __init__(self, now_ms: Callable[[], int], wait: Callable[[int], None]) -> None:
        self._now_ms = now_ms
        self._wait = wait
        self.is_aside = False  # a thread of its own calls, while all others go on
        self.aside_s = 0.0

    def boot_time_s(self) -> float:
        return self._now_ms() / 1000

    def monotonic(self) -> float:
        return self._now_ms() / 1000 + self.aside_s

    def sleep(self, seconds: float) -> None:
        if self.is_aside:
            self.aside_s += seconds
        else:
            self._wait(round(seconds * 1000))

    @contextmanager
    def instead(self) -> Iterator[None]:
        """Let the product have this time meanwhile, and no thread of its own."""

        def at_once(call: Callable[[], object], _limit_s: float) -> object:
            return call()

        silent = {"announced": lambda _: nullcontext()}
        with (
            patch.multiple(lease, boot_time_s=self.boot_time_s, bounded=at_once, **silent),
            patch.object(lease_record, "bounded", at_once),
            patch.multiple(inherited_leases, time=self, boot_time_s=self.boot_time_s),
            patch.multiple(permit, time=self, boot_time_s=self.boot_time_s),
            patch.object(followed_lease, "boot_time_s", self.boot_time_s),
            patch.multiple(patience, time=self, **silent),
            patch.object(producer, "discard_unsent", lambda: None),
        ):
            yield


class Coordinator(LeaseBroker):
    """The broker that keeps the lease, which is another one from time to time."""

    def __init__(self, time: SimulatedTime, choice: random.Random) -> None:
        super().__init__()
        self._time = time
        self._random = choice
        self.back_ms = 0  # when it has moved
        self.renewed_ms = 0  # when the newest renewal was committed
        self._prepared: LeaseProducer | None = None
        self._refuses = False

    @property
    def is_away(self) -> bool:
        """Whether it is moving."""
        return self._time.monotonic() * 1000 < self.back_ms

    def move(self, for_ms: int) -> None:
        """Be away for a while."""
        self.back_ms = max(self.back_ms, round(self._time.monotonic() * 1000) + for_ms)
        self._refuses = self._random.random() < 0.3

    def meet(self, call: str) -> None:
        if self.is_away and call in OUTCOMES:
            error = self._random.choice(OUTCOMES[call])
            if error is SILENT:
                self._time.sleep(CALL_S)
            raise KafkaException(error)
        if self._prepared is not None:  # who has taken over ends what was to be committed
            self.take(self._prepared)
        if self._refuses and call in ("commit_transaction", "init_transactions"):
            self._refuses = False  # whoever begins anew is not refused
            if call == "commit_transaction":
                raise KafkaException(FENCED)

    def leave_open(self, who: LeaseProducer) -> None:
        if who is self.newest and self._random.random() < 0.5:
            self._prepared = who

    def take(self, who: LeaseProducer) -> None:
        super().take(who)
        self._prepared = None
        self.renewed_ms = round(self._time.boot_time_s() * 1000)


class _Kept(Struct):
    """A permit, and what renews it when."""

    permit: WritePermit
    renew: Callable[[], None]
    every_ms: int
    due_ms: int = 0


class Leases:
    """The leases of one run after the other; in some histories there are none."""

    def __init__(
        self,
        settings: Settings,
        seed: int,
        time: SimulatedTime,
        coordinator: Coordinator | None = None,
    ) -> None:
        """Give runs a lease in some histories, or in each by a coordinator."""
        self._settings = settings
        self._random = random.Random(f"leases {seed}")
        self._time = time
        self.wanted = self._random.random() < 0.4 or coordinator is not None
        self._chance = self._random.choice([0.02, 0.05])
        self.coordinator = coordinator or Coordinator(time, self._random)
        self._kept: list[_Kept] = []
        self._lease: Lease | None = None
        self._turned_ms = 0
        self.counts: Counter[str] = Counter()

    @property
    def _now_ms(self) -> int:
        return round(self._time.boot_time_s() * 1000)

    def begin(self, processes: int) -> list[WritePermit | None]:
        """Take the lease for a run; return what lets each of its processes write.

        Raises LeaseError if the coordinator moves just then.
        """
        if not self.wanted:
            return [None] * processes
        self.end()
        shards = self._settings.own_shard.shards
        held = Held("store", uuid4().hex, lock="here", processes=processes, shards=shards)
        make = self.coordinator.consumer
        self._lease = Lease(self._settings, held, make, self.coordinator.producer)
        followers = [FollowedLease(self._settings, make) for _ in range(processes - 1)]
        for one in (self._lease, *followers):
            one.permit.keep = partial(self._keep, one.permit)  # type: ignore[method-assign]
            one.acquire()
        return [one.permit for one in (self._lease, *followers)]

    def _keep(self, permit: WritePermit, renew: Callable[[], None], every_s: float) -> None:
        """Keep a permit without a thread."""
        self._kept.append(_Kept(permit, renew, round(every_s * 1000), self._now_ms))

    def trouble(self) -> None:
        """Let the coordinator move, if it is time for that."""
        if self.wanted and self._random.random() < self._chance:
            self.coordinator.move(self._random.choice([300, 1_500, 6_000, 12_000, 35_000]))
            self.counts["coordinators moved"] += 1

    def settle(self) -> None:
        """Let the coordinator be there."""
        self.coordinator.back_ms = 0

    def go_on(self) -> None:
        """Give each lease its turn that has one now."""
        for kept in self._kept:
            asked = kept.permit._wake
            if self._now_ms >= kept.due_ms or asked.is_set():
                asked.clear()
                self._turn(kept)
            kept.permit.look()
        self._turned_ms = self._now_ms

    def _turn(self, kept: _Kept) -> None:
        time = self._time
        time.is_aside, time.aside_s = True, 0.0
        kept.permit.try_to(kept.renew)
        kept.due_ms = self._now_ms + kept.every_ms + round(time.aside_s * 1000)
        time.is_aside, time.aside_s = False, 0.0

    def check_send(self, index: int) -> None:
        """Raise AssertionError if a process sends without a renewal that is young enough."""
        if self.wanted:
            age_ms = self._now_ms - self.coordinator.renewed_ms
            limit_ms = 1000 * (FOLLOWED_S if index else LEASE_S)
            assert age_ms <= limit_ms, f"process {index} sends {age_ms} ms after a renewal"

    def check_end(self, error: Exception) -> None:
        """Raise AssertionError if a run has ended because of a lease that it could have."""
        idle_ms = self._now_ms - self._turned_ms
        back_for_ms = self._now_ms - self.coordinator.back_ms
        assert idle_ms > RENEWED_MS or back_for_ms <= RENEWED_MS, f"no need for: {error}"
        self.counts["runs without a lease"] += 1

    def release(self) -> None:
        """Give the lease back, as a clean stop does."""
        if self._lease is not None:
            self._lease.release()

    def end(self) -> None:
        """Forget the leases of a run that is over."""
        self._kept.clear()
        self._lease = None
