"""The dataflow: device sessions and heartbeats, from Kafka to Kafka."""

import signal
from threading import Thread
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow, Stream
from bytewax.inputs import Source
from bytewax.outputs import Sink

from dataflows.decode import Decode
from dataflows.kafka.sink import KafkaSink
from dataflows.kafka.source import KafkaSource
from dataflows.lanes import by_row, is_records, lane_builder
from dataflows.logs import log, start_logs
from dataflows.messages import DEAD_LETTER_KEY, PartitionBatch
from dataflows.metrics import start_metrics
from dataflows.run_state import RunState
from dataflows.settings import Settings
from dataflows.settings_sources import load_settings
from dataflows.store import Inbox, RestoredSource, StoreSink

# Bytewax has no broadcast, but it deals items out at random: of this many copies each of up to 32
# workers gets one, but for one run in 10^12.
STOP_COPIES = 1_000


def build_flow(
    source: Source[PartitionBatch],
    sink: Sink[Any],
    settings: Settings,
    run: RunState | None = None,
) -> Dataflow:
    """Return the dataflow between a source of polls and a sink of records; for one run only.

    Step ids are names in the recovery store: they must stay.
    """
    run = run or RunState()
    inbox: Inbox = Inbox()
    flow = Dataflow("heartwheel")
    polls = op.input("source", flow, source)
    broadcast_stop(polls, run)
    restored = op.input("restored", flow, RestoredSource(inbox, run))

    decode = Decode(settings.lanes, settings.max_clock_skew_ms, run, settings.max_record_bytes)
    decoded = op.branch(
        "decoded",
        op.flat_map_batch("decode", polls, decode),
        lambda item: item[0] != DEAD_LETTER_KEY,
    )
    facts, dead_letters = decoded.trues, decoded.falses

    sessions = op.stateful_batch(
        "sessions",
        op.merge("lanes", facts, restored),
        lane_builder(settings, run),  # type: ignore[arg-type]  # branch does not narrow its streams
    )
    emitted = op.branch("emitted", sessions, is_records)
    op.output("sink", op.merge("outputs", emitted.trues, dead_letters), sink)
    op.output("store", op.map("rows", emitted.falses, by_row), StoreSink(inbox))
    return flow


def broadcast_stop(polls: Stream[PartitionBatch], run: RunState) -> None:
    """Stop the run in every process once one process of the cluster is asked to stop."""
    stops = op.flat_map("stop", polls, lambda poll: [None] * STOP_COPIES if poll.stop else [])
    op.inspect("stopped", op.redistribute("stops", stops), lambda _step_id, _stop: run.stop.set())


def _stop_at_ctrl_c(run: RunState) -> None:
    """Let the first SIGINT stop the run as its own command does; a second one ends it at once."""

    def stop(_number: int, _frame: object) -> None:
        log.info("stopping", signal="SIGINT")
        run.stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, stop)


def __getattr__(name: str) -> Dataflow:
    """Make `flow` from the environment when `python -m bytewax.run` asks for it."""
    if name == "flow":
        settings = load_settings()
        start_logs(settings)
        run = RunState()
        _stop_at_ctrl_c(run)
        start_metrics(run)
        sink = KafkaSink(settings, run)
        run.rejected_earlier = sink.rejected_earlier
        run.published_ms = sink.published_ms
        source = KafkaSource(settings, run, on_tick=sink.producer.tick)
        Thread(target=source.topics.watch, args=(run.stop,), daemon=True).start()
        return build_flow(source, sink, settings, run)
    raise AttributeError(name)
