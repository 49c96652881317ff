"""Where the id of a schema is in a record, as the serializers of Confluent's clients write it."""

from uuid import UUID

from dataflows.avro.registry import SchemaId
from session_logic.record_fields import Headers

HEADER = "__value_schema_id"
# The first byte of an id tells its kind: a number, or a UUID.
NUMBER, NUMBER_BYTES = b"\0", 5
GUID, GUID_BYTES = b"\1", 17


def schema_of(value: bytes, headers: Headers | None) -> tuple[SchemaId, int] | None:
    """Return the id of the schema of a value, and where its fields begin; None without an id."""
    for name, content in headers or ():
        if name == HEADER and content and (found := _schema_id(content)) is not None:
            return found[0], 0
    return _schema_id(value)


def _schema_id(data: bytes) -> tuple[SchemaId, int] | None:
    """Return the id at the beginning of some bytes, and its length."""
    if data[:1] == NUMBER and len(data) >= NUMBER_BYTES:
        return int.from_bytes(data[1:NUMBER_BYTES], "big"), NUMBER_BYTES
    if data[:1] == GUID and len(data) >= GUID_BYTES:
        return str(UUID(bytes=data[1:GUID_BYTES])), GUID_BYTES
    return None
