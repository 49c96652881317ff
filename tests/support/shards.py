"""Shards of a run on a real Kafka, each with a store of its own."""

import subprocess
from pathlib import Path

from tests.support.cluster import Cluster
from tests.support.traffic import start


def shard(cluster: Cluster, name: str, store: str = "", **more: str) -> subprocess.Popen[str]:
    """Start a shard with a store of its own."""
    folder = str(cluster.folder / (store or name.replace("/", "-of-")))
    return start(cluster, HEARTWHEEL_SHARD=name, HEARTWHEEL_RECOVERY_DIR=folder, **more)


def run_shards(cluster: Cluster, count: int) -> list[subprocess.Popen[str]]:
    """Start every shard, and wait until they have their leases."""
    flows = [shard(cluster, f"{number}/{count}") for number in range(count)]
    for flow in flows:
        cluster.wait("a shard", lambda flow=flow: "running" in cluster.errors(flow), 60)
    return flows


def run_stores(cluster: Cluster, stores: list[Path]) -> list[subprocess.Popen[str]]:
    """Start the shards of these stores, and wait until they all run."""
    flows = [shard(cluster, f"{n}/{len(stores)}", str(one)) for n, one in enumerate(stores)]
    for flow in flows:
        cluster.wait("a shard", lambda flow=flow: "running" in cluster.errors(flow), 90)
    return flows
