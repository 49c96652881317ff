"""The rows of the table of active sessions, as they come with other records."""

import json

from msgspec import Raw
from msgspec.structs import replace

from session_logic.codec import encode_output
from session_logic.events import EndIfOpen, OutputEvent, SessionEnd
from session_logic.output import NO_SESSION, OutputBatch, batch_with
from tests.support.clocks import T
from tests.support.output_records import active, beat

END = SessionEnd("d", "s", "pc", T, T + 70, "ended", 70)
ROW = {"session_id": "s", "platform": "pc", "started_ms": T, "timeout_ms": T + 3_600_000}


def rows(*events: OutputEvent) -> list[object]:
    """Return the rows that come with records; None for a device without a session."""
    records = batch_with(["table"], 3_600_000)
    for event in events:
        records.add(event, encode_output(event))
    table: OutputBatch = records.apart["table"]
    assert len(table) == records.count() - len(records)
    assert set(table.keys) <= {"d"}
    return [None if value == NO_SESSION else json.loads(value) for value in table.values]


def test_session_has_a_row_from_its_start_to_its_end() -> None:
    """Heartbeats change nothing of it."""
    assert rows(active(), beat(1), END) == [ROW, None]


def test_row_has_what_the_start_carried_as_it_was() -> None:
    """Consumers join with it."""
    (row,) = rows(replace(active(), context=Raw(b'{"a": 1.50}')))
    assert row == ROW | {"context": {"a": 1.5}}


def test_start_that_is_ignored_has_the_row_of_what_is_active() -> None:
    """A crashed run may have acted on it, and have written a row of its session."""
    ignored = EndIfOpen("d", "other", "pc", T, T, "replaced", 0)
    assert rows(ignored) == [None]
    assert rows(replace(ignored, active=active())) == [ROW]
