"""The peer on Kafka Streams in the place of the flow."""

import subprocess
from collections.abc import Iterable, Iterator

from confluent_kafka import Message
from msgspec import Struct

from benchmarks.flow import Flow
from session_logic.events import OutputEvent
from tests.support.cluster import Cluster
from tests.support.kafka_streams import EXACTLY_ONCE, start
from tests.support.topic import messages, output_of


class Tuning(Struct):
    """How the peer is run: settings of Kafka Streams as NAME=VALUE, and its heap."""

    settings: list[str]
    heap_mb: int


class Peer(Flow):
    """One process of the peer."""

    def __init__(
        self,
        tuning: Tuning,
        cluster: Cluster,
        processes: int,
        changes: dict[str, str],
        *,
        http: bool,
    ) -> None:
        """Let `start` start it; it is one process and has no HTTP server."""
        assert processes == 1
        assert not http
        super().__init__(cluster, processes, changes)
        self._tuning = tuning

    def _start(self, number: int) -> subprocess.Popen[str]:
        tuning = self._tuning
        return start(self.cluster, *tuning.settings, heap_mb=tuning.heap_mb, **self._changes)

    def records(self) -> Iterator[tuple[int, OutputEvent]]:
        """Yield every record with the moment from which it may be read; see `committed`."""
        if EXACTLY_ONCE not in self._tuning.settings:
            return super().records()
        records = committed(messages(self.cluster.address, self.cluster.output))
        return ((time_ms, output_of(message)) for time_ms, message in records)


def committed(records: Iterable[Message]) -> Iterator[tuple[int, Message]]:
    """Yield records with the moment by which their transaction was committed, in ms.

    The marker of a commit takes an offset. The record behind it tells when that was, at the latest;
    for the last transaction of a partition, its own last record does. This holds where one producer
    writes to a partition: here a task's, because the devices of one partition of the input are in
    one partition of the output.
    """
    waiting: list[Message] = []
    for record in records:
        if waiting and not _follows(waiting[-1], record):
            same = record.partition() == waiting[-1].partition()
            time_ms = (record if same else waiting[-1]).timestamp()[1]
            yield from ((time_ms, one) for one in waiting)
            waiting.clear()
        waiting.append(record)
    yield from ((waiting[-1].timestamp()[1], one) for one in waiting)


def _follows(before: Message, record: Message) -> bool:
    """Say whether there is nothing between two records."""
    return (record.partition(), record.offset()) == (before.partition(), before.offset() + 1)
