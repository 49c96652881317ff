"""What happened in a simulation, as far as the judge must know: runs, orders and outages."""

from collections import Counter, defaultdict

from msgspec import Struct, field

from dataflows.messages import RecordId
from tests.support.fake_kafka import Reading, Where


class Past(Struct):
    """A run that is over; readings by input partition."""

    began_ms: int
    ended_ms: int
    readings: dict[Where, Reading]


class Skip(Struct):
    """A time of a lane that it made up for at once: after after_ms, up to and with upto_ms.

    It was back by itself at back_ms, which is later when a source was still behind.
    """

    after_ms: int
    upto_ms: int
    back_ms: int


class Undone(Struct):
    """Records that a lane took in after the first kept ones of its order, before a crash."""

    kept: int
    records: list[RecordId]


class Order(Struct):
    """The order in which a lane took in its facts, by where they were in Kafka.

    A crash takes back what was after the last snapshot; the next run takes that in again, in the
    same order where it is of one partition.
    """

    taken: list[RecordId] = []
    undone: list[Undone] = []

    def resume(self, offsets: dict[Where, int]) -> None:
        """Keep what is before the offsets that are stored."""
        kept = [record for record in self.taken if record.offset < offsets.get(record[:2], 0)]
        assert self.taken[: len(kept)] == kept, "a snapshot has later facts without earlier ones"
        if len(kept) < len(self.taken):
            self.undone.append(Undone(len(kept), self.taken[len(kept) :]))
        self.taken = kept


class History(Struct):
    """All of it, by lane where it is of a lane."""

    pasts: list[Past] = []
    orders: defaultdict[int, Order] = field(default_factory=lambda: defaultdict(Order))
    skips: defaultdict[int, list[Skip]] = field(default_factory=lambda: defaultdict(list))
    doubled_letters: Counter[RecordId] = field(default_factory=Counter)
