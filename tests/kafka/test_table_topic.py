"""The table of active sessions on a real Kafka, through kills."""

import pytest

from tests.support.cluster import Cluster
from tests.support.consumers import check_table
from tests.support.traffic import kill_under_load


@pytest.mark.timeout(600)
def test_newest_rows_are_the_active_sessions_after_kills_under_load(cluster: Cluster) -> None:
    """kill -9 at random moments: rows come again then, and the newest of each device is right."""
    table = cluster.give_the_table_a_topic()
    kill_under_load(cluster, 2_000, rate=1_000, more=2_000, pause_s=2)
    assert check_table(cluster, table) > 100
    assert None in {record.value for record in cluster.read(table)}
