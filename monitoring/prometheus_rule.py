"""Make the PrometheusRule of k8s/ from rules.yml: `python -m monitoring.prometheus_rule`."""

from pathlib import Path

RULES = Path(__file__).with_name("rules.yml")
RULE = RULES.parents[1] / "k8s" / "components" / "monitoring" / "prometheusrule.yaml"
HEADER = """\
# Made from monitoring/rules.yml by monitoring/prometheus_rule.py.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: heartwheel
spec:
"""


def rule(rules: str) -> str:
    """Return the text of the object: the rules, indented."""
    return HEADER + "".join(
        f"  {line}" if line.strip() else line for line in rules.splitlines(True)
    )


if __name__ == "__main__":
    RULE.write_text(rule(RULES.read_text()))
