"""What a lane has sent: which records are acknowledged, which are not, which were there before.

A snapshot holds the end offset that the acknowledgements vouch for, and the records enqueued but
not acknowledged. On resume the partition is read from that offset to its end: records found there
are not sent a second time, whether they were in the snapshot or are produced again.
"""

from collections import deque

from session_logic.codec import decode_output
from session_logic.errors import SnapshotError
from session_logic.events import Heartbeat, OutputEvent, Records

SINK_VERSION = 2
# (version, offset after the last acknowledged record, keys and values of those not acknowledged)
OutboxState = tuple[int, int, list[str], list[bytes]]
Name = tuple[str, str, str, int]


def name_of(event: OutputEvent) -> Name:
    """Return the name of a record: everything else about it follows from the input."""
    sequence = event.sequence if isinstance(event, Heartbeat) else 0
    return event.device_id, event.session_id, type(event).__name__, sequence


class Outbox:
    """The records of one lane on their way to its partition; `reconcile` comes first."""

    def __init__(self, end_offset: int, waiting: Records | None = None) -> None:
        """Begin with what is known to be in the partition, and what may be there or not."""
        self.end_offset = end_offset
        self._waiting = waiting or Records([], [])
        self._next_offset = end_offset
        self._sent: deque[tuple[int, Records]] = deque()
        self._written: set[Name] = set()
        self._written_ms = -1
        self._stored_offset = end_offset
        self.dropped = 0

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
            return cls(int(end_offset), Records(list(keys), list(values)))  # type: ignore[call-overload]
        except (TypeError, ValueError) as error:
            msg = (
                f"recovery store, sink of lane {lane} cannot be read ({error}); put back a whole "
                "copy of the recovery directory"
            )
            raise SnapshotError(msg) from None

    def reconcile(self, end_offset: int, written: dict[Name, int]) -> Records:
        """Take in what the partition holds from the known offset to its end, by name and time.

        Returns what is to be sent now: what waited and is not there.
        """
        self._next_offset = end_offset
        self._written = set(written)
        self._written_ms = max(written.values(), default=-1)
        self.end_offset = end_offset
        return self.admit(self.release())

    def admit(self, records: Records) -> Records:
        """Return the records without those that are there already; settled ones are forgotten."""
        if not self._written:
            return records
        admitted = Records([], [], records.settled_ms)
        for key, value in zip(records.keys, records.values, strict=True):
            name = name_of(decode_output(value))
            if name in self._written:
                self._written.remove(name)
                self.dropped += 1
            else:
                admitted.keys.append(key)
                admitted.values.append(value)
        if records.settled_ms >= self._written_ms:
            self._written.clear()
        return admitted

    def hold(self, records: Records) -> None:
        """Keep records that are not to be sent yet."""
        self._waiting.keys += records.keys
        self._waiting.values += records.values

    def release(self) -> Records:
        """Return what was kept; it is to be sent now."""
        waiting, self._waiting = self._waiting, Records([], [])
        return waiting

    def send(self, records: Records) -> int:
        """Note that records are enqueued; return the offset that the last one must get."""
        self._next_offset += len(records)
        self._sent.append((self._next_offset, records))
        return self._next_offset - 1

    def acknowledge(self, expected_offset: int, offset: int) -> bool:
        """Note an acknowledgement; say whether the record got the offset that it had to get."""
        while self._sent and self._sent[0][0] <= expected_offset + 1:
            self._sent.popleft()
        self.end_offset = offset + 1
        return offset == expected_offset

    def state(self) -> OutboxState:
        """Return the snapshot: what a resume must look for, and from where on.

        While what was found at the start is not settled, that is still to be found again.
        """
        if not self._written:
            self._stored_offset = self.end_offset
        keys = list(self._waiting.keys)
        values = list(self._waiting.values)
        for _, records in self._sent:
            keys += records.keys
            values += records.values
        return SINK_VERSION, self._stored_offset, keys, values
