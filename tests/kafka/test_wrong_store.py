"""A start with another store than the one that has written the output topic."""

import signal
from pathlib import Path

from tests.support.cluster import Cluster


def test_empty_store_is_refused_and_sends_nothing_unless_it_is_meant(
    cluster: Cluster, tmp_path: Path
) -> None:
    """A recovery directory that is relative, from another working directory, is enough for it."""
    first = cluster.start()
    cluster.send("Start", "p1", "s1")
    cluster.send("End", "p1", "s1")
    cluster.flush()
    cluster.wait("a session", lambda: cluster.records_out() == 2)
    first.send_signal(signal.SIGTERM)
    assert first.wait(20) == 0

    empty = {"HEARTWHEEL_RECOVERY_DIR": str(tmp_path / "empty")}
    second = cluster.start(**empty)
    assert second.wait(20) == 2
    line = cluster.errors(second).splitlines()[-1]
    assert f"output topic {cluster.output} was written by store" in line
    assert str(tmp_path / "recovery") in line
    assert str(tmp_path / "empty") in line
    assert cluster.records_out() == 2

    third = cluster.start("run", "--new-store", **empty)
    cluster.wait("the same again", lambda: cluster.records_out() == 4)
    third.send_signal(signal.SIGTERM)
    assert third.wait(20) == 0
    old = cluster.start()
    assert old.wait(20) == 2
    assert "was last written by store" in cluster.errors(old)
    assert cluster.records_out() == 4
