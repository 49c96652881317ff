"""The table that puts ours beside the peer."""

from typing import Any

import pytest

from benchmarks.comparison import Row, options, table, text
from tests.support.kafka_streams import EXACTLY_ONCE


def report(**parts: Any) -> dict[str, Any]:
    """Return a report that has some latencies, a check, and what else is named."""
    latency_ms = {"Heartbeat": {"p50": 4, "p99": 10, "max": 30}}
    return {"latency_ms": latency_ms, "check": {"records": 1000, "differences": {}}, **parts}


def test_ratio_is_theirs_to_ours() -> None:
    """More than 1 is more time, more cores or more memory than ours takes."""
    ours = report(cores={"flow": 0.2}, flow_gb=0.5)
    theirs = report(cores={"flow": 0.3}, flow_gb=0.25)
    rows = {row.what: row for row in table(ours, theirs)}
    assert rows["cores of the job"] == Row("cores of the job", 0.2, 0.3, 1.5)
    assert rows["memory of the job, GB"].ratio == 0.5
    assert rows["Heartbeat p99, ms"].ratio == 1


def test_what_was_not_measured_has_no_ratio() -> None:
    """A row that one of the two lacks shows that; one that both lack is not there."""
    rows = {
        row.what: row for row in table(report(flow_gb=0), report(flow_gb=1, idle={"cores": 0.1}))
    }
    assert rows["memory of the job, GB"] == Row("memory of the job, GB", 0, 1)
    assert rows["cores of the idle job"] == Row("cores of the idle job", None, 0.1)
    assert "SessionEnd p50, ms" not in rows


def test_differences_and_conditions_are_shown_without_a_ratio() -> None:
    """They are no speed."""
    ours, theirs = report(machine_idle=0.8), report(machine_idle=0.4)
    theirs["check"]["differences"] = {"doubled": 7, "wrong": 2}
    rows = {row.what: row for row in table(ours, theirs)}
    assert rows["records compared with the model"] == Row(
        "records compared with the model", 1000, 1000
    )
    assert rows["differences from it"] == Row("differences from it", 0, 9)
    assert rows["doubled"] == Row("doubled", None, 7)
    assert rows["idle share of the machine"] == Row("idle share of the machine", 0.8, 0.4)


def test_table_can_be_put_into_a_page() -> None:
    """As Markdown, with an empty cell for what is not known."""
    lines = text([Row("records", 12345, 0.5, 0.25), Row("doubled", None, 7)]).splitlines()
    assert lines[2:] == ["| records | 12,345 | 0.5 | 0.25 |", "| doubled |  | 7 |  |"]


def test_heap_of_the_peer_grows_with_the_sessions() -> None:
    """So a larger scale is not a comparison with a collector that is short of memory."""
    heaps = [options(["--scale", scale]).heap for scale in ("0.1", "1")]
    assert heaps == [736, 5056]
    assert options(["--heap", "900"]).heap == 900


def test_exactly_once_is_a_setting_of_the_peer() -> None:
    """Beside what else is set."""
    asked = options(["--exactly-once", "--peer-set", "poll.ms=2"])
    assert asked.peer_set == ["poll.ms=2", EXACTLY_ONCE]
    assert asked.set == []


@pytest.mark.parametrize(
    "words", [["--mapped"], ["--processes", "2"], ["--poll-http"], ["--shards", "1"]]
)
def test_what_the_peer_cannot_do_is_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is started."""
    with pytest.raises(SystemExit):
        options(words)
    assert "the peer is one process" in capsys.readouterr().err
