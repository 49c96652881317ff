"""Gaps: a partition does not have the offset from which a store wants to go on.

Either its records have expired, or it is shorter than it was: cut (a broker that lost its disk, an
election of a replica that was behind), or made anew. A start is refused first, because something
may be lost, and `heartwheel store skip` goes on without it.

A transaction's marker has an offset as well. A run stores the one behind it as soon as Kafka has
said that the partition ends there. But what has expired before that cannot be looked at any more:
it may have been a record, of a transaction or of another sender, or nothing but the marker. Nothing
that Kafka tells of a partition would prove which, so it counts as lost.
"""

from msgspec import Struct

SKIP = "`heartwheel store skip` goes on without them and keeps the sessions"


class Gap(Struct, frozen=True):
    """The offset that is stored for a partition, and the bounds of what the partition has."""

    topic: str
    partition: int
    stored: int
    low: int
    high: int

    @property
    def where(self) -> str:
        """The partition in one word."""
        return f"{self.topic}/{self.partition}"

    @property
    def expired(self) -> bool:
        """Whether the partition begins behind the offset; else it ends before it."""
        return self.stored < self.low

    @property
    def next(self) -> int:
        """The first offset behind the gap."""
        return self.low if self.expired else self.high

    @property
    def missing(self) -> str:
        """Which offsets are missing."""
        first, behind = (self.stored, self.low) if self.expired else (self.high, self.stored)
        return f"{behind - first} from offset {first} to {behind - 1}"


def gap_of(topic: str, partition: int, stored: int, bounds: tuple[int, int]) -> Gap | None:
    """Return the gap between a stored offset and a partition with these bounds, if there is one.

    An offset below 0 stands for the beginning of the partition: nothing has been read of it.
    """
    low, high = bounds
    return None if stored < 0 or low <= stored <= high else Gap(topic, partition, stored, low, high)


def expired_unread(gap: Gap) -> str:
    """Return what is gone of the input, in words."""
    return f"records, or markers of transactions, have expired unread ({gap.missing})"


def input_fault(gap: Gap) -> str:
    """Return the line that refuses a start because of a gap in the input."""
    if gap.expired:
        return (
            f"input {gap.where} begins at offset {gap.low}, but this store has read up to "
            f"{gap.stored}: {expired_unread(gap)}; {SKIP}"
        )
    return (
        f"input {gap.where} ends at offset {gap.high}, but this store has read up to {gap.stored}: "
        f"the topic was cut or made anew; {SKIP}"
    )


def output_fault(gap: Gap) -> str:
    """Return the line that refuses a start because of a gap in the output."""
    if gap.expired:
        return (
            f"{gap.where} begins at offset {gap.low}, but what was written from {gap.stored} on "
            "must be known: it has expired; `heartwheel store skip` goes on and keeps the "
            "sessions, but may send some of it twice; give the topic a longer retention"
        )
    return (
        f"{gap.where} ends at offset {gap.high}, but this store has written up to {gap.stored}: "
        f"the topic was cut or made anew; restore it, or {SKIP}"
    )
