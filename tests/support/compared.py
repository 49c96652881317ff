"""Comparing a recorded run with its replay, and records that a run might have sent beside it."""

from msgspec.structs import replace

from heartwheel.recording.comparison import Comparison, Difference
from heartwheel.recording.format import Line
from heartwheel.recording.progress import read_progress
from heartwheel.recording.reader import Recording
from heartwheel.recording.replay import replay, replay_settings
from session_logic.codec import encode_output
from session_logic.events import Heartbeat, OutputEvent, SessionEnd


def compared(
    recording: Recording, last_ms: int = 100, changes: dict[str, str] | None = None
) -> tuple[dict[str, int], list[Difference]]:
    """Return the counts that are not 0, without the equal ones, and the differences."""
    progress = read_progress(recording)
    comparison = Comparison(recording, progress, last_ms)
    until_ms = progress.written_ms + last_ms
    replay(recording, replay_settings(recording, changes or {}), comparison.take, until_ms)
    differences = comparison.finish()
    counts = {kind: n for kind, n in comparison.counts.items() if n and kind != "equal"}
    return counts, differences


def with_event(line: Line, event: OutputEvent) -> Line:
    """Return a line with another record."""
    return replace(line, value=encode_output(event).decode())


def beat_of(end: SessionEnd, sequence: int) -> Heartbeat:
    """Return a heartbeat of a session that has ended."""
    names = end.device_id, end.session_id, end.platform, end.started_ms
    return Heartbeat(*names, end.started_ms + sequence * 1_000, sequence)


def raced_line(line: Line, end: SessionEnd, sequence: int) -> Line:
    """Return a heartbeat of a session that has ended, sent when it was due."""
    beat = beat_of(end, sequence)
    return replace(with_event(line, beat), timestamp_ms=beat.time_ms)
