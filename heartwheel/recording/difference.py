"""What differs between a replay and a recording."""

from msgspec import Struct

from heartwheel.recording.recorded import Item

ROWS = 8  # how many of a device to keep
# What was replayed, or follows from it, comes first, and what was recorded second.
Row = tuple[Item | None, Item | None]


class Difference(Struct):
    """Where replay and recording of a device differ: the first rows, and how many there are.

    of says of what, where that is not the output.
    """

    name: str
    rows: list[Row] = []
    count: int = 0
    of: str = ""

    @property
    def title(self) -> str:
        """What differs, in words."""
        return f"{self.of} of {self.name}" if self.of else self.name

    def add(self, row: Row) -> None:
        """Count a row."""
        self.count += 1
        if len(self.rows) < ROWS:
            self.rows.append(row)
