"""Every PromQL expression of rules, their tests and the dashboard, and what it asks for."""

import json
import re
from typing import Any

import promql_parser
import yaml
from msgspec import Struct

from monitoring.dashboard import FILE
from tests.support.broker import ROOT

RULES = ROOT / "monitoring" / "rules.yml"
RULES_TESTS = [ROOT / "monitoring" / f"{name}_test.yml" for name in ("rules", "fleet", "days")]
# What Grafana puts in for its variables; the ranges fit a scrape every second.
VARIABLES = {
    "$__rate_interval": "5s",
    "$__range": "1m",
    "$job": "heartwheel",
    "$instance": ".*",
}
_LEGEND = re.compile(r"{{\s*(\w+)\s*}}")


class Expression(Struct, frozen=True):
    """An expression, where it stands, and the labels that its legend names."""

    where: str
    expr: str
    legend: frozenset[str] = frozenset()


def _rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """Return the rules that alert."""
    return [rule for rule in _rules() if "alert" in rule]


def recorded() -> dict[str, str]:
    """Return the expressions of the rules that record, by the metrics that they make."""
    return {rule["record"]: rule["expr"] for rule in _rules() if "record" in rule}


def cases() -> list[dict[str, Any]]:
    """Return the tests of the rules."""
    return [case for file in RULES_TESTS for case in yaml.safe_load(file.read_text())["tests"]]


def panels() -> list[dict[str, Any]]:
    """Return the panels of the dashboard, rows included."""
    found: list[dict[str, Any]] = json.loads(FILE.read_text())["panels"]
    return found


def of_rules() -> list[Expression]:
    """Return the expressions of the rules, but for the limits, which are numbers."""
    asked = {rule["alert"]: rule["expr"] for rule in alerts()} | recorded()
    return [
        Expression(where, expr) for where, expr in asked.items() if not expr.startswith("vector(")
    ]


def of_cases() -> list[Expression]:
    """Return the series that the tests of the rules invent."""
    return [
        Expression(case["name"], series["series"])
        for case in cases()
        for series in case["input_series"]
    ]


def of_dashboard() -> list[Expression]:
    """Return the expressions of the panels."""
    found = []
    for panel in panels():
        for target in panel.get("targets", []):
            expr = target["expr"]
            for name, value in VARIABLES.items():
                expr = expr.replace(name, value)
            legend = frozenset(_LEGEND.findall(target["legendFormat"]))
            found.append(Expression(panel["title"], expr, legend))
    return found


def selected(expr: str) -> dict[str, set[str]]:
    """Return the labels that an expression asks of each metric; fails if it is not PromQL.

    What the other side of a group_left gives to a metric is not asked of that metric.
    """
    metrics: dict[str, set[str]] = {}

    def ask(node: Any, labels: list[str], given: frozenset[str] = frozenset()) -> None:
        if isinstance(node, promql_parser.BinaryExpr):
            card = node.modifier and node.modifier.card
            if card == promql_parser.VectorMatchCardinality.ManyToOne:
                more = frozenset(node.modifier.group_labels or ())
                ask(node.lhs, labels, given | more)
                ask(node.rhs, sorted(more.intersection(labels)), given)
            else:
                ask(node.lhs, labels, given)
                ask(node.rhs, labels, given)
            return

        def visit(part: Any) -> None:
            if isinstance(part, promql_parser.VectorSelector):
                metrics.setdefault(part.name, set()).update(set(labels) - given)

        promql_parser.walk(node, visit)

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            ask(node, [matcher.name for matcher in node.matchers.matchers])
        elif isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            ask(node.expr, node.modifier.labels)
        elif isinstance(node, promql_parser.BinaryExpr) and node.modifier is not None:
            ask(node, node.modifier.matching.labels if node.modifier.matching else [])

    promql_parser.walk(promql_parser.parse(expr), visit)
    assert metrics, expr
    return metrics
