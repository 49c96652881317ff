"""What the status page reads of the metrics."""

import pytest
from prometheus_client import REGISTRY

import dataflows.kafka.sink  # noqa: F401  # and with it every module that has metrics
from heartwheel.http.readings import Sample


@pytest.mark.usefixtures("measured")
def test_every_sample_that_is_read_is_a_metric_of_the_process() -> None:
    """A name with a typing error would show 0 for ever."""
    known = {
        f"{family.name}{suffix}"
        for family in REGISTRY.collect()
        for suffix in {"counter": ("_total",), "histogram": ("_bucket",)}.get(family.type, ("",))
    }
    assert set(Sample) <= known
