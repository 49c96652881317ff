"""Which process this is, and which of them has a lane: computed as Bytewax does it."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.testing import TestingSink, TestingSource, cluster_main

from dataflows.messages import lane_key
from heartwheel.cluster import Cluster, cluster_of
from session_logic.errors import ConfigError
from session_logic.keys import KEY_GROUPS
from tests.support.errors import one_line

TWO = "127.0.0.1:7001;127.0.0.1:7002"


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_owner_of_every_lane_is_the_worker_that_bytewax_chooses(workers: int) -> None:
    """All 256 keys go through real workers; those of an owner are together, and no other is."""
    seen: dict[int, int] = {}

    class Logic(StatefulBatchLogic[int, Any, None]):
        def on_batch(self, values: list[int]) -> tuple[list[Any], bool]:
            seen[values[0]] = threading.get_ident()
            return [], False

        def snapshot(self) -> None:
            return None

    flow = Dataflow("owners")
    items = op.input("in", flow, TestingSource([(lane_key(n), n) for n in range(KEY_GROUPS)]))
    out = op.stateful_batch("logic", items, lambda _state: Logic())
    op.output("out", out, TestingSink([]))
    cluster_main(flow, [], 0, worker_count_per_proc=workers)

    owners = Cluster(0, tuple(f"host{n}:1" for n in range(workers)))
    pairs = {(owners.owner(lane), worker) for lane, worker in seen.items()}
    assert len(seen) == KEY_GROUPS
    assert len(pairs) == len(set(seen.values())) == workers


def test_threads_of_a_process_count_as_its_own() -> None:
    """Two processes of two workers each divide the lanes as four workers do, two by two."""
    alone = Cluster(0, tuple("abcd"))
    pairs = Cluster(1, tuple("ab"), 2)
    assert [pairs.owner(n) for n in range(KEY_GROUPS)] == [
        alone.owner(n) // 2 for n in range(KEY_GROUPS)
    ]
    assert {Cluster(None, (), 4).owner(lane) for lane in range(KEY_GROUPS)} == {0}


@pytest.fixture(autouse=True)
def _no_bytewax_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("BYTEWAX_")]:
        monkeypatch.delenv(name)


def hostfile(monkeypatch: pytest.MonkeyPatch, path: Path) -> Path:
    """Let the host file be at this path."""
    monkeypatch.setenv("BYTEWAX_HOSTFILE_PATH", str(path))
    return path


def test_host_file_gives_the_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for every process; empty lines and spaces do not count."""
    hostfile(monkeypatch, tmp_path / "hosts").write_text("\n a:1 \nb:2\n\n")
    assert cluster_of(1, None, 1) == Cluster(1, ("a:1", "b:2"), 1)


def test_host_file_that_is_missing_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file may not be there yet, or be spelled wrong."""
    path = hostfile(monkeypatch, tmp_path / "hosts")
    with pytest.raises(ConfigError) as error:
        cluster_of(0, None, 1)
    one_line(error, "BYTEWAX_HOSTFILE_PATH", str(path), "No such file", "host:port")


@pytest.mark.parametrize("unreadable", [Path.mkdir, lambda path: path.write_bytes(b"\xff\xfe:1")])
def test_host_file_that_cannot_be_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unreadable: Callable[[Path], object]
) -> None:
    """A folder, or bytes that are no text."""
    path = hostfile(monkeypatch, tmp_path / "hosts")
    unreadable(path)
    with pytest.raises(ConfigError) as error:
        cluster_of(0, None, 1)
    one_line(error, "BYTEWAX_HOSTFILE_PATH", str(path), "cannot be read")


@pytest.mark.parametrize("text", ["", "a:1\nb:2\n"])
def test_host_file_with_too_few_lines_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Process 2 is the third one."""
    hostfile(monkeypatch, tmp_path / "hosts").write_text(text)
    with pytest.raises(ConfigError) as error:
        cluster_of(2, None, 1)
    one_line(error, "process 2 has no address", "BYTEWAX_HOSTFILE_PATH")


@pytest.mark.parametrize(
    ("number", "addresses", "text"),
    [
        (2, TWO, "process 2 has no address among 2"),
        (-1, TWO, "process -1 has no address among 2"),
        (None, TWO, "without --process-id"),
        (0, "127.0.0.1;127.0.0.1:7002", "'127.0.0.1' is not host:port"),
        (0, "127.0.0.1:x", "is not host:port"),
        (0, "127.0.0.1:65536", "is not host:port"),
    ],
)
def test_wrong_cluster_is_one_line(number: int | None, addresses: str, text: str) -> None:
    """Nothing that would wait for ever for a process that cannot come."""
    with pytest.raises(ConfigError) as error:
        cluster_of(number, addresses, 1)
    one_line(error, text)


def test_pod_name_gives_the_process_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a StatefulSet, the number at the end of the name counts; without one it is an error."""
    monkeypatch.setenv("BYTEWAX_STATEFULSET_NAME", "wheel")
    monkeypatch.setenv("BYTEWAX_POD_NAME", "wheel-1")
    assert cluster_of(None, TWO, 1).process_id == 1
    monkeypatch.setenv("BYTEWAX_POD_NAME", "other-1")
    with pytest.raises(ConfigError) as error:
        cluster_of(None, TWO, 1)
    one_line(error, "BYTEWAX_POD_NAME", "wheel- and a number")


@pytest.mark.parametrize(("processes", "workers"), [(0, 33), (33, 1), (17, 2)])
def test_more_workers_than_can_be_served_are_one_line(processes: int, workers: int) -> None:
    """What is restored in a worker beyond them would never come to its lane."""
    hosts = ";".join(f"127.0.0.1:{7_000 + number}" for number in range(processes))
    with pytest.raises(ConfigError) as found:
        cluster_of(0 if processes else None, hosts or None, workers)
    one_line(found, "more than 32", "--addresses", "--workers-per-process")


@pytest.mark.parametrize(("processes", "workers"), [(0, 32), (32, 1), (16, 2)])
def test_as_many_workers_as_can_be_served_are_taken(processes: int, workers: int) -> None:
    """The limit itself is allowed."""
    hosts = ";".join(f"127.0.0.1:{7_000 + number}" for number in range(processes))
    cluster = cluster_of(0 if processes else None, hosts or None, workers)
    assert len(cluster.addresses) == processes
