"""The table of active sessions on a real Kafka, through kills."""

import random
import time

import pytest

from tests.support.cluster import Cluster
from tests.support.consumers import check_table
from tests.support.traffic import catch_up, check, start, start_under_load, stop, wait_for_more

KILLS = 4


@pytest.mark.timeout(600)
def test_newest_rows_are_the_active_sessions_after_kills_under_load(cluster: Cluster) -> None:
    """kill -9 at random moments: rows come again then, and the newest of each device is right."""
    table = cluster.give_the_table_a_topic()
    moments = random.Random(KILLS)
    flow, traffic = start_under_load(cluster, 2_000, rate=1_000)
    for _ in range(KILLS):
        wait_for_more(cluster, 2_000)
        time.sleep(moments.uniform(0, 2))
        flow.kill()
        flow.wait()
        flow = start(cluster)
    through_ms = catch_up(cluster, traffic)
    stop(cluster, flow)
    check(cluster, through_ms)
    assert check_table(cluster, table) > 100
    assert None in {record.value for record in cluster.read(table)}
