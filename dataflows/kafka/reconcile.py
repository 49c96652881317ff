"""What a crashed run left in the output topics, found on resume and not sent a second time.

A run that is killed leaves records that its last snapshot does not know to be written. The next
run produces the same records again: lanes are deterministic. So before a resumed lane sends
anything, its partition is read from the offset that the snapshot vouches for to its end, and
`Outbox` leaves out what is found there.

This rests on three things, and each is checked:

- Nobody else writes there. The lease keeps other runs out; a record that is not an event of this
  partition's devices is a ReconcileError, until an operator has accepted it (strays_before).
- The snapshot's offset is still in the partition: not beyond its end (the topic was cut or
  created again), not before its beginning (the records have expired).
- The read reaches the true end, so what the crashed run still had under way has arrived or never
  will. Kafka tells the end before the read, and no earlier one counts: a broker that takes over
  meanwhile does not know it at first. There is no timeout after which a part of it would do.

All resumed lanes of a process are read together, once, by the first worker thread that comes;
the others wait for it.
"""

import time
from collections.abc import Callable, Iterable
from threading import Lock
from typing import cast

import msgspec
from confluent_kafka import Consumer, KafkaException, Message

from dataflows.kafka.already_written import AlreadyWritten
from dataflows.kafka.client import MakeConsumer, consumer_options, make_consumer
from dataflows.kafka.gaps import gap_of, output_fault
from dataflows.kafka.metadata import partition_counts
from dataflows.kafka.outbox import Outbox
from dataflows.kafka.patience import bounds
from dataflows.kafka.reader import END_OPTIONS, TIMEOUT_S, ReadError, ReadToEnd
from dataflows.logs import log
from dataflows.settings import Settings
from session_logic.codec import decode_output
from session_logic.errors import HeartwheelError
from session_logic.events import Kind, OutputEvent, SessionName
from session_logic.keys import lane_may_have
from session_logic.output import OutputBatch
from session_logic.summary import end_of


class ReconcileError(HeartwheelError):
    """An output partition is not as this store left it: see the message for what to do."""


def output_event(
    message: Message, settings: Settings, kind: Kind | None = None
) -> OutputEvent | None:
    """Return what a record is, of a topic apart or not; None if not one of this partition's."""
    decode = end_of if kind == "summaries" else decode_output
    try:
        event = decode(message.value() or b"")
    except (msgspec.MsgspecError, ValueError):
        return None
    lane = cast("int", message.partition())
    fits = lane_may_have(event.device_id, lane, settings.lanes, settings.route)
    return event if fits else None


def stray_fault(topic: str, lane: int, offset: int) -> str:
    """Return the line that refuses a start because of somebody else's record."""
    return (
        f"{topic}/{lane}: the record at offset {offset} is not Heartwheel's: nothing else may "
        "write to the output topic; stop what does, then `heartwheel store skip` passes over it "
        "and keeps the sessions"
    )


class OutputReader:
    """Reads output partitions from what is stored to what is there."""

    def __init__(self, settings: Settings, make_consumer: MakeConsumer = make_consumer) -> None:
        """Connect on first use."""
        self._settings = settings
        self._make_consumer = make_consumer
        self._consumer: Consumer | None = None
        self._reading = Lock()
        self.waiting = False  # for Kafka

    def _open(self) -> Consumer:
        if self._consumer is None:
            required = {
                **END_OPTIONS,
                "group.id": "heartwheel",
                "enable.auto.commit": "false",
                "isolation.level": "read_uncommitted",
                "auto.offset.reset": "error",
                "fetch.message.max.bytes": "8000000",
            }
            self._consumer = self._make_consumer(
                consumer_options(self._settings, required, tuned=False)
            )
        return self._consumer

    def partition_counts(self, *more: str) -> dict[str, int]:
        """Return how many partitions each topic has, of the settings and of more.

        A missing one is left out. Raises ConfigError if no broker answers.
        """
        return partition_counts(self._open(), self._settings, more)

    def bounds(self, topic: str, partition: int, timeout_s: float = TIMEOUT_S) -> tuple[int, int]:
        """Return the first offset of a partition and the one after its last record.

        Raises ReconcileError if the broker does not answer.
        """
        self.waiting = True
        try:
            return bounds(self._open(), topic, partition, timeout_s)
        except KafkaException as error:
            msg = f"the end of {topic}/{partition} cannot be read: {error.args[0].str()}"
            raise ReconcileError(msg) from None
        finally:
            self.waiting = False

    def read(
        self, topic: str, starts: dict[int, int], take: Callable[[Message], None]
    ) -> dict[int, int]:
        """Give each record from the starts on to take; return the ends of the partitions.

        Raises ReconcileError if a partition no longer has its start, ReadError if it cannot be
        read.
        """
        with self._reading:  # worker threads share the consumer
            began_s = time.monotonic()
            bounds = {
                partition: (start, self._end(topic, partition, start))
                for partition, start in starts.items()
            }
            records = ReadToEnd(self._open(), topic, bounds)
            count = 0
            self.waiting = True
            try:
                for message in records:
                    take(message)
                    count += 1
            except ReadError as error:
                if topic in self._settings.lane_topics:  # the store has offsets of it
                    raise ReadError(f"{error}{error.hint}") from None
                raise
            self.waiting = False
            log.info(
                "read records after the last snapshot",
                topic=topic,
                records=count,
                seconds=round(time.monotonic() - began_s, 2),
            )
            return records.ends

    def newest_ms(self, topic: str, partitions: Iterable[int]) -> int:
        """Return the latest timestamp of the last records of some partitions, or 0.

        Raises ReconcileError or ReadError if Kafka does not tell.
        """
        bounds = {partition: self.bounds(topic, partition) for partition in partitions}
        last = {n: (high - 1, high) for n, (low, high) in bounds.items() if low < high}
        if not last:
            return 0
        with self._reading:
            self.waiting = True
            times_ms = [record.timestamp()[1] for record in ReadToEnd(self._open(), topic, last)]
            self.waiting = False
        return max(times_ms, default=0)

    def _end(self, topic: str, partition: int, start: int) -> int:
        """Return where a partition ends; raises ReconcileError if it does not have the start."""
        bounds = self.bounds(topic, partition)
        gap = gap_of(topic, partition, start, bounds)
        if gap is not None:
            raise ReconcileError(output_fault(gap))
        return bounds[1]


class Reconciliation:
    """The resumed lanes of a process, until they know what is in their partitions already."""

    def __init__(self, settings: Settings, reader: OutputReader) -> None:
        """Read the output topic, and those apart."""
        self._settings = settings
        self._reader = reader
        self._resumed: dict[int, tuple[Outbox, Callable[[OutputBatch], None]]] = {}
        self.silent_ends: dict[int, dict[SessionName, int]] = {}  # found, by lane
        self._reconciling = Lock()

    def add(self, lane: int, outbox: Outbox, send: Callable[[OutputBatch], None]) -> None:
        """Reconcile the outbox of a lane next time; send is given what it still has to send."""
        self._resumed[lane] = outbox, send

    def reconcile(self) -> None:
        """Let the resumed lanes learn, all at once, what is in their partitions already.

        Raises ReconcileError or ReadError if they cannot.
        """
        if self._resumed:
            with self._reconciling:  # other worker threads wait until their lanes have learned, too
                resumed = dict(self._resumed)
                self._reconcile(resumed)
                for lane in resumed:
                    del self._resumed[lane]

    def _reconcile(self, resumed: dict[int, tuple[Outbox, Callable[[OutputBatch], None]]]) -> None:
        written = {lane: AlreadyWritten() for lane in resumed}
        boxes = {lane: outbox for lane, (outbox, _) in resumed.items()}
        ends = self._read(self._settings.output_topic, boxes, written)
        ends_apart = {}
        for kind, topic in self._settings.topics_apart.items():
            apart = {lane: outbox.apart[kind] for lane, outbox in boxes.items()}
            ends_apart[kind] = self._read(topic, apart, written, kind)
        for lane, (outbox, send) in resumed.items():
            ends_of_lane = {kind: found[lane] for kind, found in ends_apart.items()}
            send(outbox.reconcile(ends[lane], written[lane], ends_of_lane))
            self.silent_ends[lane] = written[lane].silent_ends()

    def _read(
        self,
        topic: str,
        boxes: dict[int, Outbox],
        written: dict[int, AlreadyWritten],
        kind: Kind | None = None,
    ) -> dict[int, int]:
        """Note what a topic holds beyond what is stored; return the ends of its partitions."""

        def take(message: Message) -> None:
            lane, offset = cast("int", message.partition()), cast("int", message.offset())
            if kind == "table":
                return  # its rows are sent again, whatever is there
            event = output_event(message, self._settings, kind)
            if event is not None:
                written[lane].add(event, apart=kind is not None)
            elif offset >= boxes[lane].strays_before:
                raise ReconcileError(stray_fault(topic, lane, offset))

        starts = {
            lane: box.end_offset if box.end_offset >= 0 else self._reader.bounds(topic, lane)[1]
            for lane, box in boxes.items()
        }
        return self._reader.read(topic, starts, take)
