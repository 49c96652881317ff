"""What a store knows of the input: the position of each partition."""

from pathlib import Path

from dataflows.formats import Position, read_position
from heartwheel.store.part_file import Entry
from heartwheel.store.recovery_files import Recovery


def read_source(entry: Entry) -> Position:
    """Return the position of an input partition; raises SnapshotError if it cannot be read."""
    return read_position(entry.key, entry.value())


def is_read(entry: Entry) -> bool:
    """Say whether anything of an input partition has been read; many are only waited for."""
    return read_source(entry).offset >= 0


def source_states(folder: Path) -> dict[str, object]:
    """Return the states of the source by part; none where the store is not in this folder.

    Raises SnapshotError if one cannot be read.
    """
    if not any(folder.glob("*.sqlite3")):
        return {}
    with Recovery(folder) as recovery:
        return {
            entry.key: entry.value()
            for entry in recovery.entries().values()
            if entry.step.endswith(".source")
        }
