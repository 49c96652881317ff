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
offset at which it begins is stored (HOLD_EPOCHS). So are records that rest on a decision of the
lane which the next run might not make again: that there was an outage (session_logic.hearing).

Heartbeats may have a topic of their own. It has an outbox of its own, within that of the lane, with
an end offset and records on their way. What both topics hold is learned together: a heartbeat is
left out if one as late is in either, or if the session has ended there before it. A broker may have
taken an end and not the heartbeat before it, so that end says nothing of the heartbeat. A run with
other topics begins where nothing is on its way (see topics_apart.py), and holds its first records
as a new lane does.

Summaries may have a topic as well. A summary is left out if one of its session is there. What it
says is what the end says that is in the output topic, and the other way round. A table of active
sessions may have one, too: its rows are sent again, whatever is there, and the newest is right.

What would break it: another writer in the partition (the lease keeps it out, `acknowledge` and
the reconciliation find it); a record that the producer gives up alone, with later ones arriving
(its own timeout is off); a lane that makes the records of a session in another order after a
resume; records between end offset and end that Kafka has deleted (the reconciliation refuses).
"""

from collections import deque
from itertools import chain

from dataflows.formats import OutboxState, StoredOutbox, outbox_state, read_outbox
from dataflows.kafka.already_written import AlreadyWritten
from dataflows.metrics import RECONCILED, observe_acknowledged
from session_logic.codec import decode_output, encode_output
from session_logic.events import Kind, SessionEnd
from session_logic.output import OutputBatch, batch_with


class Outbox:
    """The records of one lane on their way to its partition; `reconcile` comes first.

    In apart are the outboxes of its partitions of other topics, by the records that go there.
    """

    def __init__(
        self,
        end_offset: int,
        waiting: OutputBatch | None = None,
        strays_before: int = 0,
        *,
        topic: str = "",
        apart: dict[Kind, "Outbox"] | None = None,
    ) -> None:
        """Begin with the end that is known, and with the records that may be beyond it or not.

        Records before strays_before may be of somebody else: an operator has accepted them.
        """
        self.topic = topic  # "" for the output topic
        self.apart = apart or {}
        self.end_offset = end_offset
        self.strays_before = strays_before
        self._waiting = waiting or OutputBatch()
        self._next_offset = end_offset
        self._sent: deque[tuple[int, OutputBatch]] = deque()
        self._written: AlreadyWritten | None = None  # until the lane has made all of it again
        self._stored_offset = end_offset

    @classmethod
    def of_state(cls, lane: int, state: tuple[object, ...]) -> "Outbox":
        """Return the outbox of a snapshot; raises SnapshotError if it cannot be read."""
        return cls.of_stored(read_outbox(lane, state))

    @classmethod
    def of_stored(cls, stored: StoredOutbox) -> "Outbox":
        """Return the outbox of what is stored of a lane, or of one of its topics."""
        return cls(
            stored.end_offset,
            OutputBatch(stored.keys, stored.values),
            stored.strays_before,
            topic=stored.topic,
            apart={kind: cls.of_stored(box) for kind, box in stored.apart.items()},
        )

    @property
    def is_sending(self) -> bool:
        """Whether something is enqueued and not acknowledged."""
        return bool(self._sent)

    @property
    def topics_apart(self) -> dict[Kind, str]:
        """The topics of the outboxes apart."""
        return {kind: box.topic for kind, box in self.apart.items()}

    @property
    def waits(self) -> bool:
        """Whether records may be beyond the end that is known."""
        return bool(self._waiting) or any(box.waits for box in self.apart.values())

    def reconcile(
        self,
        end_offset: int,
        written: AlreadyWritten,
        ends_apart: dict[Kind, int] | None = None,
    ) -> OutputBatch:
        """Note what the partition, and those apart, hold from the known offset to the end.

        Returns what must be sent now: what waited and is not there.
        """
        self._written = written or None
        self.begin_at(end_offset)
        for kind, end in (ends_apart or {}).items():
            self.apart[kind].begin_at(end)
        waiting = self.release()
        admitted = self.admit(waiting)
        if "summaries" in self.apart:
            for event in map(decode_output, waiting.values):
                if isinstance(event, SessionEnd):
                    written.note_summary(event)  # it waited as well, or had been acknowledged
        return admitted

    def begin_at(self, end_offset: int) -> None:
        """Note where the partition ends."""
        self._next_offset = self.end_offset = end_offset

    def admit(self, records: OutputBatch) -> OutputBatch:
        """Return the records without those that were found; forget these once all came again."""
        written = self._written
        if written is None:
            return records
        admitted = batch_with(kind for kind in self.apart if kind == "heartbeats")
        admitted.complete_up_to_ms = records.complete_up_to_ms
        apart = "heartbeats" in self.apart
        beats = records.of("heartbeats").values if apart else []
        for value in chain(records.values, beats):
            event = decode_output(value)
            if not written.has(event, apart=apart):
                sent = written.not_contradicted(event)
                admitted.add(sent, value if sent is event else encode_output(sent))
        summaries = _summaries_to_send(records.apart.get("summaries"), written)
        has_summaries = "summaries" in self.apart
        rows = len(records.apart.get("table", ()))
        RECONCILED.inc(records.count() - rows - admitted.count() - len(summaries))
        for end in records.ends_if_open:
            for sent in written.lacking(end):
                written.add(sent)
                admitted.add(sent, encode_output(sent))
            summary = written.lacking_summary(end) if has_summaries else None
            if summary is not None:
                written.note_summary(end)
                summaries.add_plain(end.device_id, summary)
        if has_summaries:
            admitted.apart["summaries"] = summaries
        if "table" in records.apart:
            admitted.apart["table"] = records.apart["table"]  # what comes twice does no harm there
        complete_ms = records.complete_up_to_ms
        if complete_ms is not None and complete_ms >= written.newest_ms:
            self._written = None
        return admitted

    def hold(self, records: OutputBatch) -> None:
        """Keep records that must not be sent yet."""
        self._waiting.extend(records)
        for kind, batch in records.apart.items():
            self.apart[kind].hold(batch)

    def release(self) -> OutputBatch:
        """Return the records that were kept, which must be sent now."""
        waiting, self._waiting = self._waiting, OutputBatch()
        waiting.apart = {kind: box.release() for kind, box in self.apart.items()}
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
        """Return the snapshot as it is stored."""
        return outbox_state(self.stored())

    def stored(self) -> StoredOutbox:
        """Return the snapshot: what a resume must look for, and from which offset on."""
        settled = self._written is None
        apart = {kind: box.stored_part(settled=settled) for kind, box in self.apart.items()}
        return self.stored_part(settled=settled)._replace(apart=apart)

    def stored_part(self, *, settled: bool) -> StoredOutbox:
        """Return the part of one topic."""
        if settled:
            self._stored_offset = self.end_offset  # else a resume must find the same records again
        keys: list[str] = []
        values: list[bytes] = []
        for _, records in tuple(self._sent):  # another worker thread may be taking from it
            keys += records.keys
            values += records.values
        keys += self._waiting.keys
        values += self._waiting.values
        return StoredOutbox(self.topic, self._stored_offset, keys, values, self.strays_before, {})


def _summaries_to_send(summaries: OutputBatch | None, written: AlreadyWritten) -> OutputBatch:
    """Return the summaries that are not there, each as the end that is."""
    admitted = OutputBatch()
    if summaries is not None:
        for key, value in zip(summaries.keys, summaries.values, strict=True):
            missing = written.missing_summary(value)
            if missing is not None:
                admitted.add_plain(key, missing)
    return admitted
