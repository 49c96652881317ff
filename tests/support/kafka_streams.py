"""The peer on Kafka Streams: the same job, built with Maven on first use and after each change."""

import subprocess
from hashlib import sha256
from pathlib import Path

from tests.support.broker import ROOT
from tests.support.cluster import Cluster
from tests.support.maven import fetch

PROJECT = ROOT / "benchmarks" / "peers" / "kafka-streams"
EXACTLY_ONCE = "processing.guarantee=exactly_once_v2"


def build() -> Path:
    """Return the folder of the peer's jars, by what it is built from."""
    sources = [PROJECT / "pom.xml", *sorted((PROJECT / "src").rglob("*.java"))]
    digest = sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    folder = ROOT / ".cache" / f"kafka-streams-{digest}"
    return fetch(folder, "package", pom=PROJECT / "pom.xml")


def start(cluster: Cluster, *settings: str, heap_mb: int = 256) -> subprocess.Popen[str]:
    """Start the peer in the place of a run; a setting of Kafka Streams is NAME=VALUE."""
    options = [f"-Xms{heap_mb}m", f"-Xmx{heap_mb}m", "-XX:+UseG1GC"]
    options += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{build()}/*"]
    return cluster.start_program("java", *options, "peer.Peer", *settings)
