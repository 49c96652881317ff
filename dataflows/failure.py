"""The error that has ended this process of a cluster, which Bytewax does not tell.

What a worker raises is lost there: on its way out Bytewax drops the connections to the other
processes, and their threads panic in its place (`cluster_main` in its src/run.rs). So what Bytewax
calls of the dataflow notes what it raises. In a run of one process nothing is changed.
"""

from collections.abc import Callable
from typing import Any

from dataflows.run_state import RunState

# By these Bytewax calls a part of a source or sink, and a lane.
_CALLED = (
    "next_batch",
    "next_awake",
    "write_batch",
    "on_batch",
    "on_notify",
    "notify_at",
    "on_eof",
    "snapshot",
)


def noting(run: RunState, call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a call that notes in `run.failure` what it raises, if that is the first."""
    if not run.in_cluster:
        return call

    def note(*arguments: object) -> Any:
        try:
            return call(*arguments)
        except StopIteration:  # the end of a source
            raise
        except Exception as error:
            run.failure = run.failure or error
            raise

    return note


def noting_parts(run: RunState, build: Callable[..., Any]) -> Callable[..., Any]:
    """Return a call that builds a part, and notes what it raises and what the part does."""
    if not run.in_cluster:
        return build

    def build_part(*arguments: object) -> Any:
        part = build(*arguments)
        for name in _CALLED:
            if hasattr(part, name):
                setattr(part, name, noting(run, getattr(part, name)))
        return part

    return noting(run, build_part)
