"""How far a recorded run had come when its recording ends, and when it was silent."""

from itertools import chain, pairwise

import msgspec
from msgspec import Struct

from heartwheel.recording.format import Line
from heartwheel.recording.reader import Recording
from session_logic.codec import decode_output
from session_logic.events import Heartbeat

# A silence is looked for in stretches of this part of a heartbeat interval.
STRETCHES = 8
HEARTBEAT = '{"type":"Heartbeat"'


class RecordedProgress(Struct):
    """How far a recorded run had come: the time of its lanes, its last output, and its silences.

    beating holds the stretches of time (timestamp // stretch_ms) in which the wheel sent
    heartbeats. A heartbeat that was sent together with another record of its device does not
    count: an end or a new start caused it, not the wheel.
    """

    stretch_ms: int
    reached_ms: int = -1
    written_ms: int = 0
    beating: set[int] = msgspec.field(default_factory=set)

    def was_silent(self, due_ms: int, heartbeat_ms: int) -> bool:
        """Say whether no heartbeat was sent in the interval after due_ms, as in an outage."""
        first = due_ms // self.stretch_ms + 2
        last = (due_ms + heartbeat_ms) // self.stretch_ms - 1
        return self.beating.isdisjoint(range(first, last + 1))


def read_progress(recording: Recording) -> RecordedProgress:
    """Return how far the recorded run had come."""
    progress = RecordedProgress(max(1, recording.settings["heartbeat_ms"] // STRETCHES))
    for name in recording.partitions([recording.settings["output_topic"]]):
        latest_ms = recording.manifest.partitions[name].latest_ms
        progress.written_ms = max(progress.written_ms, latest_ms)
        _read_partition(recording, name, progress)
    if not progress.beating:
        # Without any output there is nothing that could excuse its absence.
        progress.reached_ms = progress.written_ms or recording.manifest.complete_ms
    return progress


def _read_partition(recording: Recording, name: str, progress: RecordedProgress) -> None:
    """Note when the wheel sent heartbeats to a partition, and the time of the last one."""
    beat = None
    lines = (line for _, some in recording.read(name) for line in some)
    before: Line | None = None
    for line, after in pairwise(chain(lines, [None])):
        assert line is not None
        if (
            (line.value or "").startswith(HEARTBEAT)
            and not _is_together(line, before, progress.stretch_ms)
            and not _is_together(line, after, progress.stretch_ms)
        ):
            progress.beating.add(line.timestamp_ms // progress.stretch_ms)
            beat = line
        before = line
    if beat is not None:
        try:
            event = decode_output(beat.value_bytes() or b"")
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return  # a record of another program
        if isinstance(event, Heartbeat):
            progress.reached_ms = max(progress.reached_ms, event.time_ms)


def _is_together(line: Line, other: Line | None, stretch_ms: int) -> bool:
    """Say whether a record was sent together with its neighbour of the same device."""
    return (
        other is not None
        and other.key == line.key
        and abs(other.timestamp_ms - line.timestamp_ms) < stretch_ms
    )
