"""Output records of one session, as a lane gives them to its outbox."""

import msgspec

from session_logic.events import Heartbeat, OutputEvent, SessionActive
from session_logic.output import OutputBatch
from tests.support.clocks import T

BEAT_MS = 30_000


def active(device: str = "d", started_ms: int = T) -> SessionActive:
    """Return the start of a device's session."""
    return SessionActive(device, "s", "pc", started_ms, started_ms)


def beat(sequence: int, device: str = "d", started_ms: int = T) -> Heartbeat:
    """Return a heartbeat of a device's session."""
    time_ms = started_ms + sequence * BEAT_MS
    return Heartbeat(device, "s", "pc", started_ms, time_ms, sequence)


def batch(*events: OutputEvent, complete_up_to_ms: int | None = None) -> OutputBatch:
    """Return a batch of records."""
    records = OutputBatch(complete_up_to_ms=complete_up_to_ms)
    for event in events:
        records.add(event, msgspec.json.encode(event))
    return records
