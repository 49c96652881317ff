"""The dataflow of a process, connected to Kafka and to what its store knows of Kafka."""

from pathlib import Path

from bytewax.dataflow import Dataflow
from msgspec import Struct

from dataflows.avro.topics import gates, open_schemas, readers
from dataflows.failure import noting_parts
from dataflows.kafka.connections import BrokerConnections
from dataflows.kafka.letter_offsets import LetterOffsets
from dataflows.kafka.metadata import describe
from dataflows.kafka.permit import WritePermit
from dataflows.kafka.sink import KafkaSink
from dataflows.kafka.source import KafkaSource
from dataflows.run_state import RunState
from dataflows.sessions import build_flow
from dataflows.settings import Settings
from heartwheel.cluster import Cluster
from heartwheel.open_files import allow_open_files
from heartwheel.store.sinks import dead_letter_ends, lanes_begun
from heartwheel.store.sources import source_states
from session_logic.errors import ConfigError


class Connected(Struct, frozen=True):
    """A dataflow with its source and sink."""

    flow: Dataflow
    source: KafkaSource
    sink: KafkaSink


def connect(
    settings: Settings,
    cluster: Cluster,
    folder: Path,
    state: RunState,
    permit: WritePermit | None,
) -> Connected:
    """Return the dataflow of a process with the store in a directory; it has all its topics.

    Raises HeartwheelError if a topic is missing or is not the one that the store knows, or if the
    system does not allow as many open files as that takes.
    """
    if settings.route == "partition" and len(cluster.addresses) > 1:
        msg = (
            "HEARTWHEEL_ROUTE=partition is for runs of one process, and --addresses (or its "
            f"variable) has {len(cluster.addresses)}: leave it out, and give each process a "
            "HEARTWHEEL_SHARD and a store of its own"
        )
        raise ConfigError(msg)
    allow_open_files(settings, cluster, folder, brokers=1)
    state.in_cluster = len(cluster.addresses) > 1
    state.has_lane = lambda lane: cluster.owner(lane) == cluster.number
    sink = KafkaSink(settings, state, permit)
    # The producer is served at every poll, also while nothing is written: the metrics tell when a
    # record was acknowledged, and a run ends that Kafka does not let write.
    source = KafkaSource(settings, state, on_tick=sink.tick)
    schemas = open_schemas(settings, state.stop)
    source.gates = gates(settings, schemas)
    source.share(cluster.number, max(1, len(cluster.addresses)))
    brokers = describe(source.consumer.open(), settings).brokers
    allow_open_files(settings, cluster, folder, len(brokers))
    if permit is not None:
        ports = {broker.port for broker in brokers.values()} | _ports(settings.bootstrap_servers)
        permit.on_look = BrokerConnections(lambda: ports | source.topics.now.ports).look
    source.check(source_states(folder))
    sink.check(begun=lanes_begun(folder))
    letters = LetterOffsets(settings, dead_letter_ends(folder))
    state.waits_for_kafka = lambda: sink.waits_for_kafka() or letters.waiting
    state.holds_output = sink.holds
    state.stalled_output = sink.producer.stalled.words
    if schemas is not None:
        state.awaited_schema = schemas.wait
    state.rejected_earlier = lambda: sink.rejected_earlier(letters.find())
    state.published_ms = sink.published_ms
    state.silent_ends = sink.silent_ends
    source.build_part = noting_parts(state, source.build_part)  # type: ignore[method-assign]
    sink.build_part = noting_parts(state, sink.build_part)  # type: ignore[method-assign]
    reads = readers(settings, schemas)
    return Connected(build_flow(source, sink, settings, state, reads), source, sink)


def _ports(servers: str) -> set[int]:
    """Return the ports in a list of host:port; a broker that is away now may be in no other."""
    ports = (server.rpartition(":")[2] for server in servers.split(","))
    return {int(port) for port in ports if port.strip().isdecimal()}
