"""What a store knows of the sink: where output resumes, and what Kafka may not have yet."""

from pathlib import Path

from msgspec import Struct

from dataflows.formats import read_dead_letters, read_outbox, read_waiting_letters
from dataflows.messages import DEAD_LETTER_KEY
from heartwheel.store.part_file import Entry
from heartwheel.store.recovery_files import Recovery
from session_logic.errors import SnapshotError


class SinkSummary(Struct):
    """Where output resumes, by partition, and how many records are not acknowledged."""

    version: int
    end_offsets: dict[int, int]
    waiting: int = 0


def read_sink(entry: Entry) -> SinkSummary:
    """Return what the state of a sink says; raises SnapshotError if it cannot be read."""
    value = entry.value()
    try:
        if entry.key == DEAD_LETTER_KEY:
            waiting = read_waiting_letters(value)
            return SinkSummary(value[0], read_dead_letters(value), len(waiting))
        lane = int(entry.key.removeprefix("lane-"))
        outbox = read_outbox(lane, value)
        return SinkSummary(value[0], {lane: outbox.end_offset}, outbox.waiting)
    except (TypeError, ValueError, LookupError) as error:
        raise SnapshotError(f"it is no state of a sink ({error})") from None


def lanes_begun(folder: Path) -> bool | None:
    """Say whether a lane may have written its first record; it stores where it begins before that.

    None if the store is not in this folder, but in that of the first process: no other one begins
    before that one has.
    """
    if not any(folder.glob("*.sqlite3")):
        return None
    with Recovery(folder) as recovery:
        return any(
            step.endswith(".sink") and key != DEAD_LETTER_KEY for step, key in recovery.entries()
        )


def dead_letter_ends(folder: Path) -> dict[int, int] | None:
    """Return where the partitions of the dead letters ended as of the last snapshot.

    None if the store does not say so, or is not in this folder. Raises SnapshotError if it cannot
    be read.
    """
    if not any(folder.glob("*.sqlite3")):
        return None
    with Recovery(folder) as recovery:
        for entry in recovery.entries().values():
            if entry.step.endswith(".sink") and entry.key == DEAD_LETTER_KEY:
                return read_dead_letters(entry.value())
    return None
