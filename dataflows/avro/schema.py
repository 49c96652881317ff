"""A schema made ready to read values by, with fastavro.

Fields are read by the schema that their record was written with, and by no other: so a record is
read alike whenever it is read, whatever is registered later.

Of the logical types, moments, decimals and UUIDs in bytes become values of their own. All others
are read as what they are made of.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from io import BytesIO
from typing import Any, cast
from uuid import UUID

import fastavro
import fastavro.read
import msgspec

from dataflows.avro.registry import SchemaText
from session_logic.codec import DETAIL_LENGTH
from session_logic.event_time import Micros, Millis, Nanos, Timestamp
from session_logic.events import Rejected

# Worker threads have small stacks, and fastavro does not look how deep it is.
MAX_DEPTH = 64
# How many bytes a value has at least.
LEAST_BYTES = {"null": 0, "float": 4, "double": 8}
OWN = "heartwheel-"
# A record of one field is written as that field is, so whatever a schema is, it can be in one.
WRAPPED = "heartwheel_wrapped"

Fields = dict[str, Any]
Names = Mapping[str, Any]
Read = Callable[..., Any]


class UnreadableSchemaError(Exception):
    """Nothing can be read by a schema, or not safely."""


def _decimal(data: bytes, schema: Names, _reader: object = None) -> Decimal:
    """Return a decimal with all its digits, whatever its schema says of how many there are."""
    unscaled = int.from_bytes(data, byteorder="big", signed=True)
    return Decimal(f"{unscaled}E{-int(schema.get('scale', 0))}")


def _uuid(data: bytes, _schema: Names, _reader: object = None) -> str:
    return str(UUID(bytes=data))


def _moments(kind: type[Timestamp]) -> Read:
    return lambda data, _schema, _reader=None: kind(data)


LOGICAL_TYPES: dict[str, Read] = {
    "bytes-decimal": _decimal,
    "fixed-decimal": _decimal,
    "fixed-uuid": _uuid,
    "long-timestamp-millis": _moments(Millis),
    "long-timestamp-micros": _moments(Micros),
    "long-timestamp-nanos": _moments(Nanos),
    "long-local-timestamp-millis": _moments(Millis),
    "long-local-timestamp-micros": _moments(Micros),
    "long-local-timestamp-nanos": _moments(Nanos),
}
# Under names of our own, because fastavro has one register for a whole process.
for _name, _read in LOGICAL_TYPES.items():
    _type, _, _logical = _name.partition("-")
    fastavro.read.LOGICAL_READERS[f"{_type}-{OWN}{_logical}"] = _read


class Schema:
    """Reads the fields of values that were written by a schema."""

    def __init__(self, text: SchemaText) -> None:
        """Make it ready; raises UnreadableSchemaError."""
        if text.kind != "AVRO":
            raise UnreadableSchemaError(f"it is {text.kind}, not AVRO")
        named: dict[str, Any] = {}
        try:
            for needed in text.needs:
                fastavro.parse_schema(_renamed(msgspec.json.decode(needed)), named)
            field = {"name": "value", "type": _renamed(msgspec.json.decode(text.text))}
            wrapped = {"type": "record", "name": WRAPPED, "fields": [field]}
            parsed = fastavro.parse_schema(wrapped, named)
            _Limits(named).least_bytes(parsed, ())
        except UnreadableSchemaError:
            raise
        except Exception as error:  # noqa: BLE001  # what is no schema gives errors of any kind
            raise UnreadableSchemaError(_words(error)) from None
        self._parsed = parsed

    def read(self, value: bytes, begin: int) -> Fields | Rejected:
        """Return the fields that a value has from a byte on, or why they cannot be read."""
        file = BytesIO(value)
        file.seek(begin)
        try:
            found = cast("Any", fastavro.schemaless_reader(file, self._parsed, None))["value"]
        except Exception as error:  # noqa: BLE001  # bytes that were not written by it: any kind
            return _not_avro(f"it does not fit its schema ({_words(error)})")
        if (left := len(value) - file.tell()) != 0:
            return _not_avro(f"it does not fit its schema ({left} bytes are left over)")
        if not isinstance(found, dict):
            return _not_avro("it is no record by its schema")
        return found


def _not_avro(problem: str) -> Rejected:
    return Rejected("not_avro", f"the value is no Avro that can be read: {problem}"[:DETAIL_LENGTH])


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _renamed(plain: Any) -> Any:
    """Return a schema whose logical types are ours, or none, as it is written by the book.

    Other libraries take defaults of a wrong type, which nothing here needs, and types in types.
    """
    if isinstance(plain, list):
        return [_renamed(item) for item in plain]
    if not isinstance(plain, dict):
        return plain
    renamed = {key: _renamed(value) for key, value in plain.items() if key != "default"}
    if "name" not in renamed and isinstance(renamed.get("type"), dict | list):
        return renamed["type"]
    logical = renamed.pop("logicalType", None)
    if f"{renamed.get('type')}-{logical}" in LOGICAL_TYPES:
        renamed["logicalType"] = f"{OWN}{logical}"
    return renamed


class _Limits:
    """Finds the schemas by which a short value could claim any depth, or any number of items.

    The first is the end of a process, because fastavro does not notice, and the second takes for
    ever.
    """

    def __init__(self, named: Names) -> None:
        self._named = named
        self._least: dict[str, int] = {}  # of the named types that have been looked at

    def least_bytes(self, schema: Any, users: tuple[str, ...]) -> int:
        """Return how many bytes a value has at least; raises UnreadableSchemaError."""
        if len(users) > MAX_DEPTH:
            raise UnreadableSchemaError(f"it is more than {MAX_DEPTH} types deep")
        if isinstance(schema, list):
            for branch in schema:
                self.least_bytes(branch, (*users, ""))
            return 1
        if isinstance(schema, dict):
            return self._of_type(schema, users)
        if schema in users:
            raise UnreadableSchemaError(f"{schema} contains itself")
        if schema in self._named and schema not in self._least:
            return self.least_bytes(self._named[schema], users)
        return self._least.get(schema, LEAST_BYTES.get(schema, 1))

    def _of_type(self, schema: dict[str, Any], users: tuple[str, ...]) -> int:
        name, kind = schema.get("name", ""), schema["type"]
        inside = (*users, name)
        least = 1
        if kind in ("record", "error"):
            least = sum(self.least_bytes(field["type"], inside) for field in schema["fields"])
        elif kind == "array" and not self.least_bytes(schema["items"], inside):
            raise UnreadableSchemaError("it has an array of items without a byte")
        elif kind == "map":
            self.least_bytes(schema["values"], inside)
        elif kind == "fixed":
            least = int(schema["size"])
        elif kind not in ("array", "enum"):
            least = self.least_bytes(kind, inside)
        self._least[name] = least
        return least
