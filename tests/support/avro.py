"""Records in Avro, framed as Confluent's serializers do."""

from io import BytesIO
from typing import Any

import fastavro


def framed(schema_id: int, schema: Any, value: Any, named: Any = None) -> bytes:
    """Return a value with the id of its schema in front."""
    return b"\0" + schema_id.to_bytes(4, "big") + written(schema, value, named)


def written(schema: Any, value: Any, named: Any = None) -> bytes:
    """Return a value as it is written by a schema."""
    file = BytesIO()
    fastavro.schemaless_writer(file, fastavro.parse_schema(schema, named or {}), value)
    return file.getvalue()
