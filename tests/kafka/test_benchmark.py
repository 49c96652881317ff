"""The benchmark's check of correctness: every record of a real run against the reference model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.broker import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
SESSIONS = 40_000


@pytest.mark.parametrize(
    "more",
    [
        ["--bad", "10", "--stampede", "10000", "--poll-http"],
        ["--shards", "2", "--mapped", "--kill"],
    ],
    ids=["one", "shards, one killed"],
)
def test_benchmark_finds_every_record_in_its_place(
    kafka_libs: Path, tmp_path: Path, more: list[str]
) -> None:
    """Nothing is missing, doubled or out of order; how fast it was is not asked.

    Kafka's data are gone afterwards, so that the next run can have the same folder.
    """
    assert kafka_libs.exists()
    broker_dir = tmp_path / "broker"
    where = ("--name", "check", "--out", str(tmp_path), "--broker-dir", str(broker_dir))
    arguments = ("--scale", "0.01", "--check", *where)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench", *arguments, *more],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    assert not list(broker_dir.iterdir())
    report = json.loads((tmp_path / "check.json").read_text())
    assert report["check"]["sessions"] > SESSIONS
    assert report["check"]["records"] > 3 * SESSIONS  # heartbeats came
    assert report["latency_ms"]["Heartbeat"]["count"] > SESSIONS
