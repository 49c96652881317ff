"""What the lease on an output topic says: the committed offset of a group, with its metadata."""

from functools import partial

import msgspec
from confluent_kafka import Producer, TopicPartition
from msgspec import Struct

from dataflows.kafka.bounded_call import bounded
from dataflows.kafka.client import MakeConsumer, consumer_options
from dataflows.kafka.patience import committed
from dataflows.settings import Settings

# No call of the lease waits for longer at a time, so that it can be tried in another way.
CALL_S = 5.0
# What a call has beside that before it is left.
SPARE_S = 1.0
# A request that is not answered is given up, and its connection as well.
REQUIRED = {"socket.timeout.ms": str(int(CALL_S * 1000))}


class Held(Struct, frozen=True):
    """Which run holds a lease, or has held it; "" is what an earlier version did not say."""

    store: str = ""  # the name of its lock
    run: str = ""  # a name that no other run has
    renewal: int = 0
    released: bool = False
    lock: str = ""  # the file of its lock, on which system
    processes: int = 1
    # Whose the topic is, and where that store is (see owner.py).
    owner: str = ""
    place: str = ""
    shards: int = 1  # of the run; which one it is, the partition of the offset tells
    generation: int = 0  # how many reshardings there were before its store

    def is_proven_dead_by(self, other: "Held") -> bool:
        """Say whether a run can only have the lock of its store if this one's process is dead."""
        return bool(other.lock) and (self.store, self.lock) == (other.store, other.lock)


# Whatever a tool has written there is no run's, but a run may still be alive that writes over it.
UNREADABLE = Held("unknown")


class LeaseRecord:
    """The lease on an output topic, as it can be read."""

    def __init__(self, settings: Settings, make_consumer: MakeConsumer) -> None:
        """Make the client; it does not join the group."""
        self.topic = settings.output_topic
        self.shard = settings.own_shard
        self._lanes = settings.lanes
        self.group = f"heartwheel-{settings.output_topic}"
        required = {
            **REQUIRED,
            "group.id": self.group,
            "enable.auto.commit": "false",
            # A run that was killed while it renewed would keep a reader waiting otherwise.
            "isolation.level": "read_uncommitted",
        }
        self._consumer = make_consumer(consumer_options(settings, required, tuned=False))
        self.group_metadata = self._consumer.consumer_group_metadata()

    def read(self, patience_s: float = 0) -> Held | None:
        """Return who holds the lease; None if nobody ever had it.

        Raises KafkaException if that cannot be read in time.
        """
        return self.read_of(self.shard.number, patience_s)

    def read_of(self, number: int, patience_s: float = 0) -> Held | None:
        """Return who holds the lease of the shard with a number, as `read`."""
        (found,) = committed(self._consumer, [TopicPartition(self.topic, number)], patience_s)
        return _held(found)

    def read_others(self, patience_s: float) -> dict[int, Held]:
        """Return the leases of shards with other numbers than that of this run, by their numbers.

        Raises KafkaException if they cannot be read in time.
        """
        places = [TopicPartition(self.topic, n) for n in range(self._lanes)]
        found = committed(self._consumer, places, patience_s)
        held = {number: _held(one) for number, one in enumerate(found)}
        return {
            number: one
            for number, one in held.items()
            if one is not None and number != self.shard.number and number < one.shards
        }

    def write(self, producer: Producer, held: Held, number: int | None = None) -> None:
        """Have the lease of the shard with a number, of this run without, say something.

        Raises KafkaException if that fails.
        """
        number = self.shard.number if number is None else number
        said = TopicPartition(self.topic, number, 0, msgspec.json.encode(held).decode())
        group, limit_s = self.group_metadata, CALL_S + SPARE_S
        producer.begin_transaction()
        bounded(partial(producer.send_offsets_to_transaction, [said], group, CALL_S), limit_s)
        bounded(partial(producer.commit_transaction, CALL_S), limit_s)

    def transactional_id(self, number: int | None = None) -> str:
        """Return the id under which the lease of a shard is renewed."""
        number = self.shard.number if number is None else number
        return f"{self.group}-{number}" if number else self.group


def _held(found: TopicPartition) -> Held | None:
    """Return what an offset says of a lease, None if there is none."""
    if found.offset < 0:
        return None
    try:
        return msgspec.json.decode(found.metadata or "", type=Held)
    except msgspec.DecodeError:
        return UNREADABLE
