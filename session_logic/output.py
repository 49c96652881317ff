"""The output records of a lane on their way to Kafka, with what their latency is measured from."""

from collections.abc import Iterable

from msgspec import Struct

from session_logic.codec import encode_output
from session_logic.events import (
    ActiveSession,
    EndIfOpen,
    Heartbeat,
    Kind,
    OutputEvent,
    SessionActive,
    SessionEnd,
)
from session_logic.summary import summary_of

# What a row of the table holds whose device has no active session; Kafka is given no value then.
NO_SESSION = b""


class OutputBatch(Struct, gc=False):
    """Output records of one lane in order, as parallel lists: Kafka keys and JSON values.

    Lists and not a record each: a heartbeat is then two appends, and nothing else is made.

    complete_up_to_ms: with this batch, everything that was due by then is out, and all that
    follows from the input there was; None while the lane is behind.

    input_ms and due_ms tell from when latency counts, as (moment, how many records): the
    timestamps of the input that caused records, and the moments at which heartbeats and timeouts
    were due.

    ends_if_open are no records, but for sessions that are open in the output.

    apart has a batch for each kind of records that goes to a topic of its own. Heartbeats that are
    in there are not among the others. Summaries are there only: with each end comes one. So are the
    rows of the table: one with each start and each end, and one with a start that is ignored, of
    which a crashed run may have written a row.

    max_session_ms tells in these rows when a session times out.

    rests_on_state says that what is in this batch and the next ones follows from more than the
    input: none of it may be sent before the state that goes with it is stored.
    """

    keys: list[str] = []
    values: list[bytes] = []
    complete_up_to_ms: int | None = None
    input_ms: list[tuple[int, int]] = []
    due_ms: list[tuple[int, int]] = []
    ends_if_open: list[EndIfOpen] = []
    apart: dict[Kind, "OutputBatch"] = {}
    max_session_ms: int = 0
    rests_on_state: bool = False

    def __len__(self) -> int:
        """Count the records, those apart left out."""
        return len(self.keys)

    def __bool__(self) -> bool:
        """Say whether there is anything for the sink."""
        if self.rests_on_state:
            return True
        return bool(self.keys or self.ends_if_open or (self.apart and any(self.apart.values())))

    def count(self) -> int:
        """Count all records."""
        if not self.apart:
            return len(self.keys)
        return len(self.keys) + sum(map(len, self.apart.values()))

    def of(self, kind: Kind) -> "OutputBatch":
        """Return the batch that has the records of a kind: this one, if they are not apart."""
        return self.apart.get(kind, self)

    def add(self, event: OutputEvent, value: bytes) -> None:
        """Add an event with its value."""
        if isinstance(event, Heartbeat) and "heartbeats" in self.apart:
            self.apart["heartbeats"].add(event, value)
            return
        if "table" in self.apart and not isinstance(event, Heartbeat):
            active = event.active if isinstance(event, EndIfOpen) else event
            row = row_of(active, self.max_session_ms)
            self.apart["table"].add_plain(event.device_id, row)
        if isinstance(event, SessionActive):
            moments = self.input_ms
        elif isinstance(event, EndIfOpen):
            self.ends_if_open.append(event)
            return
        else:
            by_time = isinstance(event, Heartbeat) or event.reason in {"timed_out", "went_silent"}
            moments = self.due_ms if by_time else self.input_ms
            if "summaries" in self.apart and not isinstance(event, Heartbeat):
                self.apart["summaries"].add_plain(event.device_id, summary_of(event))
        self.keys.append(event.device_id)
        self.values.append(value)
        moments.append((event.time_ms, 1))

    def add_plain(self, device_id: str, value: bytes) -> None:
        """Add a record that comes with another one, whose latency is measured."""
        self.keys.append(device_id)
        self.values.append(value)

    def extend(self, records: "OutputBatch") -> None:
        """Add other records after these, those apart left out."""
        self.keys += records.keys
        self.values += records.values
        self.input_ms += records.input_ms
        self.due_ms += records.due_ms


def row_of(latest: SessionActive | SessionEnd | None, max_session_ms: int) -> bytes:
    """Return what the table has of a device after a start or an end, or without any."""
    if not isinstance(latest, SessionActive):
        return NO_SESSION
    return encode_output(
        ActiveSession(
            latest.session_id,
            latest.platform,
            latest.started_ms,
            latest.started_ms + max_session_ms,
            latest.context,
        )
    )


def batch_with(apart: Iterable[Kind], max_session_ms: int = 0) -> OutputBatch:
    """Return an empty batch that keeps these kinds of records apart."""
    batches: dict[Kind, OutputBatch] = {kind: OutputBatch() for kind in apart}
    return OutputBatch(apart=batches, max_session_ms=max_session_ms)
