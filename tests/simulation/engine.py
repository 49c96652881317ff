"""Bytewax in small: epochs, frontiers, snapshots and recovery, one activation at a time.

It follows src/inputs.rs, operators.rs, outputs.rs, recovery.rs and timely.rs of Bytewax 0.21.1:
a source begins an epoch when the one before is committed; a step works eagerly on the epoch of
its frontier, and snapshots what was awake when the frontier passes; progress arrives late.
"""

import pickle
import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from msgspec import Struct

from dataflows.clock import system_time

EPOCH_MS = 20
Emit = Callable[[int, str, Any], None]


class Database:
    """The recovery store: snapshots by step, key and epoch, and how far all have come."""

    def __init__(self) -> None:
        self.snaps: defaultdict[tuple[str, str], dict[int, bytes]] = defaultdict(dict)
        self.front = 0
        self._unwritten: list[tuple[int, tuple[str, str], bytes]] = []

    def add(self, step: str, key: str, epoch: int, state: object) -> None:
        """Take a snapshot; it is written some time before its epoch counts as done."""
        self._unwritten.append((epoch, (step, key), pickle.dumps(state)))

    def commit(self, front: int) -> None:
        """Write what there is, and that everything before `front` is done."""
        self._write(self._unwritten)
        self._unwritten = []
        self.front = front
        for found in self.snaps.values():
            newest = max((epoch for epoch in found if epoch < front), default=-1)
            for epoch in [epoch for epoch in found if epoch < newest]:
                del found[epoch]

    def _write(self, snaps: list[tuple[int, tuple[str, str], bytes]]) -> None:
        for epoch, name, state in snaps:
            self.snaps[name][epoch] = state

    def crash(self, choice: random.Random) -> None:
        """Lose some of the snapshots of the unfinished epoch."""
        share = choice.choice([0, 0.5, 1])
        self._write([snap for snap in self._unwritten if choice.random() < share])
        self._unwritten = []

    def forget_unfinished(self) -> None:
        """Drop the snapshots of the unfinished epoch, as `heartwheel run` does at its start."""
        for found in self.snaps.values():
            for epoch in [epoch for epoch in found if epoch >= self.front]:
                del found[epoch]

    def replace(self, values: dict[tuple[str, str], Any]) -> None:
        """Have these values, by step and key, and no others."""
        self.snaps.clear()
        for name, value in values.items():
            self.snaps[name][self.front - 1] = pickle.dumps(value)

    def load(self, step: str) -> dict[str, Any]:
        """Return the newest snapshot of each key of a step before the resume epoch."""
        loaded = {}
        for (of_step, key), found in sorted(self.snaps.items()):
            epochs = [epoch for epoch in found if epoch < self.front]
            if of_step == step and epochs:
                loaded[key] = pickle.loads(found[max(epochs)])  # noqa: S301  # our own
        return loaded


class _Part(Struct):
    logic: Any
    epoch: int
    began_ms: int
    awake_at: datetime | None


class SourceStep:
    """The partitions of a source in one process."""

    def __init__(self, step: str, database: Database, parts: dict[str, Any], now_ms: int) -> None:
        self._step = step
        self._database = database
        self.parts = {
            key: _Part(part, database.front, now_ms, None) for key, part in sorted(parts.items())
        }

    def activate(self, now_ms: int, wall_ms: int, probe: int, emit: Emit) -> None:
        """Ask each partition that may go on for a batch, and end its epoch if it is time."""
        now = system_time(wall_ms)
        for key, part in list(self.parts.items()):
            if probe < part.epoch:
                continue
            ended = False
            if part.awake_at is None or now >= part.awake_at:
                try:
                    batch = part.logic.next_batch()
                except StopIteration:
                    ended = True
                else:
                    for item in batch:
                        emit(part.epoch, key, item)
                    if self._step != "restored":  # which looks at the real clock
                        part.awake_at = part.logic.next_awake()
            if ended or now_ms - part.began_ms >= EPOCH_MS:
                self._database.add(self._step, key, part.epoch, part.logic.snapshot())
                part.epoch += 1
                part.began_ms = now_ms
            if ended:
                del self.parts[key]

    def epochs(self) -> Iterator[int]:
        return (part.epoch for part in self.parts.values())


class _Step:
    """What steps with keys have in common: input by epoch, loads, and a frontier that is late."""

    def __init__(self, step: str, database: Database, build: Callable[[str, Any], Any]) -> None:
        self._step = step
        self._database = database
        self._build = build
        self._loads = deque(database.load(step).items())
        self.logics: dict[str, Any] = {}
        self.inbox: defaultdict[int, defaultdict[str, list[Any]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self.cap: int | None = database.front - 1  # None at the end
        self._awake: set[str] = set()

    def take(self, epoch: int, key: str, item: Any) -> None:
        self.inbox[epoch][key].append(item)

    def own(self, is_own: Callable[[str], bool]) -> None:
        """Leave what is stored of other keys to other processes."""
        self._loads = deque(load for load in self._loads if is_own(load[0]))

    def load(self, count: int) -> bool:
        """Build some logics from their snapshots; say whether all are."""
        for _ in range(min(count, len(self._loads))):
            key, state = self._loads.popleft()
            self.logics[key] = self._build(key, state)
            self._loaded(key)
        return not self._loads

    def _loaded(self, key: str) -> None:
        """Note that a logic is there."""

    def _snapshot(self, epoch: int) -> None:
        for key in sorted(self._awake):
            self._database.add(self._step, key, epoch, self.logics[key].snapshot())
        self._awake.clear()


class StatefulStep(_Step):
    """`stateful_batch` in one process."""

    def __init__(self, step: str, database: Database, build: Callable[[str, Any], Any]) -> None:
        super().__init__(step, database, build)
        self._wakes: dict[str, datetime] = {}

    def _loaded(self, key: str) -> None:
        self._schedule([key])

    def activate(self, wall_ms: int, frontier: int | None, emit: Emit) -> None:
        """Work on every closed epoch, then on the one of the frontier; None is the end."""
        if self.cap is None:
            return
        last = self.cap
        epochs = {last, *self.inbox}
        closed = {e for e in epochs if frontier is None or e < frontier}
        for epoch in sorted(closed | {last if frontier is None else frontier}):
            self.cap = epoch
            self._work(system_time(wall_ms), epoch, emit, ends=frontier is None)
            if epoch in closed:
                self._snapshot(epoch)
        if frontier is None:
            self.cap = None

    def _work(self, now: datetime, epoch: int, emit: Emit, *, ends: bool) -> None:
        awake = set()
        for key, items in sorted(self.inbox.pop(epoch, {}).items()):
            if key not in self.logics:
                self.logics[key] = self._build(key, None)
            self._emit(self.logics[key].on_batch(items), epoch, key, emit)
            awake.add(key)
        for key in [key for key, at in sorted(self._wakes.items()) if at <= now]:
            del self._wakes[key]
            self._emit(self.logics[key].on_notify(), epoch, key, emit)
            awake.add(key)
        if ends:
            for key, logic in sorted(self.logics.items()):
                self._emit(logic.on_eof(), epoch, key, emit)
                awake.add(key)
        self._schedule(awake)
        self._awake |= awake

    def _emit(self, result: tuple[list[Any], bool], epoch: int, key: str, emit: Emit) -> None:
        for item in result[0]:
            emit(epoch, key, item)

    def _schedule(self, keys: Any) -> None:
        for key in keys:
            at = self.logics[key].notify_at()
            if at is not None:
                self._wakes[key] = at


class SinkStep(_Step):
    """A partitioned sink in one process."""

    def activate(self, frontier: int | None) -> None:
        """Write in the order of epochs, snapshot the closed ones; None is the end."""
        if self.cap is None:
            return
        epochs = {self.cap, *self.inbox}
        for epoch in sorted(e for e in epochs if frontier is None or e < frontier):
            self._write(epoch)
            self._snapshot(epoch)
        if frontier is not None:
            self._write(frontier)
        self.cap = frontier

    def _write(self, epoch: int) -> None:
        for key, items in sorted(self.inbox.pop(epoch, {}).items()):
            if key not in self.logics:
                self.logics[key] = self._build(key, None)
            self.logics[key].write_batch(items)
            self._awake.add(key)
