"""What a benchmark runs on: a broker with topics, and the load in a process of its own."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from benchmarks.load import Plan
from dataflows.settings import Settings
from tests.support.broker import Broker
from tests.support.cluster import INPUT_PARTITIONS, Cluster


@contextmanager
def stage(
    folder: Path,
    lanes: int,
    broker_dir: Path | None = None,
    input_partitions: int = INPUT_PARTITIONS,
) -> Iterator[tuple[Broker, Cluster]]:
    """Yield a broker with topics, and stop all that was started on it at the end.

    The broker stamps the output, so that latency counts until a consumer may read it. It has a
    folder of its own in broker_dir, which it leaves as it was.
    """
    if broker_dir is not None:
        broker_dir.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="kafka-", dir=broker_dir or folder) as broker_folder:
        broker = Broker(Path(broker_folder), heap="1g")
        broker.start()
        cluster = Cluster(
            broker.address,
            folder,
            "bench",
            lanes=lanes,
            input_partitions=input_partitions,
            heartbeat_ms=Settings().heartbeat_ms,
            topic_config={"message.timestamp.type": "LogAppendTime"},
        )
        try:
            yield broker, cluster
        finally:
            cluster.end()
            broker.stop()


def wait_for_records(cluster: Cluster, records: int, step_s: float, limit_s: float) -> float:
    """Wait until the output has so many records, up to limit_s; return the seconds."""
    begin = time.monotonic()
    while cluster.records_out() < records and time.monotonic() - begin < limit_s:
        time.sleep(step_s)
    return time.monotonic() - begin


class LoadProcess:
    """The load as a process of its own."""

    def __init__(self, plan: Plan, folder: Path, name: str = "load") -> None:
        """Start it; it begins with the ramp, unless that is prepared."""
        self.plan = plan
        path = folder / f"{name}.json"
        path.write_bytes(msgspec.json.encode(plan))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def go(self) -> None:
        """Let the next phase begin: the ramp if it is prepared, then the steady phase."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """Let it send no more."""
        self.process.kill()
        self.process.wait()

    def result(self) -> dict[str, int]:
        """Wait for the end of the phase; return its worst lateness."""
        assert self.process.stdout is not None
        worst: dict[str, int] = json.loads(self.process.stdout.readline())
        return worst
