"""The dataflow: device sessions and heartbeats, from Kafka to Kafka."""

from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.outputs import Sink

from dataflows.clock import Clock, SteadyClock
from dataflows.decode import Decode
from dataflows.kafka.sink import KafkaSink
from dataflows.kafka.source import KafkaSource
from dataflows.lanes import by_row, is_records, lane_builder
from dataflows.logs import start_logs
from dataflows.messages import DeadLetter, PartitionBatch
from dataflows.settings import Settings, load_settings
from dataflows.stop import STOP
from dataflows.store import Inbox, RestoredSource, StoreSink
from dataflows.vitals import Vitals

# A stop that one process is asked for is a stop of all. Bytewax has no broadcast, but deals at
# random: of so many copies each of up to 32 workers gets one, but for one run in 10^12.
STOP_COPIES = 1_000


def build_flow(
    source: Source[PartitionBatch],
    sink: Sink[Any],
    settings: Settings,
    clock: Clock | None = None,
    vitals: Vitals | None = None,
) -> Dataflow:
    """Return the dataflow between a source of polls and a sink of records; for one run only.

    Step ids are names in the recovery store: they must stay.
    """
    clock = clock or SteadyClock()
    vitals = vitals or Vitals()
    inbox: Inbox = Inbox()
    flow = Dataflow("heartwheel")
    polls = op.input("source", flow, source)
    stops = op.flat_map("stop", polls, lambda poll: [None] * STOP_COPIES if poll.stop else [])
    op.inspect("stopped", op.redistribute("stops", stops), lambda _step_id, _stop: STOP.set())
    restored = op.input("restored", flow, RestoredSource(inbox))

    decode = Decode(
        settings.lanes, settings.max_clock_skew_ms, clock.now_ms, vitals, settings.max_record_bytes
    )
    decoded = op.branch(
        "decoded",
        op.flat_map_batch("decode", polls, decode),
        lambda item: not isinstance(item[1], DeadLetter),
    )
    facts, dead_letters = decoded.trues, decoded.falses

    sessions = op.stateful_batch(
        "sessions",
        op.merge("lanes", facts, restored),
        lane_builder(settings, clock, vitals),  # type: ignore[arg-type]  # branch does not narrow its streams
    )
    emitted = op.branch("emitted", sessions, is_records)
    op.output("sink", op.merge("outputs", emitted.trues, dead_letters), sink)
    op.output("store", op.map("rows", emitted.falses, by_row), StoreSink(inbox))
    return flow


def __getattr__(name: str) -> Dataflow:
    """Make `flow` from the environment when `python -m bytewax.run` asks for it."""
    if name == "flow":
        settings = load_settings()
        start_logs(settings)
        clock, sink = SteadyClock(), KafkaSink(settings)
        source = KafkaSource(settings, STOP, clock, on_tick=sink.channel.serve)
        return build_flow(source, sink, settings, clock)
    raise AttributeError(name)
