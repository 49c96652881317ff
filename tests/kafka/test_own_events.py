"""Topics whose events have a shape of their own, on a real Kafka."""

import json
import signal
import time

from session_logic.events import Heartbeat, SessionActive, SessionEnd
from tests.support.cluster import Cluster

TABLES = """
[inputs.{pc}]
platform = "pc"
type = "eventId"
start = ["ApplicationSessionStart"]
end = ["ApplicationSessionEndBi"]
device = "hostPcId"
session = "appSessionId"
time = "timestamp"
"""


def test_topic_with_a_table_is_read_beside_one_without(cluster: Cluster) -> None:
    """Its own names, a number as id and a time in a field give records; the rest is told apart."""
    config = cluster.folder / "heartwheel.toml"
    config.write_text(TABLES.format(pc=cluster.pc))
    cluster.variables["HEARTWHEEL_INPUT_TOPICS"] = f"{cluster.console}=console"
    flow = cluster.start(HEARTWHEEL_CONFIG=str(config))
    begun_ms = int(time.time() * 1000) - 2_500
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(begun_ms / 1000))
    event = {
        "eventId": "ApplicationSessionStart",
        "hostPcId": "6fb86ebc-3d88-4e31-b913-ea939acacf56",
        "appSessionId": 9402035216,
        "timestamp": f"{moment}.{begun_ms % 1000:03}+00:00",
    }

    def send(**other: object) -> None:
        cluster.send_raw(json.dumps(event | other).encode(), str(event["hostPcId"]))

    send()
    send(eventId="ApplicationSettings")
    send(appSessionId=True)
    cluster.send("Start", "c1", "s1")
    cluster.flush()
    cluster.wait("heartbeats", lambda: len(cluster.sessions().get("9402035216", [])) > 2)
    end_ms = int(time.time() * 1000)
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(end_ms / 1000))
    send(eventId="ApplicationSessionEndBi", timestamp=f"{moment}.{end_ms % 1000:03}")
    cluster.flush()
    cluster.wait("the end", lambda: isinstance(cluster.sessions()["9402035216"][-1], SessionEnd))
    first, *beats, last = cluster.sessions()["9402035216"]
    assert first == SessionActive(str(event["hostPcId"]), "9402035216", "pc", begun_ms, begun_ms)
    assert beats
    assert all(
        isinstance(beat, Heartbeat) and beat.time_ms == begun_ms + beat.sequence * 1_000
        for beat in beats
    )
    assert isinstance(last, SessionEnd)
    assert (last.reason, last.duration_ms) == ("ended", end_ms - begun_ms)
    assert cluster.sessions()["s1"]
    (letter,) = cluster.read(cluster.letters)
    assert letter.headers["heartwheel.detail"].startswith(b"field appSessionId is true")
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(20) == 0, cluster.errors(flow)
