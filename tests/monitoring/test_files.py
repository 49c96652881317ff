"""The rules, their tests, the runbook and the dashboard, as files."""

import re
import subprocess
from itertools import combinations
from typing import Any

import pytest

from monitoring.dashboard import FILE, WIDTH, build
from tests.support.broker import ROOT
from tests.support.expressions import RULES, RULES_TEST, alerts, cases, panels
from tests.support.prometheus import tool

RUNBOOK = ROOT / "docs" / "runbook.md"


@pytest.mark.parametrize(("verb", "file"), [("check", RULES), ("test", RULES_TEST)])
def test_promtool_has_nothing_to_say(verb: str, file: Any) -> None:
    """The rules are valid, and every alert fires on its fault and on nothing else."""
    result = subprocess.run(
        [tool("promtool"), verb, "rules", file], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_is_tested_to_fire_and_not_to_fire() -> None:
    """No alert is without a case of either kind."""
    checked = [check for case in cases() for check in case["alert_rule_test"]]
    names = {rule["alert"] for rule in alerts()}
    assert {check["alertname"] for check in checked if check.get("exp_alerts")} == names
    assert {check["alertname"] for check in checked if not check.get("exp_alerts")} == names


def test_every_alert_has_an_entry_in_the_runbook_and_no_other_entry_is_there() -> None:
    """The annotation leads to the entry, which says all that it has to say."""
    entries = re.split(r"^## ", RUNBOOK.read_text(), flags=re.MULTILINE)
    found = {entry.split("\n")[0]: entry for entry in entries if entry.startswith("Heartwheel")}
    assert list(found) == [rule["alert"] for rule in alerts()]
    for rule in alerts():
        name = rule["alert"]
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"
        assert rule["labels"]["severity"] in {"critical", "warning"}
        for part in ("**Meaning.**", "**Look at.**", "**Do.**", "**Wake somebody.**"):
            assert part in found[name], (name, part)


def test_dashboard_file_is_current() -> None:
    """The file is what the code makes: `python -m monitoring.dashboard`."""
    assert FILE.read_text() == build()


def test_panels_do_not_overlap_and_rows_are_full() -> None:
    """Each line of the grid is used from left to right, by panels of one height."""
    lines: dict[int, list[dict[str, int]]] = {}
    for panel in panels():
        lines.setdefault(panel["gridPos"]["y"], []).append(panel["gridPos"])
    for y, line in lines.items():
        assert sum(place["w"] for place in line) == WIDTH, y
        assert len({place["h"] for place in line}) == 1, y
        for one, other in combinations(line, 2):
            assert one["x"] + one["w"] <= other["x"], y
    ends = [y + line[0]["h"] for y, line in sorted(lines.items())]
    assert [0, *ends[:-1]] == sorted(lines)


def test_every_panel_says_what_it_shows() -> None:
    """An explanation, a unit, a source, and an id of its own."""
    assert len({panel["id"] for panel in panels()}) == len(panels())
    for panel in panels():
        if panel["type"] != "row":
            assert panel["description"].endswith("."), panel["title"]
            fields = panel.get("fieldConfig", {"defaults": {}})["defaults"]
            options = {**fields, **panel["options"].get("yAxis", {})}
            assert options["unit"], panel["title"]
            names = [target["refId"] for target in panel["targets"]]
            assert all(names), panel["title"]
            assert len(set(names)) == len(names), panel["title"]
            assert panel["datasource"] == {"type": "prometheus", "uid": "$datasource"}
