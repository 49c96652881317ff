"""Three brokers, of which one is away: it is stopped, killed or hangs, and comes back."""

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from confluent_kafka.admin import NewTopic

from session_logic.events import Heartbeat, SessionEnd
from tests.support.broker import Broker
from tests.support.check import Difference, check_whole
from tests.support.cluster import Cluster
from tests.support.endpoint import get
from tests.support.everything import turn_on
from tests.support.ports import free_port
from tests.support.scrape import Metrics
from tests.support.shards import run_shards, shard
from tests.support.three_brokers import ThreeBrokers
from tests.support.traffic import (
    ALL,
    Traffic,
    catch_up,
    check,
    compare,
    start,
    start_under_load,
    stop,
    wait_for_more,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

AWAY_S = 12  # Kafka gives the partitions of a broker that hangs to the others after 9 s
STOPPED_S = 5  # one that stops gives them away itself
# Senders hold input back meanwhile, and a late start brings its newest ten heartbeats only.
HEARTBEAT_MS = 8_000
# Devices ping every 3 s, and their sender holds pings back around a fault, for long if busy.
# A run that is killed meanwhile does not know of the outage, so the timeout is longer than a test.
IDLE_MS = 180_000
SHARDS = ["0/2", "1/2"]
FAULTS = {
    "stopped": lambda broker: broker.stop(),
    "killed": lambda broker: broker.stop(signal.SIGKILL),
    "hanging": Broker.pause,
}
_numbers = count()


@pytest.fixture(scope="module")
def kafka(kafka_libs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreeBrokers]:
    """Start three brokers."""
    assert kafka_libs.exists()
    brokers = ThreeBrokers(tmp_path_factory.mktemp("brokers"))
    brokers.start()
    yield brokers
    brokers.stop()


@pytest.fixture
def replicated(kafka: ThreeBrokers, tmp_path: Path) -> Iterator[Cluster]:
    """Return topics with three replicas; every broker is there at the beginning."""
    kafka.wait_until_whole()
    made = Cluster(
        kafka.address, tmp_path, f"r{next(_numbers)}", heartbeat_ms=HEARTBEAT_MS, replicas=3
    )
    made.outages = True
    yield made
    made.end()
    for broker in kafka.brokers:
        broker.resume()


def bad_records(cluster: Cluster) -> int:
    """Return how many records of the input are no event: a sender may have sent one twice."""
    records = (record for topic in cluster.inputs for record in cluster.read(topic))
    return sum((record.value or b"").startswith(b"bad") for record in records)


def sent_again(cluster: Cluster) -> int:
    """Return how many records of the output Kafka's client has sent again.

    They have the timestamp of the first time, which a run that sends again does not give them.
    """
    records = cluster.read(cluster.output)
    return len(records) - len({(r.partition, r.time_ms, r.key, r.value) for r in records})


def put_topic(cluster: Cluster, name: str, node: int) -> None:
    """Make a topic of one partition that is on one broker only."""
    topic = NewTopic(name, 1, replica_assignment=[[node]], config={"min.insync.replicas": "1"})
    for future in cluster.admin.create_topics([topic]).values():
        future.result()


@pytest.mark.parametrize("fault", FAULTS)
def test_brokers_away_in_turn_while_runs_are_killed_lose_and_double_nothing(
    kafka: ThreeBrokers, replicated: Cluster, fault: str
) -> None:
    """Each broker is leader and coordinator of something, and each run starts without one.

    Where they hang, which is longest, everything is on.
    """
    moments = random.Random(fault)
    everything = turn_on(replicated, IDLE_MS) if fault == "hanging" else None
    signs = everything.signs if everything else ""
    flow, traffic = start_under_load(replicated, 2_000, rate=500, signs=signs)
    for broker in kafka.brokers:
        wait_for_more(replicated, 1_000)
        FAULTS[fault](broker)
        time.sleep(moments.uniform(0, 4))
        flow.kill()
        flow.wait()
        flow = start(replicated)
        time.sleep(STOPPED_S if fault == "stopped" else AWAY_S)
        assert flow.poll() is None, replicated.errors(flow)
        broker.resume()
        kafka.wait_until_whole()
        replicated.wait_for_renewals()
    through_ms = catch_up(replicated, traffic)
    stop(replicated, flow)
    check(replicated, through_ms)
    if everything:
        assert everything.check(replicated)[0] > 100


def test_shard_killed_while_a_broker_is_away_loses_and_doubles_nothing(
    kafka: ThreeBrokers, tmp_path: Path
) -> None:
    """With everything on; the other shard goes on meanwhile."""
    kafka.wait_until_whole()
    cluster = Cluster(
        kafka.address,
        tmp_path,
        "shards",
        heartbeat_ms=HEARTBEAT_MS,
        replicas=3,
        input_partitions=4,
        partitioner="murmur2",
    )
    cluster.outages = True
    cluster.variables["HEARTWHEEL_ROUTE"] = "partition"
    everything = turn_on(cluster, IDLE_MS)
    try:
        flows = run_shards(cluster, len(SHARDS))
        traffic = Traffic(cluster, 1_000, rate=500, signs=everything.signs)
        with traffic:
            wait_for_more(cluster, 2_000)
            away = kafka.brokers[0]
            away.stop(signal.SIGKILL)
            flows[1].kill()
            flows[1].wait()
            flows[1] = shard(cluster, SHARDS[1])
            time.sleep(AWAY_S)
            for flow in flows:
                assert flow.poll() is None, cluster.errors(flow)
            away.resume()
            kafka.wait_until_whole()
        through_ms = catch_up(cluster, traffic)
        stop(cluster, *flows)
        check(cluster, through_ms)
        assert everything.check(cluster)[0] > 100
    finally:
        cluster.end()
        kafka.brokers[0].resume()


def test_partitions_that_move_to_other_brokers_lose_and_double_nothing(
    kafka: ThreeBrokers, tmp_path: Path
) -> None:
    """Input, output and dead letters move under load, and the run is killed right after it.

    But for what docs/guarantees.md says of that: Kafka's client may have sent a batch again.
    """
    kafka.wait_until_whole()
    config = {"min.insync.replicas": "1"}
    cluster = Cluster(
        kafka.address, tmp_path, "moved", heartbeat_ms=2_000, replicas=2, topic_config=config
    )
    try:
        flow, traffic = start_under_load(cluster, 1_000, rate=500)
        for shift in range(3):
            wait_for_more(cluster, 1_000)
            kafka.move([*cluster.inputs, cluster.output, cluster.letters], shift)
            if shift:
                flow.kill()
                flow.wait()
                flow = start(cluster)
            assert flow.poll() is None, cluster.errors(flow)
        through_ms = catch_up(cluster, traffic)
        stop(cluster, flow)
        found, again = compare(cluster, through_ms), sent_again(cluster)
        assert found.differences == Counter({Difference.DOUBLED: again} if again else {}), found
    finally:
        cluster.end()


def test_partition_without_leader_is_left_and_made_up_for(
    kafka: ThreeBrokers, replicated: Cluster
) -> None:
    """The others' sessions go on meanwhile; its own end where they have ended, or go on."""
    far, port = f"{replicated.output}-far", free_port()
    put_topic(replicated, far, 2)
    inputs = replicated.variables["HEARTWHEEL_INPUT_TOPICS"]
    flow = replicated.start(
        HEARTWHEEL_INPUT_TOPICS=f"{inputs},{far}=console",
        HEARTWHEEL_IDLE_PARTITION_MS="3000",
        HEARTWHEEL_HEARTBEAT_MS="1000",
        HEARTWHEEL_HTTP_PORT=str(port),
        **ALL,
    )
    for session in ("ends", "stays"):
        value = f'{{"type":"GameStart","device_id":"{session}","session_id":"{session}"}}'
        replicated.send_raw(value.encode(), session, where=(far, 0))
    replicated.send("Start", "p1", "other")
    replicated.flush()

    def beats(session: str) -> int:
        return sum(isinstance(e, Heartbeat) for e in replicated.sessions().get(session, []))

    replicated.wait("heartbeats", lambda: min(map(beats, ("ends", "stays", "other"))) > 0)
    kafka.brokers[1].stop(signal.SIGKILL)
    ends_ms = time.time_ns() // 1_000_000
    replicated.wait(
        "a partition that is left",
        lambda: Metrics(port).sum("leaderless_partitions") == 1,
    )
    before = beats("other")
    replicated.wait("heartbeats of the others", lambda: beats("other") > before + 3, 60)
    value = b'{"type":"GameEnd","device_id":"ends","session_id":"ends"}'
    replicated.send_raw(value, "ends", ends_ms, where=(far, 0))
    kafka.brokers[1].resume()
    replicated.flush()
    replicated.wait(
        "the end", lambda: isinstance(replicated.sessions()["ends"][-1], SessionEnd), 60
    )
    before = beats("stays")
    replicated.wait("heartbeats of its own", lambda: beats("stays") > before + 1)
    replicated.wait("no partition left", lambda: not Metrics(port).sum("leaderless_partitions"))
    stop(replicated, flow)
    check_whole(replicated.sessions())


def test_output_partition_without_leader_is_told_and_made_up_for(
    kafka: ThreeBrokers, replicated: Cluster
) -> None:
    """The probe and the log name it; what waits is sent once it is back."""
    replicated.output, port = f"{replicated.output}-far", free_port()
    put_topic(replicated, replicated.output, 2)
    flow = replicated.start(
        HEARTWHEEL_OUTPUT_TOPIC=replicated.output,
        HEARTWHEEL_LANES="1",
        HEARTWHEEL_HEARTBEAT_MS="1000",
        HEARTWHEEL_HTTP_PORT=str(port),
        **ALL,
    )
    replicated.send("Start", "p1", "one")
    replicated.flush()
    replicated.wait("heartbeats", lambda: len(replicated.sessions().get("one", ())) > 2)
    kafka.brokers[1].stop(signal.SIGKILL)
    stalled = f"no output taken by {replicated.output}/0 for"
    replicated.wait("the probe", lambda: stalled in (get(port, "/readyz")[1] or ""), 60)
    told = "Kafka does not take the output"
    replicated.wait("the log", lambda: told in replicated.errors(flow), 60)
    kafka.brokers[1].resume()
    replicated.wait("readiness", lambda: get(port, "/readyz")[0] == 200, 60)
    before = len(replicated.sessions()["one"])
    replicated.wait("more heartbeats", lambda: len(replicated.sessions()["one"]) > before + 2)
    stop(replicated, flow)
    check_whole(replicated.sessions())


def test_dead_letter_topic_without_leader_holds_up_no_session(
    kafka: ThreeBrokers, replicated: Cluster
) -> None:
    """Bad records wait in the process meanwhile, and are all there once it is back."""
    letters = f"{replicated.letters}-far"
    put_topic(replicated, letters, 3)
    flow = replicated.start(
        HEARTWHEEL_DEAD_LETTER_TOPIC=letters, HEARTWHEEL_HEARTBEAT_MS="1000", **ALL
    )
    replicated.send("Start", "p1", "good")
    replicated.send_raw(b"bad before", "p2")
    replicated.flush()
    replicated.wait("a letter", lambda: len(replicated.read(letters)) == 1)
    kafka.brokers[2].stop(signal.SIGKILL)
    for number in range(500):
        replicated.send_raw(b"bad %d" % number, f"p{number}")
    replicated.send("Start", "c1", "later")
    replicated.flush()
    replicated.wait("beats", lambda: len(replicated.sessions().get("later", ())) > 3, 60)
    kafka.brokers[2].resume()
    count = bad_records(replicated)
    assert count > 500
    replicated.wait("the letters", lambda: len(replicated.read(letters)) >= count, 60)
    stop(replicated, flow)
    origins = [tuple(sorted(record.headers.items())) for record in replicated.read(letters)]
    assert len(set(origins)) == len(origins) == count
    check_whole(replicated.sessions())
