"""The values that go in and come out, and their JSON shapes; no behaviour lives here.

An input event says what a device reports. A fact is an input event with its platform and time.
An output event is what consumers get. Field order is stored order: new fields go last, with a
default.

What an event carries are fields of it that no rule looks at. They stay the bytes that they were,
as members of a JSON object without its braces: `"account":"x","title":7`.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

Id = Annotated[str, Meta(min_length=1, max_length=128)]
Milliseconds = Annotated[int, Meta(ge=0)]
# A JSON object as it is, left out where nothing is carried.
Context = (
    Annotated[
        Raw,
        Meta(
            description="Fields of the session's events, as they came; left out if there are none.",
            extra_json_schema={"type": "object"},
        ),
    ]
    | UnsetType
)
LastSeen = (
    Annotated[
        int, Meta(ge=0, description="When something was last heard of a session that went silent.")
    ]
    | UnsetType
)
# What may go to a topic of its own, beside the output topic; stored names.
Kind = Literal["heartbeats", "summaries", "table"]
# Device, session and start, because the id of a session may come again after its end.
SessionName = tuple[str, str, int]
EndReason = Literal["ended", "replaced", "timed_out", "went_silent"]
RejectReason = Literal[
    "empty",
    "not_json",
    "not_an_event",
    "in_the_future",
    "no_timestamp",
    "too_large",
    "not_avro",
    "unknown_schema",
]

# What is rejected for one of these may be an event at another moment: a clock has gone on, or a
# schema was registered. What one run has rejected so stays rejected.
OF_A_MOMENT: frozenset[RejectReason] = frozenset({"in_the_future", "unknown_schema"})


class GameStart(Struct, frozen=True, gc=False, tag_field="type", tag="GameStart"):
    """A device says that a session has begun."""

    device_id: Id
    session_id: Id


class GameEnd(Struct, frozen=True, gc=False, tag_field="type", tag="GameEnd"):
    """A device says that a session is over."""

    device_id: Id
    session_id: Id


class GamePing(Struct, frozen=True, gc=False, tag_field="type", tag="GamePing"):
    """A device says that its session is still going on."""

    device_id: Id
    session_id: Id


InputEvent = GameStart | GameEnd | GamePing


class SessionActive(Struct, frozen=True, gc=False, tag_field="type", tag="SessionActive"):
    """A session has become the active one of its device; time_ms is its start."""

    device_id: Id
    session_id: Id
    platform: str
    started_ms: Milliseconds
    time_ms: Milliseconds
    context: Context = UNSET


class Heartbeat(Struct, frozen=True, gc=False, tag_field="type", tag="Heartbeat"):
    """A session is still active; time_ms = started_ms + sequence x the heartbeat interval."""

    device_id: Id
    session_id: Id
    platform: str
    started_ms: Milliseconds
    time_ms: Milliseconds
    sequence: Annotated[int, Meta(ge=1)]
    context: Context = UNSET


class SessionEnd(Struct, frozen=True, gc=False, tag_field="type", tag="SessionEnd"):
    """A session is over: nothing about it follows.

    duration_ms goes from its start to its end, or to last_seen_ms, where it went silent.
    """

    device_id: Id
    session_id: Id
    platform: str
    started_ms: Milliseconds
    time_ms: Milliseconds
    reason: EndReason
    duration_ms: Milliseconds
    context: Context = UNSET
    last_seen_ms: LastSeen = UNSET


class SessionSummary(Struct, frozen=True, gc=False):
    """One ended session in one flat record; what it carries are further fields of the record."""

    device_id: Id
    session_id: Id
    platform: str
    started_ms: Milliseconds
    ended_ms: Milliseconds
    duration_ms: Milliseconds
    reason: EndReason
    last_seen_ms: LastSeen = UNSET


class ActiveSession(Struct, frozen=True, gc=False):
    """The active session of a device, which is the key; timeout_ms is when it would time out."""

    session_id: Id
    platform: str
    started_ms: Milliseconds
    timeout_ms: Milliseconds
    context: Context = UNSET


class EndIfOpen(SessionEnd, frozen=True, gc=False):
    """The end of a session of which the start was ignored; it is sent only where that is needed.

    It is where a crashed run has announced the session, because it had read the input of several
    partitions in another order. active is the start of the session that is the active one.
    """

    active: SessionActive | None = None


class EndOfSummary(SessionEnd, frozen=True, gc=False):
    """The end that a summary tells of."""


OutputEvent = SessionActive | Heartbeat | SessionEnd


class Fact(Struct, frozen=True, gc=False, array_like=True):
    """An accepted input event with what Kafka adds to it: platform (of its topic) and time.

    created says that the sender has set the time; otherwise the broker did, when it took it in.
    An end or a ping with session_id "" is that of the session that was active at its time.
    carried is for the records of the session; of an end, for its last record alone.

    A ping says that the session goes on; with is_start, it begins one where none is active. A
    session that begins with idle_timeout_ms ends when nothing was heard of it for so long.
    """

    is_start: bool
    device_id: str
    session_id: str
    platform: str
    time_ms: int
    created: bool = False
    carried: bytes = b""
    ping: bool = False
    idle_timeout_ms: int = 0


class Watermark(Struct, frozen=True, gc=False, array_like=True):
    """How far time has come for a lane: what was due at or before upto_ms has been sent.

    With newest_only (while the lane catches up after an outage), a session that ends now gets
    only the newest of the heartbeats that it still owed. Time comes to the key groups before
    next_group first: for them, what is due a millisecond later has been sent as well.
    """

    upto_ms: int
    newest_only: bool = False
    next_group: int = 0

    def of(self, group: int) -> "Watermark":
        """Return how far time has come for one key group."""
        if not self.next_group:
            return self
        return Watermark(self.upto_ms + (group < self.next_group), self.newest_only)


class JournalEntry(Struct, frozen=True, gc=False, array_like=True):
    """Facts of one lane that were applied together, and how far time had come then.

    hearing_ms is the moment before which silence did not count then: an outage ended at it.
    """

    watermark: Watermark
    facts: list[Fact]
    hearing_ms: int = 0


class Rejected(Struct, frozen=True, gc=False):
    """Input that is no event; reason is a short name to count by, detail is for a person."""

    reason: RejectReason
    detail: str
