"""The records of a lane on their way to its output partition.

What is guaranteed: every record that the lane sends is in the partition once, and the records of
a session are in order, whatever happens to the process. No transaction is needed for that.

How. A snapshot holds an end offset, and the records that were enqueued and not acknowledged. On
resume the partition is read from that offset to its end (see reconcile.py), and a record that is
found there is not sent again, whether it was in the snapshot or the lane makes it again.

The invariant: what the lane has sent up to a snapshot is what the partition holds before the end
offset, and the records in the snapshot. It holds because the producer is idempotent and in order
and this run alone writes there: the acknowledgement of a record acknowledges all before it.

Records are compared by session and by their place in it: start, heartbeats by sequence, end. A
record is left out if it, or one that comes after it in its session, is there. The later one
counts as well because the crashed run may have skipped a heartbeat that this run would send, and
behind its successor that would be out of order.

A session that was found is one of the lane, or its end is. But input of several partitions may be
read in another order than the crashed run did, and the start of a session be ignored that the
crashed run had announced. So with each start that it ignores the lane gives the end of that
session, which is sent if the session is there without one.

What was found must be known until the lane has made all of it again. It has once a batch says
that it is complete up to the time of the newest record found. Until then the stored end offset
stays where it was, so that after another crash the same records are found again.

A new lane has no end offset in the store. So its first records are held until a snapshot with the
offset at which it begins is stored (HOLD_EPOCHS).

What would break it: another writer in the partition (the lease keeps it out, `acknowledge` and
the reconciliation find it); a record that the producer gives up alone, with later ones arriving
(its own timeout is off); a lane that makes the records of a session in another order after a
resume; records between end offset and end that Kafka has deleted (the reconciliation refuses).
"""

from collections import deque

from msgspec.structs import astuple, replace

from dataflows.formats import OutboxState, outbox_state, read_outbox
from dataflows.metrics import RECONCILED, observe_acknowledged
from session_logic.codec import decode_output, encode_output
from session_logic.events import EndIfOpen, Heartbeat, OutputEvent, SessionActive, SessionEnd
from session_logic.output import OutputBatch

# Device, session and start, because the id of a session may come again after its end.
SessionName = tuple[str, str, int]
LAST = float("inf")


def place_of(event: OutputEvent) -> tuple[SessionName, float]:
    """Return the session of a record, and its place there."""
    place = 0.0 if isinstance(event, SessionActive) else LAST
    if isinstance(event, Heartbeat):
        place = event.sequence
    return (event.device_id, event.session_id, event.started_ms), place


class AlreadyWritten:
    """What a partition holds: how far each session has come, and the time of the newest record."""

    def __init__(self) -> None:
        """Begin with an empty partition."""
        self.places: dict[SessionName, float] = {}
        self._heartbeats_ms: dict[SessionName, int] = {}  # of the newest of each session
        self.newest_ms = -1

    def add(self, event: OutputEvent) -> None:
        """Note a record that was found; those of a session come in order."""
        name, place = place_of(event)
        self.places[name] = place
        if isinstance(event, Heartbeat):
            self._heartbeats_ms[name] = event.time_ms
        self.newest_ms = max(self.newest_ms, event.time_ms)

    def has(self, event: OutputEvent) -> bool:
        """Say whether a record is there, or one that comes after it in its session."""
        name, place = place_of(event)
        return place <= self.places.get(name, -1)

    def is_open(self, end: EndIfOpen) -> bool:
        """Say whether a session is there without its end."""
        return self.places.get(place_of(end)[0], LAST) != LAST

    def not_contradicted(self, event: OutputEvent) -> OutputEvent:
        """Return a record as it may follow what is there: no end is before a heartbeat.

        The crashed run may have sent heartbeats that are due after an end which it had not read.
        """
        heartbeat_ms = self._heartbeats_ms.get(place_of(event)[0], -1)
        if not isinstance(event, SessionEnd) or event.time_ms >= heartbeat_ms:
            return event
        duration_ms = heartbeat_ms - event.started_ms
        if event.reason == "went_silent":
            duration_ms = event.duration_ms  # to the moment at which it was last heard of
        return replace(event, time_ms=heartbeat_ms, duration_ms=duration_ms)


class Outbox:
    """The records of one lane on their way to its partition; `reconcile` comes first."""

    def __init__(
        self, end_offset: int, waiting: OutputBatch | None = None, strays_before: int = 0
    ) -> None:
        """Begin with the end that is known, and with the records that may be beyond it or not.

        Records before strays_before may be of somebody else: an operator has accepted them.
        """
        self.end_offset = end_offset
        self.strays_before = strays_before
        self._waiting = waiting or OutputBatch([], [])
        self._next_offset = end_offset
        self._sent: deque[tuple[int, OutputBatch]] = deque()
        self._written: AlreadyWritten | None = None  # until the lane has made all of it again
        self._stored_offset = end_offset

    @classmethod
    def of_state(cls, lane: int, state: tuple[object, ...]) -> "Outbox":
        """Return the outbox of a snapshot; raises SnapshotError if it cannot be read."""
        end_offset, keys, values, strays_before = read_outbox(lane, state)
        return cls(end_offset, OutputBatch(keys, values), strays_before)

    def reconcile(self, end_offset: int, written: AlreadyWritten) -> OutputBatch:
        """Note what the partition holds from the known offset to its end.

        Returns what must be sent now: what waited and is not there.
        """
        self._next_offset = end_offset
        self._written = written if written.places else None
        self.end_offset = end_offset
        return self.admit(self.release())

    def admit(self, records: OutputBatch) -> OutputBatch:
        """Return the records without those that were found; forget these once all came again."""
        written = self._written
        if written is None:
            return records
        admitted = OutputBatch([], [], records.complete_up_to_ms)
        for value in records.values:
            event = decode_output(value)
            if not written.has(event):
                sent = written.not_contradicted(event)
                admitted.add(sent, value if sent is event else encode_output(sent))
        RECONCILED.inc(len(records) - len(admitted))
        for end in records.ends_if_open:
            if written.is_open(end):
                sent = written.not_contradicted(SessionEnd(*astuple(end)))
                written.add(sent)
                admitted.add(sent, encode_output(sent))
        complete_ms = records.complete_up_to_ms
        if complete_ms is not None and complete_ms >= written.newest_ms:
            self._written = None
        return admitted

    def hold(self, records: OutputBatch) -> None:
        """Keep records that must not be sent yet."""
        self._waiting.extend(records)

    def release(self) -> OutputBatch:
        """Return the records that were kept, which must be sent now."""
        waiting, self._waiting = self._waiting, OutputBatch([], [])
        return waiting

    def send(self, records: OutputBatch) -> int:
        """Note that records are enqueued; return the offset that the last one must get."""
        self._next_offset += len(records)
        self._sent.append((self._next_offset, records))
        return self._next_offset - 1

    def acknowledge(self, expected_offset: int, offset: int) -> bool:
        """Note an acknowledgement; say whether the record got the offset that it had to get.

        If it did not, a resume must find what lies in between, so nothing is noted.
        """
        if offset != expected_offset:
            return False
        while self._sent and self._sent[0][0] <= offset + 1:
            observe_acknowledged(self._sent.popleft()[1])
        self.end_offset = offset + 1
        return True

    def state(self) -> OutboxState:
        """Return the snapshot: what a resume must look for, and from which offset on."""
        if self._written is None:
            self._stored_offset = self.end_offset  # else a resume must find the same records again
        keys = list(self._waiting.keys)
        values = list(self._waiting.values)
        for _, records in tuple(self._sent):  # another worker thread may be taking from it
            keys += records.keys
            values += records.values
        return outbox_state(self._stored_offset, keys, values, self.strays_before)
