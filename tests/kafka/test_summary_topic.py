"""Summaries of sessions in a topic of their own on a real Kafka, through kills."""

import random
import time

import pytest

from tests.support.cluster import Cluster
from tests.support.consumers import check_summaries
from tests.support.traffic import catch_up, check, start, start_under_load, stop, wait_for_more

KILLS = 4


@pytest.mark.timeout(600)
@pytest.mark.parametrize("apart", [False, True], ids=["alone", "beside heartbeats"])
def test_kills_under_load_lose_and_double_no_summary(cluster: Cluster, *, apart: bool) -> None:
    """kill -9 at random moments: each session that has ended has its summary once."""
    summaries = cluster.give_summaries_a_topic()
    if apart:
        cluster.give_heartbeats_a_topic()
    moments = random.Random(KILLS)
    flow, traffic = start_under_load(cluster, 2_000, rate=2_000)
    for _ in range(KILLS):
        wait_for_more(cluster, 2_000)
        time.sleep(moments.uniform(0, 2))
        flow.kill()
        flow.wait()
        flow = start(cluster)
    through_ms = catch_up(cluster, traffic)
    stop(cluster, flow)
    check(cluster, through_ms)
    assert check_summaries(cluster, summaries) > 1_000
