"""The fields that records have, by the names that a table has for them."""

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

from msgspec import DecodeError, Struct
from msgspec.json import decode

from dataflows.avro.framing import schema_of
from heartwheel.events.records import BOM, UTF_16, SeenRecord
from session_logic.errors import ConfigError
from session_logic.event_table import HEADER, MAX_NAMES, ROOT, EventTable, Source

# Of records with more fields (a map with ids as names) the others are not looked at.
MAX_FIELDS = 500
FRAME_BYTES = 5
MAX_UNZIPPED_BYTES = 1_000_000
Scalar = str | int | float | bool
# How a value is written; json_sr is JSON framed for a schema registry, framed is what else is.
Writing = Literal[
    "json", "json_sr", "avro", "framed", "bom", "utf_16", "gzip", "empty", "no_object", "no_json"
]

# What is said of values that no table can read.
REJECTED: dict[Writing, str] = {
    "bom": "begin with a byte order mark, which is rejected: send UTF-8 without one",
    "utf_16": "are UTF-16, which is rejected: send UTF-8",
    "gzip": "are compressed (gzip), which is rejected: send them as they are, Kafka's clients "
    "compress",
    "framed": "look like Avro or Protobuf framed for a schema registry; Avro is read with "
    'format = "avro" and HEARTWHEEL_REGISTRY_URL',
    "empty": "are empty",
    "no_object": "are JSON, but no objects",
    "no_json": "are no JSON",
}


class Field(Struct, frozen=True):
    """What a source has in the records, by their numbers; where it is absent or null is no value.

    There are several sources where a record has one or the other.
    """

    sources: tuple[str, ...]
    values: dict[int, Scalar]

    @property
    def name(self) -> str:
        """The source in words."""
        return " or ".join(self.sources)

    def among(self, numbers: Iterable[int]) -> "Field":
        """Return what it has in some of the records."""
        return Field(self.sources, {n: self.values[n] for n in numbers if n in self.values})

    def texts(self) -> Counter[str]:
        """Count the different values, as text."""
        return Counter(map(text_of, self.values.values()))


class Seen(Struct, frozen=True):
    """What some records have: how their values are written, and their fields."""

    records: Sequence[SeenRecord]
    writings: Counter[Writing]
    fields: list[Field]

    @classmethod
    def of(cls, records: Sequence[SeenRecord], read: "Read | None" = None) -> "Seen":
        """Look at records; without a way to read their values, these are JSON."""
        read = read or read_json
        writings: Counter[Writing] = Counter()
        found: dict[str, dict[int, Scalar]] = {}
        for number, record in enumerate(records):
            writing, members = read(record)
            writings[writing] += 1
            for source, value in (*_beside(record), *_leaves(members, ())):
                if source in found or len(found) < MAX_FIELDS:
                    found.setdefault(source, {})[number] = value
        fields = [Field((source,), values) for source, values in found.items() if _can_be(source)]
        return cls(records, writings, fields)


# What reads the value of a record: how it is written, and its fields.
Read = Callable[[SeenRecord], tuple[Writing, dict[str, Any]]]


def value_at(some: Iterable[Source], record: SeenRecord, members: dict[str, Any]) -> object:
    """Return what the first source that is there has, None if none is."""
    beside: dict[str, object] = dict(_beside(record))
    for source in some:
        found: object = members
        if source.kind == "field":
            for name in source.path:
                found = found.get(name) if isinstance(found, dict) else None
        else:
            found = beside.get("key" if source.kind == "key" else f"{HEADER}{source.path[0]}")
        if found is not None:
            return found
    return None


def text_of(value: Scalar) -> str:
    """Return a value as text, as in JSON."""
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def read_json(record: SeenRecord) -> tuple[Writing, dict[str, Any]]:
    """Return how a value is written, and what it has if that is an object."""
    value = record.value
    if not value:
        return "empty", {}
    writing, plain = _unwrapped(value)
    try:
        found = decode(plain)
    except (DecodeError, UnicodeDecodeError, RecursionError):
        if writing in ("json", "json_sr"):
            writing = "no_json" if schema_of(value, record.headers) is None else "framed"
        return writing, {}
    if isinstance(found, dict):
        return writing, found
    return ("no_object" if writing == "json" else writing), {}


def _unwrapped(value: bytes) -> tuple[Writing, bytes]:
    """Return how a value is written, and the JSON that it may hold."""
    if value[0] == 0 and len(value) > FRAME_BYTES and value[:2] != b"\0{":
        rest = value[FRAME_BYTES:]
        return ("json_sr" if rest.lstrip().startswith(b"{") else "framed"), rest
    if value.startswith(BOM):
        return "bom", value.removeprefix(BOM)
    if value.startswith((*UTF_16, b"{\0", b"\0{")):
        codec = (
            "utf-16" if value.startswith(UTF_16) else "utf-16-le" if value[1] == 0 else "utf-16-be"
        )
        return "utf_16", value.decode(codec, errors="replace").encode(errors="replace")
    if value.startswith(b"\x1f\x8b"):
        return "gzip", _unzipped(value)
    return "json", value


def _unzipped(value: bytes) -> bytes:
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(value, MAX_UNZIPPED_BYTES)
    except zlib.error:
        return b""


def _beside(record: SeenRecord) -> Iterator[tuple[str, Scalar]]:
    """Yield what a record has beside its value, if it is text."""
    named = (("key", record.key), *((f"{HEADER}{name}", data) for name, data in record.headers))
    for source, data in named:
        try:
            text = (data or b"").decode()
        except UnicodeDecodeError:
            continue
        if text:
            yield source, text


def _leaves(members: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, Scalar]]:
    """Yield every value that is in an object, and in the objects in it."""
    for name, value in members.items():
        place = (*path, name)
        if isinstance(value, dict):
            if len(place) < MAX_NAMES:
                yield from _leaves(value, place)
        elif isinstance(value, Scalar) and not any("." in part for part in place):
            yield _source(place), value  # a table cannot name others


def _source(path: tuple[str, ...]) -> str:
    text = ".".join(path)
    return f"{ROOT}{text}" if text in ("key", "$") or text.startswith((HEADER, ROOT)) else text


def _can_be(source: str) -> bool:
    """Say whether a table can have a source."""
    try:
        EventTable(platform="any", device=source)
    except ConfigError:
        return False
    return True
