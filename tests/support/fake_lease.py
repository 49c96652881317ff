"""What the lease needs of Kafka: one committed offset, and one producer that may commit it."""

import json
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

NOTHING = TopicPartition("session-events", 0, -1001)


class FakeTime:
    """A clock that sleeps by going ahead, with what happens meanwhile."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.slept_s = 0.0
        self.meanwhile = lambda: None

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.slept_s += seconds
        self.meanwhile()


class LeaseBroker:
    """The committed offset of the group, and which producer has the transactional id."""

    def __init__(self) -> None:
        self.committed = NOTHING
        self.newest: LeaseProducer | None = None
        self.before_grant = lambda: None
        self.errors: list[int] = []  # of the next requests for the committed offset
        self.refusal: int | None = None  # of every transaction
        self.away = False
        self.commits = 0

    def hold(self, store: str, renewal: int = 1, *, released: bool = False) -> None:
        """Let a run of another process have the lease."""
        said = {"store": store, "run": f"run of {store}", "renewal": renewal, "released": released}
        self.committed = TopicPartition("session-events", 0, 0, json.dumps(said))

    def held(self) -> dict[str, Any]:
        """Return what the lease says."""
        said: dict[str, Any] = json.loads(self.committed.metadata)
        return said

    def consumer(self, _options: dict[str, Any]) -> Any:
        """Make a consumer of this broker."""
        return LeaseConsumer(self)

    def producer(self, _options: dict[str, Any]) -> Any:
        """Make a producer of this broker."""
        return LeaseProducer(self)


class LeaseConsumer:
    """Reads the committed offset."""

    def __init__(self, broker: LeaseBroker) -> None:
        self._broker = broker

    def committed(self, _parts: list[TopicPartition], _timeout: float) -> list[TopicPartition]:
        if self._broker.errors:
            raise KafkaException(KafkaError(self._broker.errors.pop(0)))
        return [self._broker.committed]

    def consumer_group_metadata(self) -> object:
        return object()


class LeaseProducer:
    """Commits the offset in a transaction, as long as no newer producer has begun."""

    def __init__(self, broker: LeaseBroker) -> None:
        self._broker = broker
        self._offset = NOTHING

    def init_transactions(self, _timeout: float) -> None:
        if self._broker.refusal is not None:
            raise KafkaException(KafkaError(self._broker.refusal))
        self._broker.before_grant()
        self._broker.newest = self

    def begin_transaction(self) -> None:
        if self._broker.away:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        if self._broker.newest is not self:
            raise KafkaException(KafkaError(KafkaError._FENCED))

    def send_offsets_to_transaction(
        self, offsets: list[TopicPartition], _group: object, _timeout: float
    ) -> None:
        (self._offset,) = offsets

    def commit_transaction(self, _timeout: float) -> None:
        self.begin_transaction()
        self._broker.committed = self._offset
        self._broker.commits += 1

    def abort_transaction(self, _timeout: float) -> None:
        """Nothing is left of a transaction."""
