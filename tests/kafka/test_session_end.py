"""A session that an operator ends: through the input, in the format of its topic."""

import json
import time

from session_logic.events import SessionEnd
from tests.support.cluster import Cluster
from tests.support.command import command, one_line
from tests.support.endpoint import get, start
from tests.support.own_events import iso, reference_table

DEVICE = "6fb86ebc-3d88-4e31-b913-ea939acacf56"


def test_session_that_is_ended_by_hand_ends_for_consumers(cluster: Cluster) -> None:
    """In our own format and as a table says; what was sent is printed, and one device is meant."""
    config = cluster.folder / "heartwheel.toml"
    config.write_text(reference_table(cluster.pc))
    cluster.variables |= {
        "HEARTWHEEL_INPUT_TOPICS": f"{cluster.console}=console",
        "HEARTWHEEL_CONFIG": str(config),
    }
    _, port = start(cluster)
    cluster.send("Start", "c1", "s1")
    cluster.send("Start", "c2", "s2")
    begun = {
        "eventId": "ApplicationSessionStart",
        "hostPcId": DEVICE,
        "appSessionId": 9402035216,
        "timestamp": iso(int(time.time() * 1000)),
    }
    cluster.send_raw(json.dumps(begun).encode(), DEVICE)
    cluster.flush()
    variables = cluster.variables | {"HEARTWHEEL_HTTP_PORT": str(port)}
    for device, platform_topic in (("c1", cluster.console), (DEVICE, cluster.pc)):
        path = f"/devices/{device}"
        cluster.wait("the session", lambda path=path: get(port, path)[0] == 200)
        before = len(cluster.read(platform_topic))
        done = command("session", "end", device, "--yes", **variables)
        assert done.returncode == 0, done
        last = done.stdout.splitlines()[-1]
        records = cluster.read(platform_topic)
        assert len(records) == before + 1
        (sent,) = [
            r
            for r in records
            if last == f"sent to {platform_topic}/{r.partition} offset {r.offset}"
        ]
        assert sent.value is not None
        assert sent.value.decode() in done.stdout
        assert sent.key == device.encode()
        cluster.wait("the end", lambda path=path: get(port, path)[0] == 404)
        one_line(command("session", "end", device, "--yes", **variables), 1, "no session is active")
    assert get(port, "/devices/c2")[0] == 200
    ended = {
        (event.device_id, event.session_id, event.reason)
        for event in cluster.events()
        if isinstance(event, SessionEnd)
    }
    assert ended == {("c1", "s1", "ended"), (DEVICE, "9402035216", "ended")}
    one_line(command("session", "end", "c2", "--yes", "--partition", "2", **variables), 2, "has 2")
    done = command("session", "end", "c2", "--yes", "--partition", "1", **variables)
    assert f"sent to {cluster.console}/1 offset" in done.stdout
    cluster.wait("the end", lambda: get(port, "/devices/c2")[0] == 404)


def test_end_that_kafka_does_not_take_is_one_line(cluster: Cluster) -> None:
    """A topic that is missing is not made by it."""
    _, port = start(cluster)
    cluster.send("Start", "c1", "s1")
    cluster.flush()
    cluster.wait("the session", lambda: get(port, "/devices/c1")[0] == 200)
    variables = cluster.variables | {"HEARTWHEEL_HTTP_PORT": str(port)}
    wrong = variables | {"HEARTWHEEL_INPUT_TOPICS": "nowhere=console"}
    done = command("session", "end", "c1", "--yes", **wrong)
    one_line(done, 2, "input topic nowhere does not exist")
    assert "nowhere" not in cluster.admin.list_topics(timeout=10).topics
    refused = variables | {"HEARTWHEEL_PRODUCER_ACKS": "7"}
    assert command("session", "end", "c1", "--yes", **refused).returncode != 0
    assert get(port, "/devices/c1")[0] == 200
