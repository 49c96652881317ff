"""A run that goes on from an older store, in random histories of the whole flow."""

import pytest

from dataflows.kafka.outbox import AlreadyWritten
from tests.simulation.backups import simulate


@pytest.mark.parametrize(
    ("first", "count"),
    [(0, 15), pytest.param(15, 50, marks=pytest.mark.slow)],
)
def test_output_is_that_of_the_model_though_backups_are_put_back(first: int, count: int) -> None:
    """What was sent since is in the topic once, however long ago the backup was made."""
    counts = simulate(count, first)
    assert counts["backups put back"] > count / 8
    assert counts["seconds put back"] > 5 * counts["backups put back"]


def test_output_that_is_not_looked_for_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: all that was sent since the backup comes twice."""
    monkeypatch.setattr(AlreadyWritten, "has", lambda *_, **__: False)
    with pytest.raises(AssertionError):
        simulate(30)
