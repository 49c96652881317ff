"""Which process has a lane: what is computed is what Bytewax does."""

import threading
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.testing import TestingSink, TestingSource, cluster_main

from dataflows.messages import lane_key
from heartwheel.cluster import Cluster
from session_logic.keys import KEY_GROUPS


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_owner_of_every_lane_is_the_worker_that_bytewax_chooses(workers: int) -> None:
    """All 256 keys go through real workers; those of an owner are together, and no other is."""
    seen: dict[int, int] = {}

    class Logic(StatefulBatchLogic[int, Any, None]):
        def on_batch(self, values: list[int]) -> tuple[list[Any], bool]:
            seen[values[0]] = threading.get_ident()
            return [], False

        def snapshot(self) -> None:
            return None

    flow = Dataflow("owners")
    items = op.input("in", flow, TestingSource([(lane_key(n), n) for n in range(KEY_GROUPS)]))
    out = op.stateful_batch("logic", items, lambda _state: Logic())
    op.output("out", out, TestingSink([]))
    cluster_main(flow, [], 0, worker_count_per_proc=workers)

    owners = Cluster(0, tuple(f"host{n}:1" for n in range(workers)))
    pairs = {(owners.owner(lane), worker) for lane, worker in seen.items()}
    assert len(seen) == KEY_GROUPS
    assert len(pairs) == len(set(seen.values())) == workers


def test_threads_of_a_process_count_as_its_own() -> None:
    """Two processes of two workers each divide the lanes as four workers do, two by two."""
    alone = Cluster(0, tuple("abcd"))
    pairs = Cluster(1, tuple("ab"), 2)
    assert [pairs.owner(n) for n in range(KEY_GROUPS)] == [
        alone.owner(n) // 2 for n in range(KEY_GROUPS)
    ]
    assert {Cluster(None, (), 4).owner(lane) for lane in range(KEY_GROUPS)} == {0}
