"""The page beside the reference pipeline: its records are made here, and its fields exist."""

import re
import tomllib

from dataflows.settings_file import read_inputs
from heartwheel import reference
from session_logic.clock import PartitionProgress
from session_logic.events import Fact, Heartbeat, SessionActive, SessionEnd
from session_logic.lane import Lane
from session_logic.mapping import MappedEvent, Mapping
from session_logic.rules import Rules
from tests.support.pages import page

PAGE = page("compare.md")
LATER_MS = 1_800_000_000_000
OUTPUT = SessionActive, Heartbeat, SessionEnd


def outcome(lines: list[str]) -> list[str]:
    """Return what comes of records of pc_sessions, at the end of each heartbeat as well."""
    tables = read_inputs(tomllib.loads(reference.TABLES)["inputs"], "")
    read = Mapping(tables["pc_sessions"], 0, LATER_MS).read
    lane = Lane(0, 1, Rules(30_000, reference.MAX_SESSION_MS))
    lane.update(PartitionProgress("topic/0", 1, None))
    records = []
    for line in lines:
        event = read(None, line.encode(), None, LATER_MS)
        assert isinstance(event, MappedEvent)
        assert event.time_ms is not None
        names = event.device_id, event.session_id, event.platform
        fact = Fact(event.is_start, *names, event.time_ms, created=True, carried=event.carried)
        if event.is_start:
            lane.advance(event.time_ms)
        records += lane.apply([fact], event.time_ms).records.values
    return [record.decode() for record in records]


def test_records_of_the_page_are_what_comes_of_its_input() -> None:
    """Byte for byte; of the heartbeats it has the first one."""
    given, sent = PAGE.blocks("json")
    start, *beats, end = outcome(given.splitlines())
    assert len(beats) == 8
    assert sent.splitlines() == [start, beats[0], end]


def test_fields_of_the_page_are_fields_of_records() -> None:
    """Both columns of what is compared, and each of our fields is in it."""
    rows = PAGE.rows("The record, field by field")
    ours = {name for row in rows for name in re.findall(r"`([a-z_]+)[`.]", row[1])}
    fields = {name for kind in OUTPUT for name in kind.__struct_fields__}
    reasons = {"ended", "replaced", "timed_out"}
    # Only a session that silence ends has it, and the page compares without that.
    assert ours - {"foreground_s"} - reasons == fields - {"last_seen_ms"} | {"type"}
    theirs = {name for row in rows for name in re.findall(r"`([A-Za-z_]+)`", row[0])}
    assert theirs - {"SessionStart", "SessionHeartbeat", "SessionEnd"} == {
        "deviceId", "appSessionId", "psnAccountId", "sessionStatus", "session_timestamp",
        "sessionDuration", "upstream_timestamp", "processing_timestamp", "timer_info",
        "debug_info",
    }  # fmt: skip


def test_tables_of_the_demonstration_are_those_of_the_page() -> None:
    """What it runs with can be copied."""
    assert page("events.md").blocks("toml")[0] == reference.TABLES
