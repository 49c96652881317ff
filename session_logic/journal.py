"""Which rows of the store hold a lane's sessions: the base of each key group, and a journal.

What is guaranteed: the rows that a lane's state names are enough to restore every session as of
that state, and a lane never has more than two rows a key group, however long it runs.

How. A lane appends the facts it applies to the journal row of its current segment. When a segment
is full, the lane rolls to the next one, and one of its key groups is written whole: its base. The
key groups take turns, in order. A segment is full with SEGMENT_BYTES. Before that it is once it has
been stored SEGMENT_EPOCHS times, and with all its repetitions has cost as much as a base: then
another segment is the cheaper one, however many lanes share the sessions.

The invariant: for every key group, base + the entries of all later segments = its sessions now.
The base of a group is written when segment `through` is finished, so the group needs no entry of
`through` or before. Each group has its turn once in as many segments as there are groups. So the
oldest segment that any group needs is at most that many segments back, and segments can share a
ring of rows with one slot more than there are groups.

Written whole are only small pieces, one group at a time, because Bytewax stores each row that was
touched in an epoch as a whole, and walks all stored keys at every snapshot: neither one row a
device nor one large row would do.

What would break it: a fact that is applied without being appended in the same epoch; a base that
is written before the facts of its segment are applied; a row that is overwritten while a group
still needs it (asserted in `roll`). A group that has no base yet needs every segment from the
first on: that is why `oldest` counts it as -1.
"""

from msgspec import Struct

from session_logic.keys import KEY_GROUPS, key_groups_of

SEGMENT_BYTES = 256 * 1024
SEGMENT_EPOCHS = 8
# A byte of a base costs as much as so many of a journal row, as sessions must be encoded for it.
BASE_COST = 3


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
    """Entries of one segment, in order; a write adds its entries to those that are there."""

    lane: int
    slot: int
    segment: int
    entries: tuple[bytes, ...]

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
    """Decides where facts go and which key group has its turn; holds no facts itself."""

    def __init__(self, lane: int, lanes: int, state: JournalState | None = None) -> None:
        """Make the journal of a new lane, or go on from a state."""
        self._lane = lane
        self._groups = key_groups_of(lane, lanes)
        self._slots = len(self._groups) + 1
        self._first_slot = lane * self._slots
        self.segment = -1 if state is None else state.segment
        self.through = {} if state is None else dict(state.through)
        self._bytes = SEGMENT_BYTES if self.segment < 0 else 0
        self._epochs = self._stored_bytes = 0
        self._base_bytes = 0  # of the newest base; the next one is of another group, and as large
        self._touched = False

    @property
    def oldest(self) -> int:
        """The oldest segment that is still needed."""
        return min(self.through.get(group, -1) for group in self._groups) + 1

    def stored(self) -> bool:
        """Say whether anything of the lane is in the store."""
        return self.segment >= 0 or bool(self.through)

    def full(self) -> bool:
        """Say whether the next facts belong into a new segment."""
        worth_a_base = self._stored_bytes >= BASE_COST * self._base_bytes
        return self._bytes >= SEGMENT_BYTES or (self._epochs >= SEGMENT_EPOCHS and worth_a_base)

    def roll(self) -> int | None:
        """Begin a new segment; return the key group to write whole now, if there is one yet."""
        finished = self.segment
        self.begin_segment()
        if finished < 0:
            return None
        group = self._groups[finished % len(self._groups)]
        self.through[group] = finished
        assert self.segment - self.oldest < self._slots
        return group

    def begin_segment(self) -> None:
        """Begin a new segment; something must be appended to it in this epoch."""
        self.segment += 1
        self._bytes = self._epochs = self._stored_bytes = 0

    def base(self, group: int, blob: bytes) -> BaseRow:
        """Return the row to write for the key group that has its turn."""
        self._base_bytes = len(blob)
        return BaseRow(self._lane, group, self.through[group], blob)

    def rewrite(self, group: int, blob: bytes) -> BaseRow:
        """Return the row to write for a key group out of turn; it needs no finished segment then.

        Once that is done for every group, the next segment must begin.
        """
        self.through[group] = self.segment
        return self.base(group, blob)

    def append(self, entry: bytes) -> JournalRow:
        """Return the row to write for an entry."""
        self._bytes += len(entry)
        self._touched = True
        slot = self._first_slot + self.segment % self._slots
        return JournalRow(self._lane, slot, self.segment, (entry,))

    def state(self) -> JournalState:
        """Return the state at the end of an epoch."""
        if self._touched:
            self._epochs += 1
            self._stored_bytes += self._bytes
        self._touched = False
        return JournalState(self.segment, dict(self.through))


def row_names() -> list[str]:
    """Return every name that a row can have, whatever the number of lanes."""
    bases = [f"base-{group:03}" for group in range(KEY_GROUPS)]
    return bases + [f"journal-{slot:03}" for slot in range(2 * KEY_GROUPS)]


_ROW_NAMES = frozenset(row_names())


def lane_of_row(name: str, lanes: int) -> int:
    """Return the lane that a row belongs to by its name; raises ValueError if it is none."""
    kind, _, number = name.partition("-")
    slots = KEY_GROUPS // lanes + 1
    lane = int(number) % lanes if kind == "base" else int(number) // slots
    nobodys = kind == "base" and int(number) >= KEY_GROUPS - KEY_GROUPS % lanes
    if kind not in {"base", "journal"} or nobodys or lane >= lanes or name not in _ROW_NAMES:
        msg = f"{name} is no row of a store with {lanes} lanes"
        raise ValueError(msg)
    return lane
