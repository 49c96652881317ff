"""The table that compares variants of the benchmark."""

from typing import Any

from benchmarks.bench import parse
from benchmarks.rows import HEAD, ROWS, table


def report(p99_ms: int, cores: float, **more: Any) -> dict[str, Any]:
    latency = {"count": 9, "p50": 2, "p99": p99_ms}
    return {
        "latency_ms": {"SessionActive": latency, "Heartbeat": latency, **more.pop("latency", {})},
        "cores": {"flow": cores, "broker": 0.2},
        "flow_gb": 0.25,
        "output_mb": 1.0,
        "machine_idle": 0.5,
        "other_cores": 0.04,
        "check": {"records": 10_000, "differences": {}},
    } | more


def test_row_has_its_ratio_to_the_first_one() -> None:
    """What is slower, dearer or wrong is seen without arithmetic."""
    wrong = {"records": 5_000, "differences": {"doubled": 2, "foreign": 1}}
    found = table({"plain": report(8, 0.25), "other": report(12_000, 0.5, check=wrong)})
    head, _, plain, other = (line.strip("| ").split(" | ") for line in found.splitlines())
    assert head == [*HEAD]
    assert plain[:4] == ["plain", "2 / 8 ms (1.00)", "2 / 8 ms (1.00)", "0.25 (1.00)"]
    assert other[:4] == ["other", *["2 / 12,000 ms (1500.00)"] * 2, "0.5 (2.00)"]
    assert other[6:9] == ["200 (2.00)", "50%, 0.04", "3 of 5,000"]


def test_row_says_what_only_its_variant_measures() -> None:
    """Answers over HTTP, and the starts of a stampede."""
    starts = {"SessionActive of the stampede": {"count": 50_000, "p50": 40, "p99": 9_000}}
    stampede = {"stampede_s": 2.04, "usual_again_s": 3, "latency": starts}
    found = table(
        {
            "asked": report(8, 0.2, http_ms={"p50": 0.61, "p99": 2.25}),
            "stampede": report(8, 0.2, **stampede),
            "long": report(8, 0.2, **{**stampede, "usual_again_s": None}),
        }
    )
    assert "| answers p50 / p99 0.6 / 2.2 ms |" in found
    said = "| 50,000 starts in 2.0 s: p50 / p99 40 / 9,000 ms, as usual again after 3 s |"
    assert said in found
    assert "ms, not as usual again |" in found


def test_every_variant_is_one_that_the_benchmark_takes() -> None:
    """The first is the plain one, to which all others are compared."""
    assert next(iter(ROWS.items())) == ("plain", "")
    for words in ROWS.values():
        parse(words.split())
