"""Kills under load with everything on: a topic for each consumer, pings and silence."""

import pytest

from tests.support.cluster import Cluster
from tests.support.everything import turn_on
from tests.support.traffic import kill_under_load

IDLE_MS = 6_000


@pytest.mark.timeout(600)
def test_kills_under_load_lose_and_double_nothing_in_any_topic(cluster: Cluster) -> None:
    """kill -9 at random moments: nobody who pings falls silent, and who is silent ends."""
    cluster.outages = True  # what a start takes for one, if it takes long
    everything = turn_on(cluster, IDLE_MS)
    found = kill_under_load(
        cluster, 2_000, rate=1_000, more=4_000, pause_s=2, signs=everything.signs
    )
    assert found.silent > 20
    summaries, _ = everything.check(cluster)
    assert summaries > 1_000
    assert None in {record.value for record in cluster.read(everything.table)}
