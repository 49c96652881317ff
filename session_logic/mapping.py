"""Events of a topic's own shape: a table made ready, which turns the parts of a record into one.

    mapping = Mapping(table, max_ahead_ms=60_000, max_late_ms=86_400_000)
    found = mapping.read(key, value, headers, time_ms)  # MappedEvent | Skipped | Rejected

A record goes through one msgspec Struct that has the fields of the table and nothing else, so that
nothing is decoded into dicts. What does not fit that Struct (an array where an id should be, no
JSON at all) is read once more in a slow and general way, which finds out what is wrong. Both give
the fields to the same rules, so they decide alike.

`read` never raises, and what it returns depends on its arguments alone.
"""

import json
import sys
from typing import Any, Literal

import msgspec
from msgspec import Struct

from session_logic.carried_json import MAX_TOGETHER, checked, is_short_text
from session_logic.codec import DETAIL_LENGTH, not_json
from session_logic.decoded_fields import DecodedFields
from session_logic.event_parts import CarriedPart, Part, Parts, fast_fields, parts_of
from session_logic.event_table import EventTable, FromField, Some, sources, words
from session_logic.event_time import NEEDED, Timestamp, time_reader
from session_logic.events import Rejected
from session_logic.record_fields import UNREADABLE, Headers, Record, SlowFields

MAX_ID = 128
ID = f"text or a whole number of 1 to {MAX_ID} characters"
FRAME_BYTES = 5  # of a schema registry: a zero, and the number of a schema
SHOWN = 60  # characters of a value in a detail

Kind = Literal["start", "end", "ping"]
SkippedKind = Literal["ping", "other"]


class MappedEvent(Struct, frozen=True, gc=False):
    """A start, an end or a ping; carried has the members of a context, without its braces.

    A ping with is_start begins a session where none is active. An end or a ping whose table has no
    session has session_id "": it is of what is active. time_ms is the time
    that a field has. It is None if the record's timestamp is the event's time: where the table has
    no time, or the field's is too long before that timestamp, which is late.
    """

    is_start: bool
    device_id: str
    session_id: str
    platform: str
    time_ms: int | None
    carried: bytes = b""
    late: bool = False
    ping: bool = False

    @property
    def kind(self) -> Kind:
        """Which of the three it is."""
        return "ping" if self.ping else "start" if self.is_start else "end"


class Skipped(Struct, frozen=True, gc=False):
    """A record that is no event: a ping that nobody listens to, or something else."""

    kind: SkippedKind


PING, OTHER = Skipped("ping"), Skipped("other")
Found = MappedEvent | Skipped | Rejected


class _NotAnEventError(Exception):
    """Why a record is rejected, on its way out of the rules below."""

    def __init__(self, rejected: Rejected) -> None:
        self.rejected = rejected


class Mapping:
    """Reads the records of a topic by its table."""

    def __init__(
        self, table: EventTable, max_ahead_ms: int, max_late_ms: int, *, listens: bool = False
    ) -> None:
        """Read by this table; the limits are distances of a field's time from the timestamp.

        Without listens, and without open_on_ping, pings are skipped.

        What is further ahead is rejected, what is longer ago is late. needs_value says whether the
        value of a record is looked at; otherwise key and headers tell all.
        """
        kinds: dict[Kind, Some] = {"start": table.start, "end": table.end, "ping": table.ping}
        self._kinds: dict[object, Kind] = {
            word: kind for kind, some in kinds.items() for word in words(some)
        }
        self._words = f"one of {', '.join(map(str, self._kinds))}"
        self._skips = table.other == "skip"
        self._opens = table.open_on_ping
        self._listens = listens or table.open_on_ping
        self._platform = "" if isinstance(table.platform, FromField) else table.platform
        self._framed = table.format == "json_sr"
        self._needed_time = NEEDED[table.time_unit]
        self._read_time = time_reader(table.time_unit)
        self._max_ahead_ms, self._max_late_ms = max_ahead_ms, max_late_ms
        fast = fast_fields(table)
        self.needs_value = not fast.is_empty
        self._type_needs_value = any(one.kind == "field" for one in sources(table.type))
        self._decode, self._is_alone = fast.decode, fast.is_alone
        self._fast, self._slow = parts_of(table, fast), parts_of(table, SlowFields())
        self._decoded = parts_of(table, DecodedFields())

    def read(
        self, key: bytes | None, value: bytes | None, headers: Headers | None, time_ms: int
    ) -> Found:
        """Return what a record is; time_ms is its timestamp."""
        if not self.needs_value:
            return self._decide(self._slow, ({}, key, headers), time_ms)
        if self._framed and value and value[0] == 0:
            value = value[FRAME_BYTES:]
        if not value:
            return self._without_value(
                Rejected("empty", "the record has no value"), key, headers, time_ms
            )
        try:
            fields = self._decode(value)
            record = fields if self._is_alone else (fields, key, headers)
            return self._decide(self._fast, record, time_ms)
        except UNREADABLE:
            return self.read_slowly(key, value, headers, time_ms)

    def read_slowly(
        self, key: bytes | None, value: bytes, headers: Headers | None, time_ms: int
    ) -> Found:
        """Return what a record with a value is, whatever its fields hold."""
        try:
            return self._decide(self._slow, (SlowFields.decode(value), key, headers), time_ms)
        except msgspec.ValidationError as error:
            return Rejected("not_an_event", f"the value cannot be read: {error}"[:DETAIL_LENGTH])
        except UNREADABLE as error:
            return self.read_unreadable(not_json(value, error), key, headers, time_ms)

    def read_decoded(
        self, fields: dict[str, Any], key: bytes | None, headers: Headers | None, time_ms: int
    ) -> Found:
        """Return what a record is whose value was decoded from another format than JSON."""
        return self._decide(self._decoded, (fields, key, headers), time_ms)

    def read_unreadable(
        self, problem: Rejected, key: bytes | None, headers: Headers | None, time_ms: int
    ) -> Found:
        """Return the problem with a value, unless key or headers say that it is to be skipped."""
        if self._type_needs_value:
            return problem
        return self._without_value(problem, key, headers, time_ms)

    def _without_value(
        self, problem: Rejected, key: bytes | None, headers: Headers | None, time_ms: int
    ) -> Found:
        """Return the problem with a value, unless the record is to be skipped whatever it has."""
        found = self._decide(self._slow, ({}, key, headers), time_ms)
        return found if isinstance(found, Skipped) else problem

    def _decide(self, parts: Parts, record: Record, time_ms: int) -> Found:
        """Return what a record is, by the parts of an event that are in it."""
        kind: Kind = "ping" if self._opens else "start"
        if parts.type is not None:
            word = parts.type.get(record)
            found = self._kinds.get(word if type(word) is str else _word(word))
            if found is None:
                return OTHER if self._skips else _rejected(parts.type, word, self._words)
            if found == "ping" and not self._listens:
                return PING
            kind = found
        try:
            return self._event(parts, record, time_ms, kind)
        except _NotAnEventError as error:
            return error.rejected

    def _event(self, parts: Parts, record: Record, time_ms: int, kind: Kind) -> MappedEvent:
        """Return the event; raises _NotAnEventError if a part of it is missing or wrong."""
        ping = kind == "ping"
        is_start = self._opens if ping else kind == "start"
        device_id = _id(parts.device, record)
        platform = self._platform
        if parts.platform is not None:
            platform = sys.intern(_id(parts.platform, record))
        field_ms, late = None, False
        if parts.time is not None:
            field_ms = self._field_ms(parts.time, record, time_ms)
            late = field_ms < 0 or field_ms < time_ms - self._max_late_ms
            field_ms = None if late else field_ms
        session_id = ""
        if parts.session is not None:
            session_id = _id(parts.session, record)
        elif is_start and not ping:
            session_id = str(time_ms if field_ms is None else field_ms)
        fields = parts.carry if is_start else () if ping else parts.end_carry
        carries = _members(fields, record) if fields else b""
        names = (device_id, session_id, platform)
        return MappedEvent(is_start, *names, field_ms, carries, late, ping)

    def _field_ms(self, part: Part, record: Record, time_ms: int) -> int:
        """Return the time that a field has."""
        value = part.get(record)
        field_ms = self._read_time(value)
        if field_ms is None:
            raise _NotAnEventError(_rejected(part, value, self._needed_time))
        if field_ms > time_ms + self._max_ahead_ms and time_ms >= 0:
            detail = (
                f"{part.name} is {_shown(value)}: {field_ms - time_ms} ms after the record's "
                f"timestamp, limit {self._max_ahead_ms}"
            )
            raise _NotAnEventError(Rejected("in_the_future", detail[:DETAIL_LENGTH]))
        return field_ms


def _word(value: object) -> str | None:
    """Return a value as a word of a table: whole numbers and booleans are written as in JSON."""
    return json.dumps(value) if isinstance(value, int) else None


def _id(part: Part, record: Record) -> str:
    """Return an id as text; raises _NotAnEventError if it is none."""
    value = part.get(record)
    text = str(value) if type(value) is int or isinstance(value, Timestamp) else value
    if isinstance(text, str) and 0 < len(text) <= MAX_ID:
        return text
    raise _NotAnEventError(_rejected(part, value, ID))


def _members(fields: tuple[CarriedPart, ...], record: Record) -> bytes:
    """Return the members of a context; raises _NotAnEventError if one cannot be carried."""
    members, size = [], 0
    for field in fields:
        raw = field.get(record)
        if not raw:
            continue
        if not is_short_text(raw):
            raw = _checked(field.part, raw)
        members.append(field.begins + raw)
        size += len(raw)
    if size > MAX_TOGETHER:
        detail = f"what is carried has {size} bytes, limit {MAX_TOGETHER}"
        raise _NotAnEventError(Rejected("not_an_event", detail))
    return b",".join(members)


def _checked(part: Part, raw: bytes) -> bytes:
    try:
        return checked(raw)
    except ValueError as error:
        detail = f"{part.name} {error}"[:DETAIL_LENGTH]
        raise _NotAnEventError(Rejected("not_an_event", detail)) from None


def _rejected(part: Part, value: object, needed: str) -> Rejected:
    """Return why a record is rejected: where, what is there, and what is needed."""
    problem = "is missing" if value is None else f"is {_shown(value)}"
    return Rejected("not_an_event", f"{part.name} {problem}: {needed} is needed"[:DETAIL_LENGTH])


def _shown(value: object) -> str:
    """Return a value as it stands in the record, or what it is."""
    if isinstance(value, dict | list | bytes):
        return {dict: "an object", list: "an array", bytes: "no UTF-8 text"}[type(value)]
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
