"""The values that go in and come out, and their JSON shapes; no behaviour lives here."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Id = Annotated[str, Meta(min_length=1, max_length=128)]
Milliseconds = Annotated[int, Meta(ge=0)]
EndReason = Literal["ended", "replaced", "timed_out"]


class GameStart(Struct, frozen=True, gc=False, tag_field="type", tag="GameStart"):
    """A device says that a session has begun."""

    device_id: Id
    session_id: Id


class GameEnd(Struct, frozen=True, gc=False, tag_field="type", tag="GameEnd"):
    """A device says that a session is over."""

    device_id: Id
    session_id: Id


InputEvent = GameStart | GameEnd


class SessionActive(Struct, frozen=True, gc=False, tag_field="type", tag="SessionActive"):
    """A session has become the active one of its device; time_ms is its start."""

    device_id: Id
    session_id: Id
    platform: str
    started_ms: Milliseconds
    time_ms: Milliseconds


class Heartbeat(Struct, frozen=True, gc=False, tag_field="type", tag="Heartbeat"):
    """A session is still active; time_ms = started_ms + sequence x the heartbeat interval."""

    device_id: Id
    session_id: Id
    platform: str
    started_ms: Milliseconds
    time_ms: Milliseconds
    sequence: Annotated[int, Meta(ge=1)]


class SessionEnd(Struct, frozen=True, gc=False, tag_field="type", tag="SessionEnd"):
    """A session is over: nothing about it follows."""

    device_id: Id
    session_id: Id
    platform: str
    started_ms: Milliseconds
    time_ms: Milliseconds
    reason: EndReason
    duration_ms: Milliseconds


OutputEvent = SessionActive | Heartbeat | SessionEnd


class Fact(Struct, frozen=True, gc=False, array_like=True):
    """An accepted input event with what Kafka adds to it: platform (of its topic) and time."""

    is_start: bool
    device_id: str
    session_id: str
    platform: str
    time_ms: int


class Watermark(Struct, frozen=True, gc=False, array_like=True):
    """How far time has come for a lane: what was due at or before upto_ms has been sent.

    With newest_only (while an outage is made up for), a session that ends now gets only the
    newest of the heartbeats that it still owed.
    """

    upto_ms: int
    newest_only: bool = False


class JournalEntry(Struct, frozen=True, gc=False, array_like=True):
    """Facts of one lane that were applied together, and how far time had come then."""

    fired: Watermark
    facts: list[Fact]


class Rejected(Struct, frozen=True, gc=False):
    """Input that is no event; reason is a short name to count by, detail is for a person."""

    reason: str
    detail: str


class OutputBatch(Struct, gc=False):
    """Output records of one lane in order, as parallel lists: Kafka keys and JSON values.

    settled_ms: with these, everything is out that was due by then, and all that follows from
    the input there was; -1 while the lane is behind.

    stamped and due tell from when their latency counts, as (moment, how many records): the
    timestamps of the input that caused them, and the moments at which heartbeats and timeouts
    were due.
    """

    keys: list[str] = []
    values: list[bytes] = []
    settled_ms: int = -1
    stamped: list[tuple[int, int]] = []
    due: list[tuple[int, int]] = []

    def __len__(self) -> int:
        """Count the records."""
        return len(self.keys)

    def add(self, event: OutputEvent, value: bytes) -> None:
        """Add an event with its value."""
        self.keys.append(event.device_id)
        self.values.append(value)
        if isinstance(event, SessionActive):
            moments = self.stamped
        elif isinstance(event, Heartbeat) or event.reason == "timed_out":
            moments = self.due
        else:
            moments = self.stamped
        moments.append((event.time_ms, 1))

    def extend(self, records: "OutputBatch") -> None:
        """Add other records after these."""
        self.keys += records.keys
        self.values += records.values
        self.stamped += records.stamped
        self.due += records.due
