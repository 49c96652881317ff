"""Make the PrometheusRule from monitoring/rules.yml, which Prometheus itself reads as well."""

from pathlib import Path

HERE = Path(__file__).parent
RULES = HERE.parents[2] / "monitoring" / "rules.yml"
RULE = HERE / "prometheusrule.yaml"
HEADER = """\
# Made from monitoring/rules.yml by rule.py.
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
