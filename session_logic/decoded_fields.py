"""The fields of a record that is decoded already, from a format that is not JSON.

A value is text, a number, a boolean, None, bytes, a Decimal, a Timestamp, or a list or dict of
these. Nothing here knows the format.
"""

from decimal import Decimal
from typing import Any

import msgspec

from session_logic.record_fields import Get, Path, text_of

_ABSENT = object()
# Bytes are in Base64, and a number that is none or infinite is null, as JSON has neither. What the
# encoder does not know is a Timestamp, which is a number.
_encode = msgspec.json.Encoder(enc_hook=int, decimal_format="number").encode


class DecodedFields:
    """All fields of a record, as values."""

    @staticmethod
    def value(path: Path) -> Get:
        """Return what gets the value of a field."""
        if len(path) > 1:
            return lambda record: _value(_find(record[0], path))
        (name,) = path
        return lambda record: _value(record[0].get(name))

    @staticmethod
    def carried(path: Path) -> Get:
        """Return what gets the JSON of a field."""

        def get(record: Any) -> bytes | None:
            found = _find(record[0], path)
            return None if found is _ABSENT else _encode(found)

        return get


def _find(found: Any, path: Path) -> Any:
    """Return what is in a field; a path that leads into no object leads nowhere."""
    for name in path:
        if not isinstance(found, dict):
            return _ABSENT
        found = found.get(name, _ABSENT)
    return found


def _value(found: Any) -> Any:
    """Return a value as it would be if it had come as JSON: bytes are text, if they are UTF-8."""
    if type(found) is str:  # as most are
        return found
    if found is _ABSENT:
        return None
    if isinstance(found, bytes):
        return text_of(found)
    if isinstance(found, Decimal):
        # As in JSON, 12 is a whole number and 12.00 is none.
        return float(found) if found.as_tuple().exponent else int(found)
    return found
