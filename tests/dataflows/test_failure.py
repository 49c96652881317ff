"""What ends a process of a cluster is noted where it is raised."""

from typing import Any

import pytest

from dataflows.failure import noting, noting_parts
from dataflows.run_state import RunState


class Part:
    """A part that does what it is told."""

    def next_batch(self, error: Exception | None) -> str:
        if error is not None:
            raise error
        return "batch"


def build(error: Exception | None = None) -> Part:
    if error is not None:
        raise error
    return Part()


def raised(call: Any, error: Exception) -> None:
    with pytest.raises(type(error)):
        call(error)


def test_first_error_of_a_part_is_the_one_that_is_noted() -> None:
    """Those after it come of that; the end of a source is no error."""
    run = RunState(in_cluster=True)
    part = noting_parts(run, build)()
    raised(part.next_batch, StopIteration())
    assert run.failure is None
    assert part.next_batch(None) == "batch"
    first = ValueError("the cause")
    raised(part.next_batch, first)
    raised(part.next_batch, KeyError("what came of it"))
    assert run.failure is first


@pytest.mark.parametrize("wrap", [noting, noting_parts])
def test_error_while_a_part_is_built_is_noted(wrap: Any) -> None:
    """As one of a call."""
    run, error = RunState(in_cluster=True), ValueError("the cause")
    raised(wrap(run, build), error)
    assert run.failure is error


@pytest.mark.parametrize("wrap", [noting, noting_parts])
def test_run_of_one_process_is_left_as_it_is(wrap: Any) -> None:
    """Bytewax tells its errors."""
    assert wrap(RunState(), build) is build
