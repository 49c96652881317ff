"""Tables that name what the code has: metrics, reasons, outcomes, reasons of an end."""

import re
from collections.abc import Iterator
from typing import get_args

import pytest
from prometheus_client import REGISTRY

from dataflows.metrics import EVENT_OUTCOMES, OUTCOMES, start_metrics
from dataflows.run_state import RunState
from session_logic.events import EndReason, RejectReason
from tests.support.pages import README, page


@pytest.fixture
def registered() -> Iterator[dict[str, str]]:
    """Return the type of each metric of a run, by the name that a scrape shows."""
    collector = start_metrics(RunState())
    yield {
        family.name + {"counter": "_total", "info": "_info"}.get(family.type, ""): family.type
        for family in REGISTRY.collect()
        if family.name.startswith("heartwheel_")
    }
    REGISTRY.unregister(collector)


def test_every_metric_is_documented_with_its_type(registered: dict[str, str]) -> None:
    """The table of docs/metrics.md and the registry name the same metrics."""
    rows = page("metrics.md").rows("The metrics")[1:]
    documented = {row[0]: row[1] for row in rows}
    shown = {name: "gauge" if kind == "info" else kind for name, kind in registered.items()}
    assert documented == shown


def test_values_of_labels_are_documented() -> None:
    """Reasons and outcomes of the metrics table are those of the code."""
    cells = {row[0]: row for row in page("metrics.md").rows("The metrics")[1:]}
    reasons = cells["heartwheel_dead_letters_total"][2].removeprefix("reason: ").split(", ")
    assert reasons == list(get_args(RejectReason))
    events = cells["heartwheel_events_total"][2]
    assert events == f"type: {', '.join(EVENT_OUTCOMES)}; platform"
    outcomes = re.findall(r"`(\w+)`", cells["heartwheel_outcomes_total"][3])
    assert set(outcomes) == set(OUTCOMES)


def test_every_reason_of_a_dead_letter_is_documented() -> None:
    """The contract has a row for each reason."""
    rows = page("contract.md").rows("Dead letters")
    reasons = [row[0].strip("`") for row in rows if row[0] != "reason" and "." not in row[0]]
    assert sorted(set(reasons) - {"header"}) == sorted(get_args(RejectReason))


def test_every_reason_of_an_end_is_documented() -> None:
    """The contract and the README name each of them."""
    for one in get_args(EndReason):
        assert f"`{one}`" in page("contract.md").text
        assert f"`{one}`" in README.text


def test_ignored_input_is_documented_outcome_by_outcome() -> None:
    """Every outcome that changes nothing has a row."""
    ignored = {o for ways in EVENT_OUTCOMES.values() for o in ways} - {"started", "ended", "ping"}
    assert {row[0].strip("`") for row in page("contract.md").rows("Ignored input")[1:]} == ignored


def numbers(cells: list[str]) -> list[str]:
    """Return the numbers of some cells as they are written."""
    return re.findall(r"\d[\d,.]*\b", " ".join(cells))


def test_speed_in_the_readme_is_that_of_the_benchmarks() -> None:
    """No number of the short table is missing in the row of the same load."""
    short = README.rows("How fast")[1:]
    full = page("benchmarks.md").rows("Latency under steady load")[1:4]
    assert len(short) == len(full) == 3
    for row, source in zip(short, full, strict=True):
        assert set(numbers(row)) <= set(numbers(source)), row


def test_faults_in_the_readme_are_those_of_the_guarantees() -> None:
    """Each row of the short table is one of the long table, with fewer columns."""
    full = page("guarantees.md").rows("Faults that were tried")[1:]
    for row in README.rows("What it guarantees")[1:]:
        assert any(set(numbers(row)) <= set(numbers(source)) for source in full), row
