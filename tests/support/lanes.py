"""A lane with devices of its own, and a store for it as Bytewax would keep it."""

from msgspec import to_builtins

from session_logic.events import Fact, OutputEvent
from session_logic.journal import JournalRow, Row
from session_logic.keys import key_group_of, lane_of
from session_logic.lane import Lane
from session_logic.restoring import read_lane_state
from session_logic.rules import Rules
from tests.support.events import decoded

LANES = 64  # few groups to a lane, so that the journal's ring comes round often
LANE = 5
BEGIN_MS = 1_700_000_000_000
DEVICES = [
    name for name in map("d{}".format, range(2_000)) if lane_of(key_group_of(name), LANES) == LANE
][:12]
RULES = Rules(30_000, 3_600_000)
T = BEGIN_MS


class Store:
    """What Bytewax would keep: rows and the lane's state, as of the last epoch."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.state: list[object] | None = None
        self._written: list[Row] = []

    def write(self, rows: list[Row]) -> None:
        """Take rows in; they count from the end of the epoch."""
        self._written += rows

    def commit(self, lane: Lane) -> None:
        """End the epoch."""
        for row in self._written:
            known = self.rows.get(row.row)
            if (
                isinstance(row, JournalRow)
                and isinstance(known, JournalRow)
                and known.segment == row.segment
            ):
                row = JournalRow(row.lane, row.slot, row.segment, known.entries + row.entries)
            self.rows[row.row] = row
        self._written = []
        self.state = to_builtins(lane.state())

    def crash(self) -> None:
        """Lose what was not committed."""
        self._written = []


def stored(calls: int) -> Store:
    """Return the store of a lane after some calls, one start and one epoch each."""
    lane, store = Lane(LANE, LANES, RULES), Store()
    for number in range(calls):
        store.write(lane.apply([start(number)], T).rows)
        store.commit(lane)
    return store


def start(number: int) -> Fact:
    """Return a start on one of the devices."""
    return Fact(True, DEVICES[number % len(DEVICES)], f"s{number}", "pc", T + number)


def resumed(store: Store) -> Lane:
    """Return the lane that is made from a store's state, before any row has come."""
    assert store.state is not None
    return Lane(LANE, LANES, RULES, read_lane_state(store.state))


def give(lane: Lane, rows: list[Row]) -> list[OutputEvent]:
    """Restore rows; return what is sent."""
    return [event for row in rows for event in decoded(lane.restore(row, T).records)]
