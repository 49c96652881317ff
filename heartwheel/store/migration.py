"""The migration of a store: its sessions moved to another number of lanes."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow, Stream
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main
from msgspec import to_builtins

from dataflows.lanes import by_row
from dataflows.messages import DEAD_LETTER_KEY, lane_key
from dataflows.run_state import RunState
from dataflows.store import Inbox, RestoredSource, StoreSink
from heartwheel.store.contents import FLOW, Contents
from heartwheel.store.copying import new_folder
from heartwheel.store.identity import Layout
from heartwheel.store.recovery_files import Recovery
from session_logic.errors import ConfigError, SnapshotError
from session_logic.move import Move
from session_logic.rules import Rules

# A value to store as it is: (step, key, value).
Kept = tuple[str, str, Any]
# Rows are released once an epoch has stored them.
EPOCH = timedelta(milliseconds=100)


def migrate_store(source: Path, target: Path, lanes: int, rules: Rules) -> int:
    """Write the sessions of a stopped store to a new one with other lanes; return how many.

    The new store has the source offsets and the state of the dead letters, but nothing of the
    output topic, because it writes to another one. Raises StoreInUseError for a running store,
    ConfigError if it was not stopped cleanly or the target exists, SnapshotError if it is damaged
    or the new store is not as it must be.
    """
    # A clean stop leaves no log.
    killed = any(log.stat().st_size for log in source.glob("*.sqlite3-wal"))
    with new_folder(target) as folder:
        with Recovery(source, alone=True) as store:
            contents = Contents(store, rules)
            _check_movable(contents, killed=killed)
            move, inbox, count = Move(lanes), Inbox(), 0
            for number in sorted(contents.states):
                lane, _ = contents.restore(number)
                count += len(lane.table.wheel)
                for row in move.take(lane):
                    inbox.put(row)
            kept: list[Kept] = [
                ("sessions", lane_key(state.lane), to_builtins(state)) for state in move.states()
            ]
            for step in ("source", "sink"):
                kept += [
                    (step, entry.key, entry.value())
                    for entry in contents.step(step)
                    if step == "source" or entry.key == DEAD_LETTER_KEY
                ]
            parts = len(store.parts)
        init_db_dir(folder, parts)  # type: ignore[no-untyped-call]
        _write(folder, kept, inbox)
        check_moved(folder, rules, count)
    return count


def _check_movable(contents: Contents, *, killed: bool) -> None:
    folder = contents.recovery.folder
    if not contents.states:
        msg = f"{folder} holds no sessions yet; set HEARTWHEEL_LANES and start with a new directory"
        raise ConfigError(msg)
    if any(state.moved_watermarks for state in contents.states.values()):
        msg = (
            f"{folder} was migrated and has not been run since: migrate the store that it was made "
            "from, or run it first"
        )
        raise ConfigError(msg)
    if contents.layout != Layout():
        msg = (
            f"{folder} has {contents.layout}: its devices are where their input partitions are, "
            "and another number of lanes needs other input topics; see docs/shards.md"
        )
        raise ConfigError(msg)
    fault = next(contents.faults(), None)
    if fault is not None:
        raise SnapshotError(f"{fault}; see `heartwheel store check`")
    restoring = any(state.waiting for state in contents.states.values())
    if killed or restoring or contents.waiting():
        msg = (
            f"{folder} is of a run that was killed: what it sent last is not known; start it "
            "again, stop it with SIGTERM, then migrate"
        )
        raise ConfigError(msg)


def check_moved(folder: Path, rules: Rules, count: int) -> None:
    """Raise SnapshotError unless the new store is intact and has all of the sessions."""
    with Recovery(folder) as store:
        contents = Contents(store, rules)
        fault = next(contents.faults(), None)
        if fault is None:
            found = sum(len(contents.restore(n)[0].table.wheel) for n in contents.states)
            if found == count:
                return
            fault = f"it has {found} sessions, not {count}"
    msg = f"the migrated store is wrong and was removed: {fault}; keep the old one and report this"
    raise SnapshotError(msg)


def _write(folder: Path, kept: list[Kept], inbox: Inbox) -> None:
    """Store values and rows by running a dataflow that has the step ids of the real one."""
    flow = Dataflow(FLOW)
    source = {key: value for step, key, value in kept if step == "source"}
    items = op.input("source", flow, _KeptSource(source, kept))
    rows = op.input("restored", flow, RestoredSource(inbox, RunState()))
    op.stateful_batch("sessions", _of(items, "sessions"), _KeptLogic)
    op.output("sink", _of(items, "sink"), _KeptSink())
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
    """Keeps what is known of the dead letters."""

    def list_parts(self) -> list[str]:
        return [DEAD_LETTER_KEY]

    def part_fn(self, item_key: str) -> int:
        return 0

    def build_part(self, step_id: str, for_part: str, resume_state: Any) -> _KeptSinkPart:
        return _KeptSinkPart()
