"""What a store holds, in plain values: for `heartwheel store inspect`."""

from typing import Any

from msgspec import Struct

from heartwheel.store.contents import STEPS, Contents
from heartwheel.store.identity import Identity, Note, read_identity, read_notes
from heartwheel.store.part_file import TABLES_VERSION
from heartwheel.store.sinks import SinkSummary, read_sink
from heartwheel.store.sources import is_read, read_source
from session_logic.errors import SnapshotError
from session_logic.journal import Journal
from session_logic.keys import KEY_GROUPS


class LaneSummary(Struct, kw_only=True):
    """What is stored of a lane; remembered counts the ended sessions that are still kept."""

    lane: int
    active: int
    remembered: int
    fired_ms: int
    first_segment: int
    last_segment: int
    base_rows: int
    journal_rows: int
    bytes: int


class FileSummary(Struct, kw_only=True):
    """A part file; values from before committed_epoch that were replaced are gone from it."""

    file: str
    bytes: int
    committed_epoch: int


class Summary(Struct, kw_only=True):
    """What a store holds, in plain values: epochs, versions, offsets, rows, lanes, notes.

    store_id and output_topic are "" for a store that only earlier versions have run.
    """

    directory: str
    tables_version: int
    state_versions: list[int]
    row_versions: list[int]
    sink_versions: list[int]
    lane_count: int
    groups: int
    executions: int
    workers: int
    last_epoch: int
    resume_epoch: int
    files: list[FileSummary]
    values: dict[str, int]
    source: dict[str, Any]
    sink: dict[str, SinkSummary]
    lanes: list[LaneSummary]
    store_id: str
    output_topic: str
    layout: str
    notes: list[Note]


def summarize(contents: Contents) -> Summary:
    """Return what is stored; raises SnapshotError for what cannot be read."""
    if contents.state_faults:
        raise SnapshotError(contents.state_faults[0])
    recovery, states = contents.recovery, contents.states
    identity = read_identity(recovery) or Identity("")
    sinks = {entry.key: read_sink(entry) for entry in contents.step("sink")}
    return Summary(
        directory=str(recovery.folder),
        tables_version=TABLES_VERSION,
        state_versions=sorted({state.version for state in states.values()}),
        row_versions=sorted({entry.value()[0] for entry in contents.step("store")}),
        sink_versions=sorted({sink.version for sink in sinks.values()}),
        lane_count=contents.lanes,
        groups=next((state.groups for state in states.values()), KEY_GROUPS),
        executions=recovery.executions,
        workers=recovery.workers,
        last_epoch=recovery.last_epoch(),
        resume_epoch=recovery.resume_epoch,
        files=[
            FileSummary(file=part.path.name, bytes=part.bytes, committed_epoch=part.committed)
            for part in recovery.parts
        ],
        values={name: len(contents.step(name)) for name in STEPS},
        source={
            entry.key: read_source(entry).offset
            for entry in contents.step("source")
            if is_read(entry)
        },
        sink=sinks,
        lanes=[_lane_summary(contents, lane) for lane in sorted(states)],
        store_id=identity.id,
        output_topic=identity.output_topic,
        layout=str(identity.layout),
        notes=read_notes(recovery),
    )


def _lane_summary(contents: Contents, lane: int) -> LaneSummary:
    restored, faults = contents.restore(lane)
    if faults:
        raise SnapshotError(f"{faults[0]}; see `heartwheel store check`")
    state, rows = contents.states[lane], contents.rows(lane)
    bases = sum(entry.key.startswith("base") for entry in rows)
    active = restored.table.active
    return LaneSummary(
        lane=lane,
        active=active,
        remembered=len(restored.table.wheel) - active,
        fired_ms=state.watermark_ms,
        first_segment=Journal(lane, state.lanes, state.journal).oldest,
        last_segment=state.journal.segment,
        base_rows=bases,
        journal_rows=len(rows) - bases,
        bytes=sum(entry.bytes for entry in rows),
    )
