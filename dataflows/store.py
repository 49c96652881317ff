"""The store: a sink whose partitions are rows, kept by Bytewax's recovery, and the way back.

A row is stored by being written to: its snapshot at the end of the epoch is what it holds. On
resume Bytewax builds the rows again, and they put what they held into the inbox. From there the
restored source brings it to the lanes.
"""

import time
from bisect import insort
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from functools import partial
from threading import Lock, get_ident

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from dataflows.clock import system_time
from dataflows.formats import ROW_VERSION, StoredRow, read_row, to_stored
from dataflows.messages import MAX_WORKERS, lane_key
from dataflows.metrics import SNAPSHOT_BYTES, STORE_BYTES, STORE_KEYS, read_from
from dataflows.run_state import RunState
from session_logic.journal import BaseRow, JournalRow, Row, lane_of_row, row_names

POLL_MS = 20
# One row may hold all sessions of a key group: between two, what is restored already goes on.
BATCH_ROWS = 1


class Inbox:
    """The rows that a resume restores, given out lane by lane, so that the first begin early.

    Of a lane its bases come first, then the journal in order: each can be taken in at once then.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self._lock = Lock()  # worker threads share it
        self._rows: defaultdict[int, list[Row]] = defaultdict(list)

    def put(self, row: Row) -> None:
        """Add a row."""
        with self._lock:
            insort(self._rows[row.lane], row, key=_turn)

    def __bool__(self) -> bool:
        """Say whether there is a row."""
        return bool(self._rows)

    def take(self, count: int) -> list[Row]:
        """Return the next rows, up to count of them."""
        taken: list[Row] = []
        with self._lock:
            while self._rows and len(taken) < count:
                lane = min(self._rows)
                taken.append(self._rows[lane].pop(0))
                if not self._rows[lane]:
                    del self._rows[lane]
        return taken


def _turn(row: Row) -> int:
    return row.segment if isinstance(row, JournalRow) else -1


def _bytes(row: Row) -> int:
    return len(row.blob) if isinstance(row, BaseRow) else sum(map(len, row.entries))


class _RowPart(StatefulSinkPartition[Row, StoredRow]):
    """One row. A journal row keeps its entries because more may come, a base only until stored."""

    def __init__(self, row: Row | None, stored: Callable[[int], None]) -> None:
        self._row = row
        self._stored = stored

    def write_batch(self, items: list[Row]) -> None:
        for row in items:
            known = self._row
            if (
                isinstance(row, JournalRow)
                and isinstance(known, JournalRow)
                and known.segment == row.segment
            ):
                entries = known.entries + row.entries
                row = JournalRow(row.lane, row.slot, row.segment, entries)
            self._row = row

    def snapshot(self) -> StoredRow:
        row = self._row
        assert row is not None
        self._stored(_bytes(row))
        if isinstance(row, BaseRow):
            self._row = None
        return to_stored(row)


def has_row(run: RunState, lanes: int, name: str) -> bool:
    """Say whether the lane of a row is for this process, or no lane has it."""
    try:
        lane = lane_of_row(name, lanes)
    except ValueError:  # there are too few lanes for it
        return True
    return run.has_lane(lane)


class StoreSink(FixedPartitionedSink[Row, StoredRow]):
    """Stores rows under their names."""

    def __init__(self, inbox: Inbox, has_row: Callable[[str], bool] = lambda _name: True) -> None:
        """Put what a resume restores into the inbox; has_row tells which rows are for here."""
        self._inbox = inbox
        self._has_row = has_row
        self._names = sorted(row_names())
        self._index = {name: index for index, name in enumerate(self._names)}
        self._bytes: dict[str, int] = {}
        read_from(STORE_KEYS, self.keys)
        read_from(STORE_BYTES, self.held)

    def keys(self) -> int:
        """Return how many rows hold something."""
        return len(self._bytes)

    def held(self) -> int:
        """Return how many bytes the rows hold."""
        return sum(list(self._bytes.values()))  # other threads may be adding to it

    def _stored(self, name: str, size: int) -> None:
        self._bytes[name] = size
        SNAPSHOT_BYTES.inc(size)

    def list_parts(self) -> list[str]:
        """Return every possible row that is for here; Bytewax gives it to who names it."""
        return [name for name in self._names if self._has_row(name)]

    def part_fn(self, item_key: str) -> int:
        """Return the index of a row."""
        return self._index[item_key]

    def build_part(self, step_id: str, for_part: str, resume_state: StoredRow | None) -> _RowPart:
        """Build a row; what it held goes to its lane again. Raises SnapshotError as `read_row`."""
        stored = partial(self._stored, for_part)
        if resume_state is None:
            return _RowPart(None, stored)
        row = read_row(for_part, resume_state)
        self._bytes[for_part] = _bytes(row)
        self._inbox.put(row)
        return _RowPart(row if isinstance(row, JournalRow) else None, stored)


class _InboxPart(StatefulSourcePartition[tuple[str, Row], int]):
    """Gives out what is in the inbox; ends when no row can come any more.

    A snapshot is taken at the end of an epoch, and the next batch asked for only when all steps
    have finished it: by then every stored row has been built.
    """

    def __init__(self, inbox: Inbox, run: RunState) -> None:
        self._inbox = inbox
        self._run = run
        self._complete = False

    def next_batch(self) -> list[tuple[str, Row]]:
        batch = [(lane_key(row.lane), row) for row in self._inbox.take(BATCH_ROWS)]
        if not batch and (self._complete or self._run.stop.is_set()):
            raise StopIteration
        return batch

    def next_awake(self) -> datetime | None:
        return None if self._inbox else system_time(time.time() * 1000 + POLL_MS)

    def snapshot(self) -> int:
        self._complete = True
        return ROW_VERSION


class _EmptyPart(StatefulSourcePartition[tuple[str, Row], int]):
    """Ends at once."""

    def next_batch(self) -> list[tuple[str, Row]]:
        raise StopIteration

    def snapshot(self) -> int:
        return ROW_VERSION


class RestoredSource(FixedPartitionedSource[tuple[str, Row], int]):
    """Emits the rows that a resume has put into the inbox of this process, then ends."""

    def __init__(self, inbox: Inbox, run: RunState) -> None:
        """Read from this inbox, until the run is stopped at the latest."""
        self._inbox = inbox
        self._run = run
        self._workers: set[int] = set()  # that have a part, by their threads

    def list_parts(self) -> list[str]:
        """Return one part for each possible worker; all parts of a process empty the same inbox."""
        return [f"restored-{index:02}" for index in range(MAX_WORKERS)]

    def build_part(
        self, step_id: str, for_part: str, resume_state: int | None
    ) -> _InboxPart | _EmptyPart:
        """Build a part; it has no state of its own.

        Only the first of each worker gives out rows: a turn with a row of each part would be long.
        """
        if get_ident() in self._workers:
            return _EmptyPart()
        self._workers.add(get_ident())
        return _InboxPart(self._inbox, self._run)
