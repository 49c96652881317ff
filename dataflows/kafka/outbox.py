"""What a lane has sent: which records are acknowledged, which are not, which were there before.

A snapshot holds the end offset that the acknowledgements vouch for, and the records enqueued but
not acknowledged. On resume the partition is read from that offset to its end: records found there
are not sent a second time, whether they were in the snapshot or are produced again. Nor is what
comes before them in their session: the crashed run has passed it over, and it would be out of
order now.
"""

from collections import deque

from dataflows.metrics import RECONCILED, observe_acknowledged
from session_logic.codec import decode_output
from session_logic.errors import SnapshotError
from session_logic.events import Heartbeat, OutputEvent, SessionActive
from session_logic.output import OutputBatch

SINK_VERSION = 2
# (version, offset after the last acknowledged record, keys and values of those not acknowledged)
OutboxState = tuple[int, int, list[str], list[bytes]]
# Device, session and start: a session's id alone may come back after its end.
Name = tuple[str, str, int]
LAST = float("inf")


def place_of(event: OutputEvent) -> tuple[Name, float]:
    """Return the session of a record, and its place there."""
    place = 0.0 if isinstance(event, SessionActive) else LAST
    if isinstance(event, Heartbeat):
        place = event.sequence
    return (event.device_id, event.session_id, event.started_ms), place


class AlreadyWritten:
    """What a partition holds: how far each session has come, and the time of the newest record."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.places: dict[Name, float] = {}
        self.newest_ms = -1

    def add(self, event: OutputEvent) -> None:
        """Take a record in; those of a session come in order."""
        name, place = place_of(event)
        self.places[name] = place
        self.newest_ms = max(self.newest_ms, event.time_ms)

    def has(self, event: OutputEvent) -> bool:
        """Say whether a record is there, or one that comes after it in its session."""
        name, place = place_of(event)
        return place <= self.places.get(name, -1)


class Outbox:
    """The records of one lane on their way to its partition; `reconcile` comes first."""

    def __init__(self, end_offset: int, waiting: OutputBatch | None = None) -> None:
        """Begin with what is known to be in the partition, and what may be there or not."""
        self.end_offset = end_offset
        self._waiting = waiting or OutputBatch([], [])
        self._next_offset = end_offset
        self._sent: deque[tuple[int, OutputBatch]] = deque()
        self._written: AlreadyWritten | None = None  # until it is settled
        self._stored_offset = end_offset

    @classmethod
    def of_state(cls, lane: int, state: tuple[object, ...]) -> "Outbox":
        """Return the outbox of a snapshot; raises SnapshotError if it cannot be read."""
        try:
            version, end_offset, *rest = state
            if not isinstance(version, int) or version > SINK_VERSION:
                msg = (
                    f"recovery store, sink of lane {lane}: version {version} is newer than this "
                    f"program knows ({SINK_VERSION}); run the version of Heartwheel that wrote "
                    "it, or a later one"
                )
                raise SnapshotError(msg)
            keys, values = rest if version > 1 else ([], [])
            return cls(int(end_offset), OutputBatch(list(keys), list(values)))  # type: ignore[call-overload]
        except (TypeError, ValueError) as error:
            msg = (
                f"recovery store, sink of lane {lane} cannot be read ({error}); put back a whole "
                "copy of the recovery directory"
            )
            raise SnapshotError(msg) from None

    def reconcile(self, end_offset: int, written: AlreadyWritten) -> OutputBatch:
        """Take in what the partition holds from the known offset to its end.

        Returns what is to be sent now: what waited and is not there.
        """
        self._next_offset = end_offset
        self._written = written if written.places else None
        self.end_offset = end_offset
        return self.admit(self.release())

    def admit(self, records: OutputBatch) -> OutputBatch:
        """Return the records without those that are there already; settled ones are forgotten."""
        written = self._written
        if written is None:
            return records
        admitted = OutputBatch([], [], records.complete_up_to_ms)
        for value in records.values:
            event = decode_output(value)
            if not written.has(event):
                admitted.add(event, value)
        RECONCILED.inc(len(records) - len(admitted))
        complete_ms = records.complete_up_to_ms
        if complete_ms is not None and complete_ms >= written.newest_ms:
            self._written = None
        return admitted

    def hold(self, records: OutputBatch) -> None:
        """Keep records that are not to be sent yet."""
        self._waiting.extend(records)

    def release(self) -> OutputBatch:
        """Return what was kept; it is to be sent now."""
        waiting, self._waiting = self._waiting, OutputBatch([], [])
        return waiting

    def send(self, records: OutputBatch) -> int:
        """Note that records are enqueued; return the offset that the last one must get."""
        self._next_offset += len(records)
        self._sent.append((self._next_offset, records))
        return self._next_offset - 1

    def acknowledge(self, expected_offset: int, offset: int) -> bool:
        """Note an acknowledgement; say whether the record got the offset that it had to get."""
        while self._sent and self._sent[0][0] <= expected_offset + 1:
            observe_acknowledged(self._sent.popleft()[1])
        self.end_offset = offset + 1
        return offset == expected_offset

    def state(self) -> OutboxState:
        """Return the snapshot: what a resume must look for, and from where on.

        While what was found at the start is not settled, that is still to be found again.
        """
        if self._written is None:
            self._stored_offset = self.end_offset
        keys = list(self._waiting.keys)
        values = list(self._waiting.values)
        for _, records in tuple(self._sent):  # another worker thread may be taking from it
            keys += records.keys
            values += records.values
        return SINK_VERSION, self._stored_offset, keys, values
