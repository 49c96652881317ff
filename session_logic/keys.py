"""Which group and lane a device belongs to; stored state depends on these rules.

By the route `hash` the lane follows from the device. By the route `partition` it is the number of
the input partition that the device is in. A lane has the same groups in either case: the lane
decides the remainder of a group, the hash of the id which of them is the device's. Lanes by `hash`
are a power of two; by `partition` they can be any number, and some groups may be nobody's.
"""

from typing import Literal, NamedTuple
from zlib import crc32

KEY_GROUPS = 256
Route = Literal["hash", "partition"]


def key_group_of(device_id: str) -> int:
    """Return the group (0 to 255) of a device: crc32 of the id in UTF-8, mod 256."""
    return crc32(device_id.encode()) & (KEY_GROUPS - 1)


def lane_of(group: int, lanes: int) -> int:
    """Return the lane of a group.

    Lanes is a power of two up to KEY_GROUPS, so this is crc32(device_id) mod lanes: the partition
    that librdkafka's `consistent` partitioner chooses for the device.
    """
    return group & (lanes - 1)


def key_groups_of(lane: int, lanes: int) -> range:
    """Return the groups of a lane, in order: as many for each lane."""
    return range(lane, KEY_GROUPS - KEY_GROUPS % lanes, lanes)


def lane_may_have(device_id: str, lane: int, lanes: int, route: Route) -> bool:
    """Say whether a device can be one of a lane."""
    return route == "partition" or lane_of(key_group_of(device_id), lanes) == lane


class LaneKeys(NamedTuple):
    """The devices of a lane, whatever has brought them there; by default those of all lanes."""

    lane: int = 0
    lanes: int = 1

    def group_of(self, device_id: str) -> int:
        """Return the group of a device of this lane; by the route `hash` it is key_group_of."""
        lane, lanes = self
        return lane + lanes * (crc32(device_id.encode()) // lanes % (KEY_GROUPS // lanes))
