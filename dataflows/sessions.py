"""The dataflow: device sessions and heartbeats, from Kafka to Kafka."""

from collections.abc import Mapping
from functools import partial
from importlib.metadata import entry_points
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow, Stream
from bytewax.inputs import Source
from bytewax.outputs import Sink

from dataflows.decode import Decode, Reads
from dataflows.failure import noting, noting_parts
from dataflows.lanes import by_row, is_records, lane_builder
from dataflows.messages import DEAD_LETTER_KEY, PartitionBatch
from dataflows.metrics import HEARTBEAT_INTERVAL
from dataflows.run_state import RunState
from dataflows.settings import Settings
from dataflows.store import Inbox, RestoredSource, StoreSink, has_row

# Bytewax has no broadcast, but it deals items out at random: of this many copies each of up to
# MAX_WORKERS workers gets one, but for one run in 10^12.
STOP_COPIES = 1_000


def build_flow(
    source: Source[PartitionBatch],
    sink: Sink[Any],
    settings: Settings,
    run: RunState | None = None,
    readers: Mapping[str, Reads] | None = None,
) -> Dataflow:
    """Return the dataflow between a source of polls and a sink of records; for one run only.

    Without readers, topics that have a table are read as JSON. Step ids are names in the recovery
    store: they must stay.
    """
    run = run or RunState()
    inbox: Inbox = Inbox()
    flow = Dataflow("heartwheel")
    polls = op.input("source", flow, source)
    broadcast_stop(polls, run)
    restored = op.input("restored", flow, RestoredSource(inbox, run))

    decode = Decode(
        settings.lanes,
        settings.max_clock_skew_ms,
        run,
        settings.max_record_bytes,
        settings.mappings() if readers is None else readers,
    )
    decode.own_lanes, decode.route = settings.own_lanes, settings.route
    decode.idle_timeouts_ms = settings.idle_timeouts_ms
    HEARTBEAT_INTERVAL.set(settings.heartbeat_ms / 1000)
    decoded = op.branch(
        "decoded",
        op.flat_map_batch("decode", polls, noting(run, decode)),
        lambda item: item[0] != DEAD_LETTER_KEY,
    )
    facts, dead_letters = decoded.trues, decoded.falses

    sessions = op.stateful_batch(
        "sessions",
        op.merge("lanes", facts, restored),
        noting_parts(run, lane_builder(settings, run)),
    )
    emitted = op.branch("emitted", sessions, is_records)
    op.output("sink", op.merge("outputs", emitted.trues, dead_letters), sink)
    rows = StoreSink(inbox, partial(has_row, run, settings.lanes))
    rows.build_part = noting(run, rows.build_part)  # type: ignore[method-assign]
    op.output("store", op.map("rows", emitted.falses, by_row), rows)
    return flow


def broadcast_stop(polls: Stream[PartitionBatch], run: RunState) -> None:
    """Stop the run in every process once one process of the cluster is asked to stop."""
    stops = op.flat_map("stop", polls, lambda poll: [None] * STOP_COPIES if poll.stop else [])
    op.inspect("stopped", op.redistribute("stops", stops), lambda _step_id, _stop: run.stop.set())


def __getattr__(name: str) -> Dataflow:
    """Make `flow` when `python -m bytewax.run` asks for it.

    The program that is installed makes it, because lock and lease are the program's.
    """
    if name == "flow":
        (program,) = entry_points(group="heartwheel.flow")
        flow: Dataflow = program.load()()
        return flow
    raise AttributeError(name)
