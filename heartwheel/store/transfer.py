"""Stores made from stores: a copy, and the sessions moved to another number of lanes."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import mkdtemp
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
from heartwheel.store.recovery_files import Recovery
from session_logic.errors import ConfigError, SnapshotError
from session_logic.move import Move
from session_logic.rules import Rules

# A value to store as it is: (step, key, value).
Kept = tuple[str, str, Any]
# Rows are let go once an epoch has stored them.
EPOCH = timedelta(milliseconds=100)


def copy_store(source: Path, target: Path) -> None:
    """Copy a stopped store to a new directory, with what is only in the log of a killed run.

    Raises StoreInUseError for a running one, ConfigError if there is something at the target.
    """
    with _new_folder(target) as folder, Recovery(source, alone=True) as store:
        for part in store.parts:
            with closing(sqlite3.connect(folder / part.path.name)) as copy:
                part.db.backup(copy)


def migrate_store(source: Path, target: Path, lanes: int, rules: Rules) -> int:
    """Write the sessions of a stopped store as a new one of another number of lanes; count them.

    Source offsets stay, and so does the state of the dead letters; the output topic is another,
    so nothing is known of it. Raises StoreInUseError for a running store, ConfigError if it was not
    stopped cleanly or there is something at the target, SnapshotError if it is not whole.
    """
    # A clean stop leaves no log.
    killed = any(log.stat().st_size for log in source.glob("*.sqlite3-wal"))
    with _new_folder(target) as folder:
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
        _check_moved(folder, rules, count)
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
    fault = next(contents.faults(), None)
    if fault is not None:
        raise SnapshotError(f"{fault}; see `heartwheel store check`")
    restoring = any(state.waiting for state in contents.states.values())
    if killed or restoring or contents.waiting():
        msg = (
            f"{folder} is of a run that was killed: what it sent last is not known; start it once "
            "more and stop it with SIGTERM, then migrate"
        )
        raise ConfigError(msg)


def _check_moved(folder: Path, rules: Rules, count: int) -> None:
    """Raise AssertionError if the new store is not whole or has not all of the sessions."""
    with Recovery(folder) as store:
        contents = Contents(store, rules)
        fault = next(contents.faults(), None)
        assert fault is None, fault
        assert count == sum(len(contents.restore(n)[0].table.wheel) for n in contents.states)


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Give a folder beside the target that becomes the target if all goes well."""
    if target.exists():
        raise ConfigError(f"{target} exists; name a directory that does not")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(mkdtemp(dir=target.parent, prefix=f"{target.name}-unfinished-"))
        folder.chmod(0o755)
    except OSError as error:
        raise ConfigError(f"{target} cannot be made: {error.strerror}") from None
    try:
        yield folder
        folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(folder: Path, kept: list[Kept], inbox: Inbox) -> None:
    """Store values and rows by a run of a dataflow with the step ids of the real one."""
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
    """A source partition that stays where it was; the first one has all values to emit."""

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
    """The input partitions at the offsets that they had come to."""

    def __init__(self, states: dict[str, Any], items: list[Kept]) -> None:
        self._states = states
        self._items = items

    def list_parts(self) -> list[str]:
        return list(self._states)

    def build_part(self, step_id: str, for_part: str, resume_state: Any) -> _KeptPart:
        return _KeptPart(self._items, self._states[for_part])


class _KeptLogic(StatefulBatchLogic[Any, Any, Any]):
    """A lane that is nothing but its state."""

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
