"""What is carried from an event into the context of output records: JSON that every parser reads.

A value stays as it stands in the event, byte for byte but for spaces between its parts.
"""

import json
import re
from typing import Any

import msgspec

MAX_BYTES = 256  # of a value
MAX_TOGETHER = 1024
MAX_RAW_BYTES = 4096  # with spaces
# Some parsers go no deeper than 64, and a context is in a record.
MAX_DEPTH = 32

_decode = msgspec.json.Decoder().decode
_QUOTE = ord('"')
# Numbers that fit everywhere, and words.
_is_plain = re.compile(rb"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?|true|false|null").fullmatch


def member_name(name: str) -> bytes:
    """Return what stands before a value in a context."""
    return msgspec.json.encode(name) + b":"


def is_short_text(raw: bytes) -> bool:
    """Say whether a value is what `checked` leaves as it is, because most are."""
    return raw[0] == _QUOTE and len(raw) <= MAX_BYTES and raw.isascii() and b"\\" not in raw


def checked(raw: bytes) -> bytes:
    """Return a value as it is carried; raises ValueError, in words, for one that cannot be.

    A decoder has passed over it, which looks at neither UTF-8, nor pairs of surrogates, nor how
    large a number is.
    """
    if not is_short_text(raw) and not _is_plain(raw) and len(raw) <= MAX_RAW_BYTES:
        raw = _strict(raw)
    if len(raw) > MAX_BYTES:
        raise ValueError(f"has {len(raw)} bytes: at most {MAX_BYTES} are carried")
    return raw


def _strict(raw: bytes) -> bytes:
    """Return a value without spaces, if it is one that no parser takes for something else."""
    try:
        text = raw.decode()
        _decode(raw)
        if not raw.startswith((b"{", b"[")):
            return raw
        value = json.loads(text, object_pairs_hook=_without_doubles)
        depth = _depth(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"is not valid JSON ({error})") from None
    if depth > MAX_DEPTH:
        raise ValueError(f"is {depth} objects and arrays deep: at most {MAX_DEPTH} are carried")
    return msgspec.json.format(raw, indent=-1)


def _without_doubles(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        raise ValueError("has a field twice in an object")
    return found


def _depth(value: Any) -> int:
    if not isinstance(value, dict | list):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(map(_depth, inner), default=0)
