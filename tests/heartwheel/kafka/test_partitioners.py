"""Where senders put a key."""

import pytest

from heartwheel.kafka.partitioners import PARTITIONERS
from session_logic.keys import key_group_of, lane_of


@pytest.mark.parametrize(
    ("key", "found"),
    [
        # As Kafka's own tests of its Java client have them.
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
def test_murmur2_is_that_of_java_clients(key: str, found: int) -> None:
    """The sign is left out, then it is divided by the partitions."""
    for partitions in (1, 3, 64, 1 << 31):
        place = PARTITIONERS["murmur2"](key.encode(), partitions)
        assert place == (found & 0x7FFFFFFF) % partitions


def test_consistent_is_that_by_which_a_lane_has_a_device() -> None:
    """By route hash, with as many partitions as lanes."""
    for name in map("device-{}".format, range(100)):
        lane = lane_of(key_group_of(name), 8)
        assert PARTITIONERS["consistent"](name.encode(), 8) == lane
