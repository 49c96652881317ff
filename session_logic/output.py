"""The output records of a lane on their way to Kafka, with what their latency is measured from."""

from msgspec import Struct

from session_logic.events import EndIfOpen, Heartbeat, OutputEvent, SessionActive


class OutputBatch(Struct, gc=False):
    """Output records of one lane in order, as parallel lists: Kafka keys and JSON values.

    Lists and not a record each: a heartbeat is then two appends, and nothing else is made.

    complete_up_to_ms: with this batch, everything that was due by then is out, and all that
    follows from the input there was; None while the lane is behind.

    input_ms and due_ms tell from when latency counts, as (moment, how many records): the
    timestamps of the input that caused records, and the moments at which heartbeats and timeouts
    were due.

    ends_if_open are no records, but for sessions that are open in the output.
    """

    keys: list[str] = []
    values: list[bytes] = []
    complete_up_to_ms: int | None = None
    input_ms: list[tuple[int, int]] = []
    due_ms: list[tuple[int, int]] = []
    ends_if_open: list[EndIfOpen] = []

    def __len__(self) -> int:
        """Count the records."""
        return len(self.keys)

    def __bool__(self) -> bool:
        """Say whether there is anything for the sink."""
        return bool(self.keys or self.ends_if_open)

    def add(self, event: OutputEvent, value: bytes) -> None:
        """Add an event with its value."""
        if isinstance(event, SessionActive):
            moments = self.input_ms
        elif isinstance(event, EndIfOpen):
            self.ends_if_open.append(event)
            return
        else:
            by_time = isinstance(event, Heartbeat) or event.reason in {"timed_out", "went_silent"}
            moments = self.due_ms if by_time else self.input_ms
        self.keys.append(event.device_id)
        self.values.append(value)
        moments.append((event.time_ms, 1))

    def extend(self, records: "OutputBatch") -> None:
        """Add other records after these."""
        self.keys += records.keys
        self.values += records.values
        self.input_ms += records.input_ms
        self.due_ms += records.due_ms
