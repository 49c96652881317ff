"""A shard: a run of its own for a part of the partitions, which knows nothing of the others.

Shard 2/8 has the partitions 2, 10, 18 and so on of each input topic, and writes to those with the
same numbers. So no two shards share a lane, as long as all runs on a topic have the same number of
shards; the lease sees to that (dataflows/kafka/lease.py).
"""

from math import gcd
from typing import NamedTuple

SHARD_ALLOWED = "number/shards, such as 2/8, with numbers from 0, or pod/8 in a StatefulSet"


class Shard(NamedTuple):
    """Which shard of how many; by default the only one, which has everything."""

    number: int = 0
    shards: int = 1

    def of(self, partitions: int) -> range:
        """Return which of so many partitions are those of the shard."""
        return range(self.number, partitions, self.shards)

    def has(self, partition: int) -> bool:
        """Say whether a partition is one of the shard."""
        return partition % self.shards == self.number

    def overlaps(self, other: "Shard") -> bool:
        """Say whether there is a partition that both would have, were there enough of them."""
        return (self.number - other.number) % gcd(self.shards, other.shards) == 0

    def __str__(self) -> str:
        """Return it as it is set."""
        return f"{self.number}/{self.shards}"


def read_shard(text: str) -> Shard:
    """Return the shard that a text names, the only one for none; raises ValueError if it is no."""
    if not text:
        return Shard()
    number, sign, shards = text.partition("/")
    if not (
        text.isascii()
        and sign
        and number.isdecimal()
        and shards.isdecimal()
        and int(number) < int(shards)
    ):
        raise ValueError(text)
    return Shard(int(number), int(shards))
