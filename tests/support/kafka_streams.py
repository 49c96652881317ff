"""The peer on Kafka Streams: the same job, built with Maven on first use and after each change."""

import subprocess
from hashlib import sha256
from pathlib import Path

from tests.support.broker import ROOT
from tests.support.cluster import Cluster
from tests.support.maven import fetch

PROJECT = ROOT / "benchmarks" / "peers" / "kafka-streams"
EXACTLY_ONCE = "processing.guarantee=exactly_once_v2"
JAVA = (
    # The same collector as the broker's: it pauses for less time than the parallel one.
    "-XX:+UseG1GC",
    # Many short pauses are better than few long ones.
    "-XX:MaxGCPauseMillis=10",
    # What outlives a collection is a session, which stays: it is copied once, not 15 times.
    "-XX:MaxTenuringThreshold=1",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)


def build() -> Path:
    """Return the folder of the peer's jars, by what it is built from."""
    sources = [PROJECT / "pom.xml", *sorted((PROJECT / "src").rglob("*.java"))]
    digest = sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    folder = ROOT / ".cache" / f"kafka-streams-{digest}"
    return fetch(folder, "package", pom=PROJECT / "pom.xml")


def start(
    cluster: Cluster, *settings: str, heap_mb: int = 256, **variables: str
) -> subprocess.Popen[str]:
    """Start the peer in the place of a run; a setting of Kafka Streams is NAME=VALUE."""
    heap = f"-Xms{heap_mb}m", f"-Xmx{heap_mb}m"
    program = "java", *heap, *JAVA, "-cp", f"{build()}/*", "peer.Peer"
    return cluster.start_program(*program, *settings, **variables)
