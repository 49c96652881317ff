"""The metrics of a real run, against what was sent and what came out."""

import signal
import socket
import time
from collections import Counter
from importlib.metadata import version

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions

from dataflows.metrics import OUTCOMES, REASONS
from session_logic.codec import decode_input, decode_output
from session_logic.events import Heartbeat, OutputEvent, Rejected, SessionActive, SessionEnd
from session_logic.keys import key_group_of, lane_of
from tests.support.cluster import Cluster
from tests.support.ports import free_port
from tests.support.scenarios import BAD, VARIABLES, check_scenarios
from tests.support.scrape import Metrics


def timed(event: OutputEvent) -> bool:
    """Say whether a record is one that time has caused."""
    return isinstance(event, Heartbeat) or (
        isinstance(event, SessionEnd) and event.reason == "timed_out"
    )


def is_open(port: int) -> bool:
    """Say whether something listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def offsets(cluster: Cluster, group: str) -> dict[tuple[str, int], int]:
    """Return the committed offsets of a group, as any tool sees them."""
    wanted = [ConsumerGroupTopicPartitions(group)]
    found = cluster.admin.list_consumer_group_offsets(wanted)[group].result(30)
    return {(part.topic, part.partition): part.offset for part in found.topic_partitions}


def ends(cluster: Cluster) -> dict[tuple[str, int], int]:
    """Return the ends of all input partitions, also of those that hold nothing."""
    topics = (cluster.console, cluster.pc)
    counts = dict.fromkeys(((topic, number) for topic in topics for number in range(2)), 0)
    for topic in topics:
        for record in cluster.read(topic):
            counts[topic, record.partition] += 1
    return counts


def lane(device: str) -> str:
    """Return the label of the lane of a device."""
    return str(lane_of(key_group_of(device), 4))


def check_outcomes(metrics: Metrics, want: dict[str, int], events: list[OutputEvent]) -> None:
    """Check that every outcome is there, and that those that came about are counted."""
    counted = metrics.by("outcome", "outcomes_total")
    assert counted.keys() == set(OUTCOMES)
    assert {name: count for name, count in counted.items() if count} == want
    started = Counter(e.platform for e in events if isinstance(e, SessionActive))
    assert started.keys() == {"console", "pc"}
    for platform, count in started.items():
        assert metrics.of("outcomes_total", "started", platform) == count


def test_metrics_of_a_run_say_what_was_sent_and_what_came_out(cluster: Cluster) -> None:
    """Counters have the number of records, histograms all of them, gauges what is there."""
    port, group = free_port(), f"{cluster.output}-monitor"
    cluster.start(
        "run", "-w", "2",
        HEARTWHEEL_HTTP_PORT=str(port), HEARTWHEEL_MONITOR_GROUP=group,
        HEARTWHEEL_SNAPSHOT_MS="100",
        **VARIABLES,
    )  # fmt: skip
    for name, value in BAD.items():
        cluster.send_raw(value, name)
    check_scenarios(cluster)
    cluster.send("Start", "p1", "ended", cluster.sessions()["ended"][0].started_ms)
    cluster.send("End", "p1", "ended")
    cluster.send("End", "c1", "other")
    duplicates = 0
    while not Metrics(port).of("merge_duration_seconds_count"):
        assert duplicates < 99
        cluster.send("Start", "c1", "second")
        cluster.flush()
        duplicates += 1
        time.sleep(0.1)
    metrics = Metrics(port)
    assert metrics.of("active_sessions", lane("c1"), "console") == 1
    assert metrics.sum("active_sessions") == 1

    cluster.wait("rest", lambda: Metrics(port).by("outcome", "outcomes_total")["timed_out"] == 2)
    cluster.wait("rest", lambda: not Metrics(port).of("sink_queue_records"))
    cluster.wait("rest", lambda: not Metrics(port).sum("consumer_lag_records"))
    metrics, events = Metrics(port), cluster.events()
    outcomes = {
        "started": 4, "duplicate_start": duplicates, "late_duplicate_start": 1,
        "ended": 1, "unknown_end": 1, "stale_end": 1, "replaced": 1, "timed_out": 2,
    }  # fmt: skip
    check_outcomes(metrics, outcomes, events)
    types = {"GameStart": 5 + duplicates, "GameEnd": 3, "GamePing": 0}
    assert metrics.by("type", "events_total") == types
    rejected = [decode_input(value) for value in BAD.values()]
    reasons = Counter(event.reason for event in rejected if isinstance(event, Rejected))
    assert metrics.all("dead_letters_total") == {(r,): reasons[r] for r in REASONS}
    assert metrics.sum("active_sessions") == 0

    beats = Counter((lane(e.device_id),) for e in events if isinstance(e, Heartbeat))
    assert {k: n for k, n in metrics.all("heartbeats_total").items() if n} == beats
    # A record is acknowledged after the producer set its timestamp, when it was enqueued.
    waits_ms: dict[bool, list[int]] = {True: [], False: []}
    for record in cluster.read(cluster.output):
        event = decode_output(record.value or b"")
        waits_ms[timed(event)].append(record.time_ms - event.time_ms)
    for name, waited_ms in (
        ("heartbeat_lateness_seconds", waits_ms[True]),
        ("event_latency_seconds", waits_ms[False]),
    ):
        count, least_s = len(waited_ms), sum(waited_ms) / 1000
        assert metrics.of(f"{name}_count") == metrics.of(f"{name}_bucket", "+Inf") == count > 0
        assert least_s <= metrics.of(f"{name}_sum") < least_s + 10 * count

    assert len(metrics.all("consumer_lag_records")) == 4
    assert all(lag < 30 for lag in metrics.all("clock_lag_seconds").values())
    assert metrics.of("snapshot_age_seconds") < 30
    assert metrics.of("snapshot_duration_seconds_count") > 10
    assert metrics.of("snapshot_bytes_total") > metrics.of("store_bytes") > 100
    assert metrics.of("store_keys") >= 3
    assert metrics.sum("restore_rows_missing") == metrics.of("reconciled_records_total") == 0
    assert metrics.of("build_info", version("heartwheel")) == 1
    assert "process_resident_memory_bytes" in metrics.text
    cluster.wait("committed offsets", lambda: offsets(cluster, group) == ends(cluster))


def test_metrics_are_on_bytewax_own_page(cluster: Cluster) -> None:
    """A plain `python -m bytewax.run` shows them beside Bytewax's own."""
    port, recovery = free_port(), cluster.folder / "recovery"
    recovery.mkdir()
    assert cluster.start(str(recovery), "1", command="bytewax.recovery").wait(30) == 0
    cluster.start(
        "dataflows.sessions:flow", "-r", str(recovery), "-s", "1", "-b", "0", command="bytewax.run",
        BYTEWAX_DATAFLOW_API_ENABLED="1", BYTEWAX_DATAFLOW_API_PORT=str(port),
        BYTEWAX_DATAFLOW_API_CACHE_PATH=str(cluster.folder),
    )  # fmt: skip
    cluster.send("Start", "c1", "one")
    cluster.flush()
    cluster.wait("a heartbeat", lambda: len(cluster.events()) > 1)
    metrics = Metrics(port)
    assert metrics.of("active_sessions", lane("c1"), "console") == 1
    assert metrics.of("event_latency_seconds_count") == 1
    assert "bytewax_item_inp_count_total" in metrics.text


def test_records_found_after_a_crash_are_counted(cluster: Cluster) -> None:
    """Every record that the killed run wrote after its last snapshot is found, and counted."""
    first = cluster.start()
    cluster.send("Start", "c1", "one")
    cluster.flush()
    cluster.wait("a lane", cluster.events)
    first.send_signal(signal.SIGTERM)
    assert first.wait(20) == 0
    before = len(cluster.events())
    killed = cluster.start(HEARTWHEEL_SNAPSHOT_MS="60000", HEARTWHEEL_CATCH_UP="all")
    cluster.wait("more heartbeats", lambda: len(cluster.events()) > before + 2)
    killed.kill()
    killed.wait()
    found = len(cluster.events()) - before
    port = free_port()
    cluster.start(HEARTWHEEL_HTTP_PORT=str(port), HEARTWHEEL_CATCH_UP="all")
    cluster.wait("a heartbeat", lambda: len(cluster.events()) > before + found)
    assert Metrics(port).of("reconciled_records_total") == found


def test_last_offsets_are_committed_at_a_stop(cluster: Cluster) -> None:
    """Tools see what the last snapshot has, not the one before."""
    first = cluster.start()
    cluster.send("Start", "c-first", "first")
    cluster.flush()
    cluster.wait("a lane", cluster.events)
    first.send_signal(signal.SIGTERM)
    assert first.wait(20) == 0, cluster.errors(first)
    port, group = free_port(), f"{cluster.output}-monitor"
    flow = cluster.start(
        HEARTWHEEL_HTTP_PORT=str(port), HEARTWHEEL_MONITOR_GROUP=group,
        HEARTWHEEL_SNAPSHOT_MS="60000",
    )  # fmt: skip
    for number in range(20):
        cluster.send("Start", f"c{number}", "one")
        cluster.send("Start", f"p{number}", "one")
    cluster.flush()
    cluster.wait("a port", lambda: is_open(port))
    cluster.wait("all events", lambda: Metrics(port).by("type", "events_total")["GameStart"] == 40)
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(20) == 0, cluster.errors(flow)
    assert offsets(cluster, group) == ends(cluster)


def test_group_that_others_use_is_left_alone_and_stops_nothing(cluster: Cluster) -> None:
    """A group with members refuses the offsets: one line says so, and the run goes on."""
    group = f"{cluster.output}-monitor"
    member = Consumer({"bootstrap.servers": cluster.address, "group.id": group, "log_level": 0})
    member.subscribe([cluster.console])
    cluster.wait("a member", lambda: member.poll(0.1) is None and member.assignment())
    flow = cluster.start(HEARTWHEEL_MONITOR_GROUP=group)
    cluster.send("Start", "c1", "one")
    cluster.flush()
    cluster.wait("heartbeats", lambda: len(cluster.events()) > 3)
    member.close()
    lines = [line for line in cluster.errors(flow).splitlines() if group in line]
    assert len(lines) == 1
    assert "HEARTWHEEL_MONITOR_GROUP" in lines[0]
    cluster.wait("committed offsets", lambda: offsets(cluster, group) == ends(cluster))
