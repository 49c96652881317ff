"""The metrics of a process, as Prometheus would read them."""

from collections import defaultdict
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families


class Metrics:
    """A scrape: values by name and label values."""

    def __init__(self, port: int) -> None:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            self.text = answer.read().decode()
        self._samples = [
            sample
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
        ]
        self._values = {
            (sample.name, *sample.labels.values()): sample.value for sample in self._samples
        }

    def of(self, name: str, *labels: str) -> float:
        """Return a value; fails where there is none."""
        return self._values[f"heartwheel_{name}", *labels]

    def all(self, name: str) -> dict[tuple[str, ...], float]:
        """Return the values of a name by their label values."""
        return {k[1:]: v for k, v in self._values.items() if k[0] == f"heartwheel_{name}"}

    def by(self, label: str, name: str) -> dict[str, float]:
        """Return the sums of a name by one of its labels."""
        sums: defaultdict[str, float] = defaultdict(float)
        for sample in self._samples:
            if sample.name == f"heartwheel_{name}":
                sums[sample.labels[label]] += sample.value
        return sums

    def sum(self, name: str) -> float:
        """Return the sum over all labels."""
        return sum(self.all(name).values())
