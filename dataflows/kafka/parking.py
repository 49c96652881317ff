"""Partitions whose messages wait for a schema: past a limit, nothing more is fetched of them.

So they leave room for the other partitions, whose messages go on.
"""

from collections.abc import Sequence

from confluent_kafka import Consumer

from dataflows.kafka.end_of_input import EndOfInput
from dataflows.kafka.partition import InputPartition

# What may wait so in all partitions together.
MAX_HELD = 10_000
MAX_HELD_BYTES = 32_000_000


def park_held(consumer: Consumer, parts: Sequence[InputPartition], now_ms: int) -> None:
    """Stop fetching partitions that hold too much, and fetch those again that are not held.

    All that was polled must be in their queues: what is fetched begins after it.
    """
    for part in parts:
        if part.parked and not part.held:
            part.parked = False
            refetched = part.end is EndOfInput.REFETCH
            consumer.incremental_assign([part.refetch() if refetched else part.position()])
    held = [part for part in parts if part.held]
    if (
        sum(len(part.pending) for part in held) > MAX_HELD
        or sum(part.pending_bytes for part in held) > MAX_HELD_BYTES
    ):
        for part in held:
            if not part.parked:
                part.parked = True
                part.invalidate_end(now_ms)
                consumer.incremental_unassign([part.place])
