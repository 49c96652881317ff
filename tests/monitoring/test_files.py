"""The rules, their tests, the runbook and the dashboard, as files."""

import re
import subprocess
from itertools import combinations
from pathlib import Path

import pytest

from monitoring.dashboard import FILE, WIDTH, build
from tests.support.broker import ROOT
from tests.support.expressions import RULES, RULES_TESTS, alerts, cases, panels, recorded
from tests.support.prometheus import tool

RUNBOOK = ROOT / "docs" / "runbook.md"


def promtool(verb: str, file: Path) -> subprocess.CompletedProcess[str]:
    """Return what promtool has to say about rules or their tests."""
    return subprocess.run(
        [tool("promtool"), verb, "rules", file], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("verb", "file"), [("check", RULES), *(("test", file) for file in RULES_TESTS)]
)
def test_promtool_has_nothing_to_say(verb: str, file: Path) -> None:
    """The rules are valid, and every alert fires on its fault and on nothing else."""
    result = promtool(verb, file)
    assert result.returncode == 0, result.stdout + result.stderr


# What is left out of the rules, and the alert that is wrong then.
PLANTED = {
    "a scrape gap": ('count without (instance, pod) (up{job="heartwheel"} == 0)', "vector(0) > 0"),
    "a restore": (
        (
            "or sum without (instance, pod, lane) (heartwheel_restore_rows_missing) > 0\n"
            "            or max without (instance, pod, lane) (heartwheel_clock_lag_seconds) > 10"
        ),
        "",
    ),
    "an outage": ("or max without (instance, pod, lane) (heartwheel_clock_lag_seconds) > 10", ""),
    "the time after it": ("max_over_time(heartwheel:unsettled[5m])", "heartwheel:unsettled"),
    "a shard without a target": ("or heartwheel:shards:missing > 0", ""),
    "few sessions": ("vector(1000)", "vector(100)"),
    "few ends": ("vector(100)", "vector(1)"),
    "ends that nobody sends": ("[1d]) > 0", "[1d]) >= 0"),
    "usual timeouts": ("vector(0.3)", "vector(0.2)"),
    "usual falls": ("vector(0.2)", "vector(0.1)"),
    "one process of two": (
        "min without (instance, pod) (heartwheel_input_silence_seconds)",
        "max without (instance, pod) (heartwheel_input_silence_seconds)",
    ),
}


def calm_cases() -> str:
    """Return the tests of the fleet in which nothing may fire."""
    begin, *found = RULES_TESTS[1].read_text().split("\n  - name: ")
    calm = [case for case in found if "exp_alerts" not in case]
    assert len(calm) == 5
    return "\n  - name: ".join([begin, *calm])


@pytest.mark.parametrize("name", PLANTED)
def test_promtool_finds_what_is_left_out_of_the_rules_of_the_fleet(
    name: str, tmp_path: Path
) -> None:
    """A restart or a quiet hour would wake somebody, if the tests did not say so before."""
    left_out, instead = PLANTED[name]
    rules = RULES.read_text()
    assert left_out in rules
    (tmp_path / RULES.name).write_text(rules.replace(left_out, instead))
    (tmp_path / "test.yml").write_text(calm_cases())
    result = promtool("test", tmp_path / "test.yml")
    assert result.returncode == 1
    assert "exp:[" in result.stdout + result.stderr, "it is wrong in another way"


def test_limits_of_the_fleet_stand_in_one_place() -> None:
    """Each is recorded once and asked for; no alert on the fleet has a limit of its own."""
    limits = {name for name in recorded() if name.startswith("heartwheel:limit:")}
    made = re.compile(r"heartwheel:(?!shards:missing)")  # which compares two counts
    fleet = [rule["expr"] for rule in alerts() if made.search(rule["expr"])]
    used = [*fleet, *recorded().values()]
    assert {name for name in limits if any(f"scalar({name})" in expr for expr in used)} == limits
    assert len(fleet) == 5
    for expr in fleet:
        assert set(re.findall(r"[<>*] *[\d.]+", expr)) <= {"> 0"}, expr


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
