"""Where a stored offset is not in its partition any more."""

import pytest
from confluent_kafka import OFFSET_BEGINNING

from dataflows.kafka.gaps import gap_of


@pytest.mark.parametrize("stored", [OFFSET_BEGINNING, 3, 4, 7])
def test_offset_in_a_partition_or_before_anything_was_read_is_no_gap(stored: int) -> None:
    """A run that is stopped before its first record goes on from the beginning."""
    assert gap_of("t", 0, stored, (3, 7)) is None


@pytest.mark.parametrize(("stored", "expired"), [(0, True), (2, True), (8, False)])
def test_offset_beside_a_partition_is_a_gap(stored: int, *, expired: bool) -> None:
    """Before its first record, or behind its last."""
    gap = gap_of("t", 0, stored, (3, 7))
    assert gap is not None
    assert gap.expired is expired
