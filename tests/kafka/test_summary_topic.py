"""Summaries of sessions in a topic of their own on a real Kafka, through kills."""

import pytest

from tests.support.cluster import Cluster
from tests.support.consumers import check_summaries
from tests.support.traffic import kill_under_load


@pytest.mark.timeout(600)
def test_kills_under_load_lose_and_double_no_summary(cluster: Cluster) -> None:
    """kill -9 at random moments: each session that has ended has its summary once.

    In tests/kafka/test_everything.py there are topics of heartbeats and of the table as well.
    """
    summaries = cluster.give_summaries_a_topic()
    kill_under_load(cluster, 2_000, rate=2_000, more=2_000, pause_s=2)
    assert check_summaries(cluster, summaries) > 1_000
