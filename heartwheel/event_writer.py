"""Events as a topic has them, for whoever sends: in our own format, or as an input table says.

A TableWriter is the inverse of a mapping: what it writes, the mapping of its table reads back as
the same event. So a simulated fleet can send to any topic that a run can read.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from dataflows.settings import Settings
from session_logic.errors import ConfigError
from session_logic.event_table import EventTable, FromField, Some, Source, sources, words
from session_logic.event_time import TimeUnit
from session_logic.events import GameEnd, GamePing, GameStart, Rejected
from session_logic.mapping import FRAME_BYTES, Kind, MappedEvent, Mapping

BAD_INPUT = (b"not json", b"[]", b'{"type":"GamePause"}', b'{"type":"GameStart","device_id":""}')
OWN = {"start": GameStart, "end": GameEnd, "ping": GamePing}
FORMATS = "json", "json_sr"
FRAME = b"\0" + bytes(FRAME_BYTES - 2) + b"\1"
MAX_DIGITS = 15  # of a number that every reader of JSON takes in whole
KEY = Source("key", (), "the key")
SAMPLE_MS = 1_761_955_605_123
SAMPLES = (
    MappedEvent(True, "a device", "a session", "a platform", SAMPLE_MS),
    MappedEvent(False, "a device", "a session", "a platform", SAMPLE_MS),
    MappedEvent(False, "a device", "a session", "a platform", SAMPLE_MS, ping=True),
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Sent(NamedTuple):
    """What is sent as a record."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


class Writer(Protocol):
    """Writes the events of a topic; kinds are those that there are."""

    kinds: tuple[Kind, ...]

    def carried(self, kind: Kind) -> tuple[str, ...]:
        """Return the names of what an event of a kind carries."""

    def write(self, event: MappedEvent) -> Sent:
        """Return an event as a record."""

    def bad(self, device_id: str) -> list[Sent]:
        """Return records of a device that are no events."""


class OwnWriter:
    """Writes our own format, which carries nothing."""

    kinds: tuple[Kind, ...] = ("start", "end", "ping")

    def carried(self, _kind: Kind) -> tuple[str, ...]:
        """Return no names."""
        return ()

    def write(self, event: MappedEvent) -> Sent:
        """Return an event as a record."""
        value = _encode(OWN[event.kind](event.device_id, event.session_id))
        return Sent(event.device_id.encode(), value, [])

    def bad(self, device_id: str) -> list[Sent]:
        """Return records of a device that are no events."""
        return [Sent(device_id.encode(), value, []) for value in BAD_INPUT]


class TableWriter:
    """Writes events as an input table describes them.

    A part of an event goes to the first of its sources. Ids that are whole numbers are written as
    such. A field that is carried and is another part of the event as well has that part's value.
    """

    def __init__(self, topic: str, table: EventTable) -> None:
        """Write to this topic; raises ConfigError if the table has no inverse."""
        if table.format not in FORMATS:
            raise ConfigError(
                f"inputs.{topic} has the format {table.format}: events are written in "
                f"{' and '.join(FORMATS)} only"
            )
        self._topic = topic
        self._table = table
        self._mapping = Mapping(table, 0, 0)
        self._every_record_is_ping = table.open_on_ping and not table.type
        kinds: tuple[Kind, ...] = ("start", "end", "ping")
        self.kinds = tuple(kind for kind in kinds if words(getattr(table, kind)))
        if self._every_record_is_ping:
            self.kinds = ("ping",)
        for kind in ("start", "end"):
            if kind not in self.kinds and not table.open_on_ping:
                raise ConfigError(f"inputs.{topic} has no {kind}: starts and ends are written")
        self._samples = [sample for sample in SAMPLES if sample.kind in self.kinds]
        for sample in self._samples:
            self.write(sample)

    def carried(self, kind: Kind) -> tuple[str, ...]:
        """Return the names of what an event of a kind carries."""
        return tuple(self._carry(kind))

    def _carry(self, kind: Kind) -> dict[str, Some]:
        if kind == "end":
            return self._table.end_carry
        return self._table.carry if kind == "start" or self._table.open_on_ping else {}

    def write(self, event: MappedEvent) -> Sent:
        """Return an event as a record; it needs a time if the table has one."""
        return self._write(event, event.device_id)

    def bad(self, device_id: str) -> list[Sent]:
        """Return records of a device that the table rejects."""
        good, nameless = self._samples[0], replace(self._samples[0], device_id="")
        some = [self._write(good, device_id)._replace(value=value) for value in BAD_INPUT[:2]]
        return [
            sent
            for sent in (*some, self._write(nameless, device_id))
            if isinstance(self._mapping.read(*sent, SAMPLE_MS), Rejected)
        ]

    def _write(self, event: MappedEvent, key: str) -> Sent:
        """Return an event as a record; the key is this one if the table does not read it."""
        record = _Record()
        for some, value in self._parts(event):
            source = sources(some)[0]
            if not record.put(source, value):
                raise ConfigError(
                    f"inputs.{self._topic} has two parts of an event in {source.name}: none can be "
                    "written"
                )
        # Where the table does not read it, it keeps the events of a device in one partition.
        record.put(KEY, key)
        carry = self._carry(event.kind)
        for name, raw in _members(b"{" + event.carried + b"}").items():
            record.put(sources(carry[name])[0], raw)
        frame = FRAME if self._table.format == "json_sr" else b""
        return Sent(record.key or b"", frame + _encode(record.fields), list(record.headers.items()))

    def _parts(self, event: MappedEvent) -> Iterator[tuple[Some, Any]]:
        """Yield where the parts of an event are, with their values."""
        table = self._table
        if not self._every_record_is_ping:
            yield table.type, words(getattr(table, event.kind))[0]
        yield table.device, _id(event.device_id)
        if table.session:
            yield table.session, _id(event.session_id)
        if isinstance(table.platform, FromField):
            yield table.platform.field, event.platform
        if table.time:
            assert event.time_ms is not None, "the table has a time"
            yield table.time, _time(table.time_unit, event.time_ms)


class _Record:
    """A record that is being written."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.key: bytes | None = None
        self.headers: dict[str, bytes] = {}

    def put(self, source: Source, value: Any) -> bool:
        """Put a value where a source looks for it; return False if something else is there."""
        if source.kind == "field":
            return _put(self.fields, source.path, value)
        content = _content(value)
        if source.kind == "key":
            self.key = content if self.key is None else self.key
            return self.key == content
        return self.headers.setdefault(source.path[0], content) == content


def _put(fields: dict[str, Any], path: tuple[str, ...], value: Any) -> bool:
    *parents, name = path
    for parent in parents:
        inner = fields.setdefault(parent, {})
        if not isinstance(inner, dict):
            return False
        fields = inner
    return bool(fields.setdefault(name, value) == value)


def _content(value: Any) -> bytes:
    """Return a value as the text of a key or of a header."""
    if isinstance(value, Raw):
        value = _decode(value) if bytes(value).startswith(b'"') else bytes(value).decode()
    return str(value).encode()


def _id(text: str) -> str | int:
    """Return an id as a number if it is one, as many senders do."""
    is_number = text.isascii() and text.isdecimal() and str(int(text[:MAX_DIGITS])) == text
    return int(text) if is_number else text


def _time(unit: TimeUnit, time_ms: int) -> str | int | float:
    """Return a time as a table's unit has it."""
    match unit:
        case "iso":
            moment = _EPOCH + timedelta(milliseconds=time_ms)
            return moment.isoformat(timespec="milliseconds")
        case "s":
            return time_ms / 1000
        case "ms":
            return time_ms
        case "us":
            return time_ms * 1000


def writer_of(settings: Settings, topic: str) -> Writer:
    """Return what writes to an input topic; raises ConfigError if it cannot be written to."""
    table = settings.inputs.get(topic)
    return OwnWriter() if table is None else TableWriter(topic, table)


def writers_of(settings: Settings) -> dict[str, Writer]:
    """Return what writes to each input topic; raises ConfigError if one cannot be written to."""
    try:
        return {topic: writer_of(settings, topic) for topic in settings.all_input_topics}
    except ConfigError as error:
        raise ConfigError(f"{error}; leave the topic out") from None
