"""Shards: which partitions each has, and which of them may be there together."""

import pytest

from dataflows.shard import Shard, read_shard


@pytest.mark.parametrize("shards", [1, 3, 4, 7])
def test_shards_of_one_number_share_all_partitions_out(shards: int) -> None:
    """Each partition is of one of them."""
    lanes = [lane for number in range(shards) for lane in Shard(number, shards).of(32)]
    assert sorted(lanes) == list(range(32))


def test_shards_overlap_if_there_is_a_partition_of_both() -> None:
    """Whether there are so many partitions now does not matter."""
    every = [Shard(number, shards) for shards in range(1, 9) for number in range(shards)]
    for one in every:
        for other in every:
            both = set(one.of(64)) & set(other.of(64))
            assert one.overlaps(other) == bool(both)


def test_text_names_a_shard() -> None:
    """As it is set, and none is the only one."""
    assert read_shard("2/8") == Shard(2, 8)
    assert str(Shard(2, 8)) == "2/8"
    assert read_shard("") == Shard()


@pytest.mark.parametrize(
    "text", ["2", "/", "2/", "8/8", "-1/8", "a/b", "1/0", "1/2/3", "²/8", "\uff12/8"]
)
def test_other_text_is_refused(text: str) -> None:
    """A shard that is not there would have nothing, or what another one has."""
    with pytest.raises(ValueError, match=r".*"):
        read_shard(text)
