"""The view of a running process keeps its numbers at every usual width."""

import io
from typing import Any

import pytest
from rich.console import Console

from heartwheel.shards import ShardStatus
from heartwheel.views.top import TopView, seconds, spark

HISTORY = [float(n % 9) for n in range(300)]
SERIES = ("active", "heartbeats", "starts", "ends", "dead_letters", "event_p50_s", "event_p99_s",
          "heartbeat_p50_s", "heartbeat_p99_s", "memory_bytes", "cores")  # fmt: skip
STATUS: dict[str, Any] = {
    "version": "1.2.3",
    "processes": 1,
    "shard": "",
    "process": 0,
    "now_ms": 100_000,
    "started_ms": 40_000,
    "ready": True,
    "active": {"console": 1_600_000, "pc": 2_400_000},
    "heartbeats": 123_456_789,
    "events": {"GameStart": 9_000_000, "GameEnd": 5_000_000},
    "rejected": {"not_json": 3},
    "history": {name: [*HISTORY, 0.0] for name in SERIES}
    | {"active": [*HISTORY, 4_000_000.0], "event_p99_s": [*HISTORY, 0.1027]},
    "snapshot": {"age_s": 0.4, "p99_s": 0.0485, "store_bytes": 1_234_500_000},
    "consumer_lag": [{"records": 12_345}],
    "lanes": [{"lane": 0, "state": "live", "active": 1_000_000, "lag_s": 0.001},
              {"lane": 1, "state": "elsewhere", "process": 1, "address": "10.0.0.2:9000"}],
    "dead_letters": [{"topic": "pc-events", "partition": 0, "offset": 7, "reason": "not_json",
                      "key": "device-1", "value": "\x1b[31m" + "x" * 200}],
}  # fmt: skip


def rendered(width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(TopView("http://127.0.0.1:8080/", STATUS, width).render())
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_view_at_any_width_shows_every_value_whole(width: int) -> None:
    """Bars lose columns first; a value is never cut or wrapped."""
    lines = rendered(width)
    assert all(len(line) <= width for line in lines)
    values = {line[:22].strip(): line[22:].split("  ")[1].strip() for line in lines[2:12]}
    assert "…" not in "".join(values.values())
    numbers = "\n".join(lines)
    for value in ("4,000,000", "102.7 ms", "400.0 ms", "12,345", "0.00", "1,000,000", "1.0 ms"):
        assert value in numbers
    assert sum("event latency" in line for line in lines) == 1


def test_shard_is_named_in_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each shows its own part only."""
    monkeypatch.setitem(STATUS, "shard", "1/4")
    assert "shard 1/4" in rendered(80)[0]


def test_every_shard_has_a_line_also_one_that_does_not_answer() -> None:
    """The numbers of those that answer are added up."""
    out = io.StringIO()
    numbers = {"answers": True, "active": 4e6, "heartbeats": 1e5, "lag_s": 0.1}
    shards = [
        ShardStatus(shard=0, ready=True, heartbeat_p99_s=0.01, **numbers),
        ShardStatus(shard=1),
        ShardStatus(shard=2, reason="lane 1 is behind", **numbers),
    ]
    view = TopView("http://127.0.0.1:8080/", STATUS, 80, shards)
    Console(file=out, width=80).print(view.render())
    text = out.getvalue().splitlines()
    begin = next(n for n, line in enumerate(text) if line.startswith("shard"))
    first, second, third, total = (line.split() for line in text[begin + 1 : begin + 5])
    assert (first[:2], first[-1]) == (["0", "4,000,000"], "ready")
    assert second == ["1", "-", "-", "-", "-", "no", "answer"]
    assert " ".join(third[-5:]) == "ms lane 1 is behind"
    assert total[:2] == ["all", "8,000,000"]
    assert not any(line.startswith("shard") for line in rendered(80))


def test_view_of_a_wide_terminal_has_bars() -> None:
    """They take what the text leaves, at 80 columns too."""
    assert sum("█" in line for line in rendered(80)) >= 5
    assert not any("█" in line for line in rendered(60))


def test_text_from_input_steers_no_terminal() -> None:
    """A dead letter's value may hold anything."""
    assert "\x1b" not in "".join(rendered(100))


def test_times_and_bars_in_short() -> None:
    """Units by size, and a gap where there is no value."""
    assert [seconds(s) for s in (None, 0.0015, 59.0, 600.0, 7_200.0)] == [
        "-", "1.5 ms", "59.0 s", "10 min", "2.0 h",
    ]  # fmt: skip
    assert spark([9.0, 0.0, None, 2.0, 4.0], 4) == "▁ ▅█"
    assert spark([], 4) == ""
