"""Which rows of the store hold a lane's sessions: base blobs and the facts since then.

A lane appends the facts it applies to the row of its current segment. When a segment has grown
enough, the next one begins, and one group of the lane has its turn: its sessions are written
whole, as its base, so its facts in finished segments are needed no more. Every group has its
turn once in as many segments as there are groups, so segments can share a fixed ring of rows.
"""

from msgspec import Struct

from session_logic.errors import SnapshotError
from session_logic.keys import KEY_GROUPS, key_groups_of, lane_of

SEGMENT_BYTES = 256 * 1024
SEGMENT_EPOCHS = 8


class BaseRow(Struct, frozen=True, gc=False, tag=True):
    """The sessions of a group after every fact of segments up to and with `through`."""

    lane: int
    group: int
    through: int
    blob: bytes

    @property
    def row(self) -> str:
        """The name of the row in the store."""
        return f"base-{self.group:03}"


class JournalRow(Struct, frozen=True, gc=False, tag=True):
    """Chunks of facts of one segment, in order; a write adds its chunks to those there."""

    lane: int
    slot: int
    segment: int
    chunks: tuple[bytes, ...]

    @property
    def row(self) -> str:
        """The name of the row in the store."""
        return f"journal-{self.slot:03}"


Row = BaseRow | JournalRow


class JournalState(Struct, frozen=True, gc=False, array_like=True):
    """What a lane must find in the store: its last segment, and how far each base goes."""

    segment: int
    through: dict[int, int]


class Journal:
    """Decides where facts go and whose turn it is; holds no facts itself."""

    def __init__(self, lane: int, lanes: int, state: JournalState | None = None) -> None:
        """Begin with nothing stored, or go on from a state."""
        self._lane = lane
        self._groups = key_groups_of(lane, lanes)
        self._slots = len(self._groups) + 1
        self._first_slot = lane * self._slots
        self.segment = -1 if state is None else state.segment
        self.through = {} if state is None else dict(state.through)
        self._bytes = SEGMENT_BYTES if self.segment < 0 else 0
        self._epochs = 0
        self._touched = False

    @property
    def oldest(self) -> int:
        """The oldest segment that is still needed."""
        return min(self.through.get(group, -1) for group in self._groups) + 1

    def full(self) -> bool:
        """Say whether the next facts belong into a new segment."""
        return self._bytes >= SEGMENT_BYTES or self._epochs >= SEGMENT_EPOCHS

    def turn(self) -> int | None:
        """Begin a new segment; return the group to write whole now, if any is stored yet."""
        finished = self.segment
        self.segment += 1
        self._bytes = self._epochs = 0
        if finished < 0:
            return None
        group = self._groups[finished % len(self._groups)]
        self.through[group] = finished
        assert self.segment - self.oldest < self._slots
        return group

    def base(self, group: int, blob: bytes) -> BaseRow:
        """Return the row to write for the group that has its turn."""
        return BaseRow(self._lane, group, self.through[group], blob)

    def append(self, chunk: bytes) -> JournalRow:
        """Return the row to write for a chunk of facts."""
        self._bytes += len(chunk)
        self._touched = True
        slot = self._first_slot + self.segment % self._slots
        return JournalRow(self._lane, slot, self.segment, (chunk,))

    def state(self) -> JournalState:
        """Return the state at the end of an epoch."""
        self._epochs += self._touched
        self._touched = False
        return JournalState(self.segment, dict(self.through))


class Restore:
    """Collects the rows of a lane until all that its state names are there."""

    def __init__(self, lane: int, state: JournalState, oldest: int) -> None:
        """Expect the rows that the state names."""
        self._lane = lane
        self._state = state
        self._bases = dict(state.through)
        self._segments = set(range(oldest, state.segment + 1))
        self.journal: dict[int, JournalRow] = {}

    def done(self) -> bool:
        """Say whether every row has come."""
        return not self._bases and not self._segments

    def missing(self) -> list[str]:
        """Name the rows that have not come."""
        bases = [f"base-{group:03}" for group in sorted(self._bases)]
        return bases + [f"journal segment {segment}" for segment in sorted(self._segments)]

    def take(self, row: Row) -> bool:
        """Take a row in; say whether it is a base to load now.

        A journal row that is needed is kept in `journal`, an old one passed over. Raises
        SnapshotError for a row that does not fit the state.
        """
        if isinstance(row, BaseRow):
            if self._bases.pop(row.group, None) != row.through:
                raise self._misfit(row.row)
            return True
        if row.segment > self._state.segment:
            raise self._misfit(row.row)
        if row.segment in self._segments:
            self._segments.remove(row.segment)
            self.journal[row.segment] = row
        return False

    def _misfit(self, name: str) -> SnapshotError:
        return SnapshotError(
            f"recovery store, lane {self._lane}: row {name} is from another moment than the "
            "lane's state; put back a whole copy of the recovery directory"
        )


def row_names() -> list[str]:
    """Return every name that a row can have, whatever the number of lanes."""
    bases = [f"base-{group:03}" for group in range(KEY_GROUPS)]
    return bases + [f"journal-{slot:03}" for slot in range(2 * KEY_GROUPS)]


def lane_of_row(name: str, lanes: int) -> int:
    """Return the lane that a row belongs to by its name; raises ValueError if it is none."""
    kind, _, number = name.partition("-")
    slots = KEY_GROUPS // lanes + 1
    lane = lane_of(int(number), lanes) if kind == "base" else int(number) // slots
    if kind not in {"base", "journal"} or lane >= lanes or name not in row_names():
        msg = f"{name} is no row of a store with {lanes} lanes"
        raise ValueError(msg)
    return lane
