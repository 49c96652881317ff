"""Output records as events, in the orders that tests compare."""

from collections import defaultdict

from session_logic.codec import decode_output
from session_logic.events import Heartbeat, OutputEvent, SessionActive
from session_logic.output import OutputBatch


def decoded(records: OutputBatch) -> list[OutputEvent]:
    """Return records as events; each key must be its record's device."""
    events = [decode_output(value) for value in records.values]
    assert [event.device_id for event in events] == records.keys
    return events


def by_device(events: list[OutputEvent]) -> dict[str, list[OutputEvent]]:
    """Sort events by device; the order of a device's events is kept."""
    sorted_events: defaultdict[str, list[OutputEvent]] = defaultdict(list)
    for event in events:
        sorted_events[event.device_id].append(event)
    return dict(sorted_events)


def kinds(events: list[OutputEvent]) -> list[str]:
    """Return what events are, in short: active, beat 1, end ended."""
    words = []
    for event in events:
        if isinstance(event, SessionActive):
            words.append("active")
        elif isinstance(event, Heartbeat):
            words.append(f"beat {event.sequence}")
        else:
            words.append(f"end {event.reason}")
    return words
