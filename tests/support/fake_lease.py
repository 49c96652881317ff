"""What the lease needs of Kafka: one committed offset, and producers that may commit it.

The producers have the states of librdkafka's: a call that timed out must be resumed, and until then
every other one is a conflict; what has failed must be aborted; what is fatal stays so.
"""

import json
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from dataflows.kafka.lease_record import Held

# With the second answer a client has a broker under the address that the first one told.
ANSWERS = 2
NOTHING = TopicPartition("session-events", 0, -1001)
SILENT = KafkaError(KafkaError._TIMED_OUT, "Timed out waiting for operation", retriable=True)
RETRIABLE = KafkaError(KafkaError._TRANSPORT, "Connection refused", retriable=True)
ABORTABLE = KafkaError(
    KafkaError.GROUP_AUTHORIZATION_FAILED, "Not authorized", txn_requires_abort=True
)
Outcome = KafkaError | Exception | Callable[[], object]
FATAL = KafkaError(KafkaError.CLUSTER_AUTHORIZATION_FAILED, "Not authorized", fatal=True)
FENCED = KafkaError(KafkaError._FENCED, "a newer producer", fatal=True)
CONFLICT = KafkaError(KafkaError._CONFLICT, "Conflicting API call", retriable=True)


class FakeTime:
    """A clock that sleeps by going ahead, with what happens meanwhile."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.slept_s = 0.0
        self.meanwhile = lambda: None

    def boot_time_s(self) -> float:
        return self.now_s

    monotonic = boot_time_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.slept_s += seconds
        self.meanwhile()
        time.sleep(0.0001)  # the other threads go on


class LeaseBroker:
    """The committed offset of the group, and which producer has the transactional id."""

    def __init__(self) -> None:
        self.committed = NOTHING
        self.others: dict[int, TopicPartition] = {}  # what other shards have committed
        self.newest: LeaseProducer | None = None
        self.before_grant = lambda: None
        self.read_errors: deque[int] = deque()  # of the next requests for the committed offset
        # What the next calls of that name do instead, each once.
        self.outcomes: dict[str, deque[Outcome]] = {}
        self.down: KafkaError | None = None  # what every call does instead
        self.commits = 0
        self.producers = 0
        self.asked_early = 0  # how many producers looked for a coordinator before ANSWERS
        self.reads = 0

    def hold(
        self,
        store: str,
        renewal: int = 1,
        *,
        released: bool = False,
        place: str = "there",
        processes: int = 1,
    ) -> None:
        """Let a run of another process have the lease."""
        held = Held(
            store, f"run of {store}", renewal, released=released, lock=place, processes=processes
        )
        said = {name: getattr(held, name) for name in held.__struct_fields__}
        self.committed = TopicPartition("session-events", 0, 0, json.dumps(said))

    def say(self, number: int, held: Held) -> None:
        """Let the shard with a number have a lease."""
        said = {name: getattr(held, name) for name in held.__struct_fields__}
        self.others[number] = TopicPartition("session-events", number, 0, json.dumps(said))

    def offset_of(self, partition: int) -> TopicPartition:
        """Return what is committed for a partition."""
        if self.committed is not NOTHING and self.committed.partition == partition:
            return self.committed
        return self.others.get(partition, NOTHING)

    def held(self) -> dict[str, Any]:
        """Return what the lease says."""
        said: dict[str, Any] = json.loads(self.committed.metadata)
        return said

    def script(self, call: str, *outcomes: Outcome) -> None:
        """Let the next calls of that name go wrong, one after the other."""
        self.outcomes[call] = deque(outcomes)

    def meet(self, call: str) -> None:
        """Raise what a call meets with."""
        if self.down is not None:
            raise KafkaException(self.down)
        if planned := self.outcomes.get(call):
            outcome = planned.popleft()
            if callable(outcome):
                outcome()
            else:
                raise KafkaException(outcome) if isinstance(outcome, KafkaError) else outcome

    def take(self, who: "LeaseProducer") -> None:
        """Commit what a producer has sent."""
        self.committed = self.others[who.offset.partition] = who.offset
        self.commits += 1

    def leave_open(self, who: "LeaseProducer") -> None:
        """Know of a commit that was not answered."""

    def consumer(self, _options: dict[str, Any]) -> Any:
        """Make a consumer of this broker."""
        return LeaseConsumer(self)

    def producer(self, _options: dict[str, Any]) -> Any:
        """Make a producer of this broker."""
        self.producers += 1
        return LeaseProducer(self)


class LeaseConsumer:
    """Reads the committed offset."""

    def __init__(self, broker: LeaseBroker) -> None:
        self._broker = broker

    def committed(self, parts: list[TopicPartition], _timeout: float) -> list[TopicPartition]:
        self._broker.meet("committed")
        self._broker.reads += 1
        if self._broker.read_errors:
            raise KafkaException(KafkaError(self._broker.read_errors.popleft()))
        return [self._broker.offset_of(part.partition) for part in parts]

    def consumer_group_metadata(self) -> object:
        return object()


class LeaseProducer:
    """Commits the offset in a transaction, as long as no newer producer has begun."""

    def __init__(self, broker: LeaseBroker) -> None:
        self._broker = broker
        self.offset = NOTHING
        self._unfinished = ""  # the call that timed out
        self._state = "new"
        self._answers = 0  # of brokers
        self._fatal: KafkaError | None = None

    def _call(self, name: str, *states: str, resumable: bool = False) -> None:
        if self._fatal is not None:
            raise KafkaException(self._fatal)
        if self._unfinished not in ("", name):
            raise KafkaException(CONFLICT)
        if self._state not in states:
            raise KafkaException(KafkaError(KafkaError._STATE, f"not valid in state {self._state}"))
        self._unfinished = ""
        try:
            self._broker.meet(name)
        except KafkaException as met:
            error = met.args[0]
            if error.fatal():
                self._fatal = error
            elif error.txn_requires_abort():
                self._state = "failed"
            elif resumable and error.retriable():
                self._unfinished = name
            raise

    def list_topics(self, *, timeout: float) -> None:
        if self._broker.down is not None:
            raise KafkaException(self._broker.down)
        self._answers += 1

    def init_transactions(self, _timeout: float) -> None:
        self._broker.asked_early += self._answers < ANSWERS
        self._call("init_transactions", "new", resumable=True)
        self._broker.before_grant()
        self._broker.newest = self
        self._state = "ready"

    def begin_transaction(self) -> None:
        self._call("begin_transaction", "ready")
        self._state = "open"

    def send_offsets_to_transaction(
        self, offsets: list[TopicPartition], _group: object, _timeout: float
    ) -> None:
        self._call("send_offsets_to_transaction", "open")
        (self.offset,) = offsets

    def commit_transaction(self, _timeout: float) -> None:
        try:
            self._call("commit_transaction", "open", resumable=True)
        except KafkaException:
            self._broker.leave_open(self)
            raise
        if self._broker.newest is not self:
            self._fatal = FENCED
            raise KafkaException(FENCED)
        self._broker.take(self)
        self._state = "ready"

    def abort_transaction(self, _timeout: float) -> None:
        self._call("abort_transaction", "open", "failed", resumable=True)
        self._state = "ready"
