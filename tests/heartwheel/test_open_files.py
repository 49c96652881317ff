"""How many files a process may open: as many as it needs, or it does not start."""

import resource
from pathlib import Path

import pytest
from msgspec.structs import replace

from dataflows.errors import ShortageError
from dataflows.settings import Settings
from heartwheel.cluster import Cluster
from heartwheel.open_files import allow_open_files, needed_files

Limits = list[tuple[int, int]]
WITHOUT_HTTP = Settings(http_port=0)


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Limits:
    """Return the limits that are set, the last one in force; the first one is 50 of 1,000."""
    found = [(50, 1_000)]
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: found[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _kind, limit: found.append(limit))
    return found


def test_limit_is_raised_where_the_system_allows_it(limits: Limits, tmp_path: Path) -> None:
    """To what is needed, and to no more; one that is high enough stays."""
    allow_open_files(WITHOUT_HTTP, Cluster(), tmp_path, 3)
    needed = needed_files(WITHOUT_HTTP, Cluster(), 0, 3)
    assert limits == [(50, 1_000), (needed, 1_000)]
    allow_open_files(WITHOUT_HTTP, Cluster(), tmp_path, 2)
    assert len(limits) == 2
    limits.append((resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    allow_open_files(WITHOUT_HTTP, Cluster(), tmp_path, 1_000)
    assert len(limits) == 3


def test_limit_that_cannot_be_raised_is_named_with_what_is_needed(
    limits: Limits, tmp_path: Path
) -> None:
    """And with what that comes of."""
    for number in range(5):
        (tmp_path / f"part-{number}.sqlite3").touch()
    with pytest.raises(ShortageError) as error:
        allow_open_files(WITHOUT_HTTP, Cluster(), tmp_path, 100)
    needed = needed_files(WITHOUT_HTTP, Cluster(), 5, 100)
    assert f"limit of 50 ({needed} with 100 Kafka brokers and 5 recovery parts)" in str(error.value)
    assert "`ulimit -n`" in str(error.value)
    assert len(limits) == 1


def test_connections_to_the_http_server_and_to_other_processes_count() -> None:
    """The server has as many as it allows at some time."""
    alone = needed_files(WITHOUT_HTTP, Cluster(), 1, 1)
    assert needed_files(replace(WITHOUT_HTTP, http_port=8080), Cluster(), 1, 1) == alone + 276
    assert needed_files(WITHOUT_HTTP, Cluster(0, ("a:1", "b:1")), 1, 1) > alone
