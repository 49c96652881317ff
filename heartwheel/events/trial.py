"""What a run would make of a record, decided as its decode step does, with the reason in words."""

import time
from typing import Any, Literal

from msgspec import Struct

from dataflows.avro.topics import readers
from dataflows.settings import Settings
from heartwheel.events.avro import AvroValues
from heartwheel.events.fields import read_json, value_at
from heartwheel.events.records import SeenRecord
from session_logic.codec import decode_input
from session_logic.event_table import EventTable, sources
from session_logic.events import GameEnd, GamePing, GameStart, InputEvent, Rejected
from session_logic.mapping import MappedEvent, Skipped

Becomes = Literal["start", "end", "ping", "skipped", "rejected"]
EVENTS: tuple[Becomes, ...] = ("start", "end")
NO_TIMESTAMP = -1
MAX_SHOWN = 60  # characters of a value


KINDS: dict[type[InputEvent], Becomes] = {
    GameStart: "start",
    GameEnd: "end",
    GamePing: "ping",
}


class Outcome(Struct, frozen=True, kw_only=True):
    """What a record becomes: an event with its parts, or something else for a reason.

    time_ms is None where a record of a file has no time in a field. session_id is "" for an end of
    what is active, and for a start that is named by a time which is not known. A late event has its
    record's timestamp, because its own is too long ago. beside says that a record is rejected for
    its size or timestamp, whatever its fields have.
    """

    record: SeenRecord
    becomes: Becomes
    reason: str = ""
    detail: str = ""
    device_id: str = ""
    session_id: str = ""
    platform: str = ""
    time_ms: int | None = None
    late: bool = False
    carried: bytes = b""
    beside: bool = False


class Trial:
    """Tries the records of one topic."""

    def __init__(self, settings: Settings, topic: str) -> None:
        """Read by the topic's table, or in our own format where it has none.

        Raises ConfigError if the topic is in Avro and the extra is not installed.
        """
        self.table: EventTable | None = settings.inputs.get(topic)
        self.platform = settings.input_topics.get(topic, "")
        avro = AvroValues(settings) if topic in settings.avro_topics else None
        # Where key and headers tell all, no schema is needed.
        needed = avro is not None and settings.mappings()[topic].needs_value
        self.read_value = avro.read if avro and needed else read_json
        self._reader = readers(settings, avro.schemas if avro else None).get(topic)
        self._max_bytes = settings.max_record_bytes
        self._latest_ms = int(time.time() * 1000) + settings.max_clock_skew_ms

    def of(self, record: SeenRecord) -> Outcome:
        """Return what a record becomes."""
        size = len(record.key or b"") + len(record.value or b"")
        if size > self._max_bytes:
            detail = f"{size:,} bytes, and HEARTWHEEL_MAX_RECORD_BYTES is {self._max_bytes:,}"
            return _rejected(record, Rejected("too_large", detail), beside=True)
        stamp_ms = NO_TIMESTAMP if record.time_ms is None else record.time_ms
        found: MappedEvent | InputEvent | Skipped | Rejected
        members: dict[str, Any] = {}
        if self._reader is None:
            found = decode_input(record.value)
        else:
            _, members = self.read_value(record)  # has a schema known, if one is needed
            found = self._reader.read(record.key, record.value, record.headers, stamp_ms)
        if isinstance(found, Rejected):
            return _rejected(record, found)
        if isinstance(found, Skipped):
            becomes: Becomes = "ping" if found.kind == "ping" else "skipped"
            detail = "" if found.kind == "ping" else self._type_of(record, members)
            return Outcome(record=record, becomes=becomes, reason=found.kind, detail=detail)
        if record.time_ms is not None and (wrong := self._wrong_timestamp(stamp_ms)):
            return _rejected(record, wrong, beside=True)
        if isinstance(found, MappedEvent):
            names_sessions = self.table is not None and bool(self.table.session)
            return _mapped(record, found, names_sessions=names_sessions)
        return Outcome(
            record=record,
            becomes=KINDS[type(found)],
            device_id=found.device_id,
            session_id=found.session_id,
            platform=self.platform,
            time_ms=record.time_ms,
        )

    def _wrong_timestamp(self, time_ms: int) -> Rejected | None:
        if time_ms < 0:
            return Rejected("no_timestamp", "the record has no timestamp, or one before 1970")
        if time_ms > self._latest_ms:
            ahead_ms = time_ms - self._latest_ms
            detail = f"the record's timestamp is {ahead_ms:,} ms later than what is accepted now"
            return Rejected("in_the_future", detail)
        return None

    def _type_of(self, record: SeenRecord, members: dict[str, Any]) -> str:
        """Return in words what a record has for a type."""
        assert self.table is not None
        some = sources(self.table.type)
        name, value = " or ".join(source.name for source in some), value_at(some, record, members)
        if value is None:
            return f"{name} is missing"
        text = repr(value)
        return f"{name} is {text if len(text) <= MAX_SHOWN else f'{text[:MAX_SHOWN]}...'}"


def _mapped(record: SeenRecord, event: MappedEvent, *, names_sessions: bool) -> Outcome:
    time_ms = record.time_ms if event.time_ms is None else event.time_ms
    return Outcome(
        record=record,
        becomes=event.kind,
        device_id=event.device_id,
        session_id=event.session_id if names_sessions or time_ms is not None else "",
        platform=event.platform,
        time_ms=time_ms,
        late=event.late,
        carried=event.carried,
    )


def _rejected(record: SeenRecord, why: Rejected, *, beside: bool = False) -> Outcome:
    return Outcome(
        record=record, becomes="rejected", reason=why.reason, detail=why.detail, beside=beside
    )
