"""To which partition senders send a key: the partitioners that can be told from the key alone."""

from collections.abc import Callable
from typing import Literal
from zlib import crc32

PartitionerName = Literal["murmur2", "consistent"]
Partitioner = Callable[[bytes, int], int]

_MASK = 0xFFFFFFFF
_MIX = 0x5BD1E995
_SEED = 0x9747B28C


def _murmur2(data: bytes) -> int:
    """Return MurmurHash2 as Kafka's Java client has it, without a sign."""
    length, whole = len(data), len(data) & ~3
    found = _SEED ^ length
    for start in range(0, whole, 4):
        part = int.from_bytes(data[start : start + 4], "little") * _MIX & _MASK
        part = (part ^ part >> 24) * _MIX & _MASK
        found = (found * _MIX & _MASK) ^ part
    if length > whole:
        found = (found ^ int.from_bytes(data[whole:], "little")) * _MIX & _MASK
    found = (found ^ found >> 13) * _MIX & _MASK
    return found ^ found >> 15


def _by_murmur2(key: bytes, partitions: int) -> int:
    return (_murmur2(key) & 0x7FFFFFFF) % partitions


def _by_crc32(key: bytes, partitions: int) -> int:
    return crc32(key) % partitions


# murmur2 is that of Java clients, consistent the default of librdkafka for records with a key.
PARTITIONERS: dict[PartitionerName, Partitioner] = {
    "murmur2": _by_murmur2,
    "consistent": _by_crc32,
}
