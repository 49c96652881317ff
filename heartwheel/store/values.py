"""Values and rows written to a new store as Bytewax writes them, by a dataflow that ends."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow, Stream
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.recovery import RecoveryConfig
from bytewax.run import cli_main

from dataflows.lanes import by_row
from dataflows.messages import DEAD_LETTER_KEY
from dataflows.run_state import RunState
from dataflows.store import Inbox, RestoredSource, StoreSink
from heartwheel.store.contents import FLOW

# A value to store as it is: (step, key, value).
Kept = tuple[str, str, Any]
# Rows are released once an epoch has stored them.
EPOCH = timedelta(milliseconds=100)


def write_values(folder: Path, kept: list[Kept], inbox: Inbox) -> None:
    """Store values and rows by running a dataflow that has the step ids of the real one."""
    flow = Dataflow(FLOW)
    source = {key: value for step, key, value in kept if step == "source"}
    items = op.input("source", flow, _KeptSource(source, kept))
    rows = op.input("restored", flow, RestoredSource(inbox, RunState()))
    op.stateful_batch("sessions", _of(items, "sessions"), _KeptLogic)
    keys = sorted(key for step, key, _ in kept if step == "sink")  # as Bytewax numbers them
    op.output("sink", _of(items, "sink"), _KeptSink(keys or [DEAD_LETTER_KEY]))
    op.output("store", op.map("rows", rows, by_row), StoreSink(Inbox()))
    cli_main(  # type: ignore[no-untyped-call]
        flow,
        epoch_interval=EPOCH,
        recovery_config=RecoveryConfig(folder, timedelta(0)),  # type: ignore[no-untyped-call]
    )


def _of(items: Stream[Kept], step: str) -> Stream[tuple[str, Any]]:
    """Return the values of one step, by key."""
    return op.filter_map(f"of_{step}", items, lambda kept: kept[1:] if kept[0] == step else None)


class _KeptPart(StatefulSourcePartition[Kept, Any]):
    """A source partition that stays at its offset; the first one emits all values."""

    def __init__(self, items: list[Kept], state: Any) -> None:
        self._items = items
        self._state = state

    def next_batch(self) -> list[Kept]:
        if not self._items:
            raise StopIteration
        items = self._items.copy()
        self._items.clear()
        return items

    def snapshot(self) -> Any:
        return self._state


class _KeptSource(FixedPartitionedSource[Kept, Any]):
    """The input partitions at their stored offsets."""

    def __init__(self, states: dict[str, Any], items: list[Kept]) -> None:
        self._states = states
        self._items = items

    def list_parts(self) -> list[str]:
        return list(self._states)

    def build_part(self, step_id: str, for_part: str, resume_state: Any) -> _KeptPart:
        return _KeptPart(self._items, self._states[for_part])


class _KeptLogic(StatefulBatchLogic[Any, Any, Any]):
    """A lane of which only the state is kept."""

    def __init__(self, _stored: Any) -> None:
        self._state: Any = None

    def on_batch(self, values: list[Any]) -> tuple[list[Any], bool]:
        self._state = values[-1]
        return [], False

    def snapshot(self) -> Any:
        return self._state


class _KeptSinkPart(StatefulSinkPartition[Any, Any]):
    def __init__(self) -> None:
        self._state: Any = None

    def write_batch(self, items: list[Any]) -> None:
        self._state = items[-1]

    def snapshot(self) -> Any:
        return self._state


class _KeptSink(FixedPartitionedSink[Any, Any]):
    """Keeps what is known of the output and of the dead letters."""

    def __init__(self, keys: list[str]) -> None:
        self._keys = keys

    def list_parts(self) -> list[str]:
        return self._keys

    def part_fn(self, item_key: str) -> int:
        return self._keys.index(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: Any) -> _KeptSinkPart:
        return _KeptSinkPart()
