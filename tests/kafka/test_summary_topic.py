"""Summaries of sessions in a topic of their own on a real Kafka, through kills."""

import random
import time
from collections import Counter

import pytest

from session_logic.events import SessionEnd
from session_logic.summary import summary_of
from tests.support.cluster import Cluster
from tests.support.traffic import catch_up, check, start, start_under_load, stop, wait_for_more

KILLS = 4


def check_summaries(cluster: Cluster, topic: str) -> int:
    """Check that each end has one summary under its device; return how many there are."""
    ends = [event for event in cluster.events() if isinstance(event, SessionEnd)]
    wanted = Counter((end.device_id.encode(), summary_of(end)) for end in ends)
    found = Counter((record.key, record.value) for record in cluster.read(topic))
    assert not wanted - found, f"missing: {wanted - found}"
    assert not found - wanted, f"too many: {found - wanted}"
    return found.total()


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
