"""Which group and lane a device belongs to; stored state depends on these rules."""

from zlib import crc32

KEY_GROUPS = 256


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
    """Return the groups of a lane, in order."""
    return range(lane, KEY_GROUPS, lanes)
