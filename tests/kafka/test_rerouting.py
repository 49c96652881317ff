"""The stores of a run by hash, of shards, and of more partitions on a real Kafka, under load."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataflows.settings_sources import environment
from heartwheel.kafka.partitioners import PARTITIONERS
from tests.support.broker import Broker, create_topics
from tests.support.cluster import Cluster
from tests.support.ports import free_port
from tests.support.shards import run_shards, run_stores, shard
from tests.support.traffic import ALL, Traffic, check, start, stop, wait_for_model

DEVICES, RATE, RECORDS = 300, 100, 300
MURMUR2 = ("--partitioner", "murmur2")


@pytest.fixture
def cluster(broker: Broker, tmp_path: Path) -> Iterator[Cluster]:
    """Return topics with four partitions, that Java clients write to, for a run of four lanes."""
    name = f"reroute-{tmp_path.name[-12:]}"
    own = Cluster(
        broker.address, tmp_path, name, lanes=4, input_partitions=4, partitioner="murmur2"
    )
    yield own
    own.end()


def reshard(cluster: Cluster, old: list[Path], *options: str) -> tuple[int, str]:
    """Give the command; return its exit code and what it says."""
    command = [sys.executable, "-m", "heartwheel.cli", "store", "reshard", *map(str, old)]
    done = subprocess.run(
        [*command, *options],
        env=environment() | cluster.variables | ALL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


class Moves:
    """A run whose stores become others, each with an output topic of its own."""

    def __init__(self, cluster: Cluster, shards: int = 0) -> None:
        """Begin with some shards, or with a cluster of two processes by hash."""
        self.cluster = cluster
        self.topics = [cluster.output]
        if shards:
            cluster.variables["HEARTWHEEL_ROUTE"] = "partition"
            self.stores = [cluster.folder / f"{number}-of-{shards}" for number in range(shards)]
            self.flows = run_shards(cluster, shards)
        else:
            self.stores = [cluster.folder / "recovery"]
            places = ";".join(f"127.0.0.1:{free_port()}" for _ in range(2))
            self.flows = [start(cluster, "run", "-i", str(n), "-a", places) for n in range(2)]

    def work(self) -> None:
        """Let some more records come out."""
        before = len(self.cluster.events())
        self.cluster.wait("output", lambda: len(self.cluster.events()) > before + RECORDS, 60)

    def move(self, *options: str, shards: int, lanes: int) -> str:
        """Stop, make the new stores, and start them; return what is said."""
        cluster, number = self.cluster, len(self.topics)
        stop(cluster, *self.flows)
        to = cluster.folder / f"moved-{number}"
        given = (*options, "--shards", str(shards), "--to", str(to))
        code, said = reshard(cluster, self.stores, *given)
        assert code == 0, said
        cluster.output = f"{self.topics[0]}-{number}"
        create_topics(cluster.admin, {cluster.output: lanes})
        self.topics.append(cluster.output)
        self.stores = [to / str(shard) for shard in range(shards)]
        by_hash = "hash" in options
        cluster.variables |= {
            "HEARTWHEEL_OUTPUT_TOPIC": cluster.output,
            "HEARTWHEEL_LANES": str(lanes),
            "HEARTWHEEL_ROUTE": "hash" if by_hash else "partition",
        }
        if by_hash:
            self.flows = [start(cluster, HEARTWHEEL_RECOVERY_DIR=str(self.stores[0]))]
        else:
            self.flows = run_stores(cluster, self.stores)
        return said

    def finish(self) -> int:
        """Wait for all that is due, stop, and compare; return the number of records."""
        through_ms = wait_for_model(self.cluster, self.topics)
        stop(self.cluster, *self.flows)
        return check(self.cluster, through_ms, self.topics).records


def are_placed(cluster: Cluster, partitions: int) -> bool:
    """Say whether each record of the output is where its device's input is."""
    place = PARTITIONERS["murmur2"]
    found = cluster.read(cluster.output)
    return bool(found) and all(place(one.key or b"", partitions) == one.partition for one in found)


def test_cluster_by_hash_becomes_four_shards_and_one_run_again_under_load(cluster: Cluster) -> None:
    """Read one after the other, the three topics have each record once and in order."""
    moves = Moves(cluster)
    traffic = Traffic(cluster, DEVICES, RATE)
    traffic.start_all()
    with traffic:
        moves.work()
        wrong = reshard(cluster, moves.stores, "--to", "x", "--shards", "4", *MURMUR2)
        assert wrong[0] == 1, "it runs"
        said = moves.move(*MURMUR2, shards=4, lanes=4)
        assert "devices of the input are where murmur2 puts them" in said
        moves.work()
        assert are_placed(cluster, 4)
        moves.move("--route", "hash", "--lanes", "2", shards=1, lanes=2)
        moves.work()
    assert moves.finish() > 3 * RECORDS


def test_partitions_that_are_added_are_taken_in_by_shards_with_more_lanes(
    cluster: Cluster,
) -> None:
    """First senders pause for it, then they do not, as each device stays or is in an added one.

    A killed shard starts again before that; another partitioner than that of senders is seen.
    """
    moves = Moves(cluster, shards=2)
    traffic = Traffic(cluster, DEVICES, RATE)
    traffic.start_all()
    with traffic:
        moves.work()
    cluster.add_partitions(6)
    moves.flows.pop().kill()
    moves.flows.append(shard(cluster, "1/2"))
    wait_for_model(cluster, moves.topics)
    stop(cluster, *moves.flows)
    target = cluster.folder / "wrong"
    given = ("--to", str(target), "--shards", "3", "--lanes", "6", "--partitioner")
    code, said = reshard(cluster, moves.stores, *given, "consistent")
    assert (code, "by consistent: give the" in said) == (2, True), said
    assert not target.exists()
    moves.flows = []
    moves.move("--lanes", "6", *MURMUR2, shards=3, lanes=6)
    with traffic:
        moves.work()
        assert are_placed(cluster, 6)
        cluster.add_partitions(12)
        moves.work()
        moves.move("--lanes", "12", *MURMUR2, shards=2, lanes=12)
        moves.work()
    assert moves.finish() > 3 * RECORDS
    assert are_placed(cluster, 12)
