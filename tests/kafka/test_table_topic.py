"""The table of active sessions on a real Kafka, through kills."""

import random
import time

import pytest
from msgspec.json import decode

from session_logic.events import ActiveSession, OutputEvent, SessionActive, SessionEnd
from tests.support.cluster import Cluster
from tests.support.traffic import catch_up, check, start, start_under_load, stop, wait_for_more

KILLS = 4
SESSION_MS = 28_800_000  # the default of the maximum


def active_sessions(events: list[OutputEvent]) -> dict[bytes, ActiveSession]:
    """Return the session that each device has at the end of the output."""
    active: dict[bytes, ActiveSession] = {}
    for event in events:
        key = event.device_id.encode()
        if isinstance(event, SessionActive):
            timeout_ms = event.started_ms + SESSION_MS
            active[key] = ActiveSession(
                event.session_id, event.platform, event.started_ms, timeout_ms
            )
        elif isinstance(event, SessionEnd):
            del active[key]
    return active


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
    newest = {record.key: record.value for record in cluster.read(table)}
    found = {k: decode(v, type=ActiveSession) for k, v in newest.items() if v is not None and k}
    assert found == active_sessions(cluster.events())
    assert len(found) > 100
    assert None in newest.values()
