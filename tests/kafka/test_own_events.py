"""Topics whose events have a shape of their own, on a real Kafka."""

import json
import signal
import time
from datetime import UTC, datetime

from session_logic.events import Heartbeat, SessionActive, SessionEnd
from tests.support.cluster import Cluster
from tests.support.command import command, one_line
from tests.support.own_events import reference_table

CARRIED = """
carry = {account = "psnAccountId", traceparent = "header:traceparent"}
end_carry = {foreground_s = "totalFgTime", end_traceparent = "header:traceparent"}
"""
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
END_TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
DEVICE, SESSION = "6fb86ebc-3d88-4e31-b913-ea939acacf56", "9402035216"


def describe_topics(cluster: Cluster) -> None:
    """Have the PC topic read by a table, and the console topic in our own format."""
    config = cluster.folder / "heartwheel.toml"
    config.write_text(reference_table(cluster.pc) + CARRIED)
    cluster.variables |= {
        "HEARTWHEEL_INPUT_TOPICS": f"{cluster.console}=console",
        "HEARTWHEEL_CONFIG": str(config),
    }


def send(cluster: Cluster, time_ms: int, trace: str = TRACE, **changes: object) -> None:
    """Send an event of the reference pipeline to the PC topic; a start, if nothing is changed."""
    event = {
        "eventId": "ApplicationSessionStart",
        "hostPcId": DEVICE,
        "appSessionId": int(SESSION),
        "psnAccountId": "8275364019283746",
        "timestamp": datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds"),
    }
    value = json.dumps(event | changes).encode()
    cluster.send_raw(value, DEVICE, headers=[("traceparent", trace.encode())])
    cluster.flush()


def context(record: SessionActive | Heartbeat | SessionEnd) -> object:
    """Return what a record carries."""
    return json.loads(bytes(record.context)) if record.context else None  # type: ignore[arg-type]


def test_topic_with_a_table_is_read_beside_one_without(cluster: Cluster) -> None:
    """A number as id, a time in a field and what is carried survive a kill; the rest is told.

    Among what is carried is the trace context of a start, and of an end its own.
    """
    describe_topics(cluster)
    flow = cluster.start()
    begun_ms = int(time.time() * 1000) - 2_500
    send(cluster, begun_ms)
    send(cluster, begun_ms, eventId="ApplicationSettings")
    send(cluster, begun_ms, appSessionId=True)
    cluster.send("Start", "c1", "s1")
    cluster.flush()
    cluster.wait("heartbeats", lambda: len(cluster.sessions().get(SESSION, [])) > 2)
    flow.kill()
    flow.wait()
    flow = cluster.start()
    end_ms = int(time.time() * 1000)
    send(cluster, end_ms, END_TRACE, eventId="ApplicationSessionEndBi", totalFgTime=7)
    cluster.wait("the end", lambda: isinstance(cluster.sessions()[SESSION][-1], SessionEnd))
    first, *beats, last = cluster.sessions()[SESSION]
    carried = {"account": "8275364019283746", "traceparent": TRACE}
    assert isinstance(first, SessionActive)
    assert (first.device_id, first.platform, first.started_ms) == (DEVICE, "pc", begun_ms)
    assert context(first) == carried
    assert beats
    for beat in beats:
        assert isinstance(beat, Heartbeat)
        assert beat.time_ms == begun_ms + beat.sequence * 1_000
        assert context(beat) == carried
    assert isinstance(last, SessionEnd)
    ended = {"foreground_s": 7, "end_traceparent": END_TRACE}
    assert (last.reason, context(last)) == ("ended", carried | ended)
    assert last.time_ms == max(end_ms, beats[-1].time_ms)
    assert context(cluster.sessions()["s1"][0]) is None
    # Letters have a producer of their own, and may come later.
    cluster.wait("the letter", lambda: cluster.read(cluster.letters))
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(20) == 0, cluster.errors(flow)
    (letter,) = cluster.read(cluster.letters)
    assert letter.headers["heartwheel.detail"].startswith(b"field appSessionId is true")


def test_commands_know_a_topic_by_its_table(cluster: Cluster) -> None:
    """It is checked, created, and its dead letters are sent again."""
    describe_topics(cluster)
    variables = cluster.variables
    asked = ("--input-partitions", "2", "--timestamps", "create")
    done = command("topics", "create", *asked, **variables)
    assert f"{cluster.pc}: exists" in done.stdout, done
    flow = cluster.start()
    send(cluster, int(time.time() * 1000), hostPcId=None)
    cluster.wait("the letter", lambda: cluster.read(cluster.letters))
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(20) == 0, cluster.errors(flow)
    requeue = ("dead-letters", "requeue", "--yes")
    plain = variables | {"HEARTWHEEL_CONFIG": ""}
    one_line(command(*requeue, **plain), 2, cluster.pc, "neither in", "nor has a table")
    assert "1 dead letter sent again" in command(*requeue, **variables).stdout
    again = cluster.read(cluster.pc)[-1]
    assert again.headers["traceparent"] == TRACE.encode()
    assert again.headers["heartwheel.requeues"] == b"1"
    one_line(command("load", "--seconds", "1", **(variables | {"HEARTWHEEL_INPUT_TOPICS": "x=pc"})),
             2, "input topic x does not exist")  # fmt: skip
    del variables["HEARTWHEEL_INPUT_TOPICS"]
    missing = cluster.folder / "missing.toml"
    missing.write_text(reference_table(f"{cluster.pc}-missing"))
    done = command("topics", "check", **(variables | {"HEARTWHEEL_CONFIG": str(missing)}))
    assert f"or correct [inputs.{cluster.pc}-missing]" in done.stdout
