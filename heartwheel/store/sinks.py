"""What a store knows of the sink: where output resumes, and what Kafka may not have yet."""

from msgspec import Struct

from dataflows.formats import read_dead_letters, read_outbox
from dataflows.messages import DEAD_LETTER_KEY
from heartwheel.store.recovery_files import Entry
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
            return SinkSummary(value[0], read_dead_letters(value))
        lane = int(entry.key.removeprefix("lane-"))
        end_offset, keys, _ = read_outbox(lane, value)
        return SinkSummary(value[0], {lane: end_offset}, len(keys))
    except (TypeError, ValueError, LookupError) as error:
        raise SnapshotError(f"it is no state of a sink ({error})") from None
