"""The peer on Kafka Streams, which the benchmark puts beside ours: it does the same job."""

import time
from collections import Counter

import pytest

from session_logic.events import SessionEnd
from tests.support.cluster import Cluster
from tests.support.kafka_streams import EXACTLY_ONCE, start
from tests.support.missing import JAVAC, require
from tests.support.traffic import check

DEVICES = 400
MAX_MS = 6_000


def ends(cluster: Cluster) -> Counter[str]:
    """Return how many sessions have ended for each reason."""
    return Counter(e.reason for e in cluster.events() if isinstance(e, SessionEnd))


@pytest.mark.slow
@pytest.mark.parametrize("settings", [(), (EXACTLY_ONCE,)], ids=["at least once", "exactly once"])
def test_peer_gives_what_the_model_says(cluster: Cluster, settings: tuple[str, ...]) -> None:
    """Starts, repeats, replacements, ends, heartbeats and timeouts, in our format."""
    require(JAVAC)
    cluster.variables["HEARTWHEEL_MAX_SESSION_MS"] = str(MAX_MS)
    peer = start(cluster, *settings)
    # Its clock does not wait for unread input, so it must be up before there is any.
    cluster.send("Start", "p-first", "first")
    cluster.wait("the peer", cluster.records_out, 60)
    devices = [f"{'cp'[number % 2]}-\u00e4-{number}" for number in range(DEVICES)]
    for device in devices:
        cluster.send("Start", device, f'{device}-\\"1')
    cluster.wait("heartbeats", lambda: cluster.records_out() > 2 * DEVICES)
    # Of four devices, one repeats its start, one replaces its session, and one ends it.
    for number, device in enumerate(devices):
        repeated = device, f'{device}-\\"1'
        match number // 2 % 4:
            case 0:
                cluster.send("Start", *repeated)
            case 1:
                cluster.send("Start", device, f"{device}-2")
            case 2:
                cluster.send("End", *repeated)
            case 3:
                cluster.send("End", device, "another")
    left = DEVICES * 3 // 4 + 1
    cluster.wait("timeouts", lambda: ends(cluster)["timed_out"] == left, 60)
    peer.terminate()
    peer.wait(30)
    found = check(cluster, time.time_ns() // 1_000_000)
    assert found.sessions == DEVICES * 5 // 4 + 1
    assert ends(cluster) == {"timed_out": left, "replaced": DEVICES // 4, "ended": DEVICES // 4}
