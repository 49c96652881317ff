"""How values become bytes and back: JSON for Kafka, MessagePack for stored state."""

import re
import sys
from collections.abc import Callable

import msgspec
from msgspec.structs import astuple

from session_logic.errors import SnapshotError
from session_logic.events import (
    GameEnd,
    GamePing,
    GameStart,
    Heartbeat,
    InputEvent,
    JournalEntry,
    OutputEvent,
    Rejected,
    SessionActive,
    SessionEnd,
    SessionSummary,
)
from session_logic.rules import CarryingSession, Session, WatchedSession

DETAIL_LENGTH = 200
# What a value that is no JSON begins with, and what that is likely to be.
_BEGINNINGS = {
    b"\xef\xbb\xbf": "it begins with a byte order mark: send UTF-8 without one",
    b"\xff\xfe": "it looks like UTF-16: send UTF-8",
    b"\xfe\xff": "it looks like UTF-16: send UTF-8",
    b"{\x00": "it looks like UTF-16: send UTF-8",
    b"\x00{": "it looks like UTF-16: send UTF-8",
    b"\x1f\x8b": "it is compressed (gzip): send it as it is, Kafka's clients compress",
}
_FRAME_BYTES = 5
_NOT_A_NUMBER = re.compile(rb"[:,\[]\s*(NaN|-?Infinity)\b")

encode_output = msgspec.json.Encoder().encode
decode_output: Callable[[bytes], OutputEvent] = msgspec.json.Decoder(
    SessionActive | Heartbeat | SessionEnd
).decode

decode_summary: Callable[[bytes], SessionSummary] = msgspec.json.Decoder(SessionSummary).decode

_decode_input: Callable[[bytes], InputEvent] = msgspec.json.Decoder(
    GameStart | GameEnd | GamePing
).decode
_encode = msgspec.msgpack.Encoder().encode
_decode_entry = msgspec.msgpack.Decoder(JournalEntry).decode
_decode_sessions = msgspec.msgpack.Decoder(list[Session]).decode
_decode_any = msgspec.msgpack.Decoder(list[WatchedSession]).decode


def decode_input(value: bytes | None) -> InputEvent | Rejected:
    """Return the event in a Kafka value, or why there is none; never raises on bad bytes."""
    if not value:
        return Rejected("empty", "the record has no value")
    try:
        return _decode_input(value)
    except msgspec.ValidationError as error:
        return Rejected("not_an_event", _detail(error))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return not_json(value, error)


def not_json(value: bytes, error: Exception) -> Rejected:
    """Return why a value is no JSON: what a sender is likely to have done, and what was raised."""
    return Rejected("not_json", _detail(error, _likely_cause(value)))


def _detail(error: Exception, cause: str = "") -> str:
    """Return what an error says; a part of the input, of any length, may be in it."""
    return (f"{cause} ({error})" if cause else str(error))[:DETAIL_LENGTH]


def _likely_cause(value: bytes) -> str:
    """Return what a sender is likely to have done, or "" if the parser's word is all there is."""
    for beginning, cause in _BEGINNINGS.items():
        if value.startswith(beginning):
            return cause
    if value[0] == 0 and len(value) > _FRAME_BYTES:
        schema = int.from_bytes(value[1:_FRAME_BYTES], "big")
        is_json = value[_FRAME_BYTES:].lstrip().startswith(b"{")
        kind, how = ("JSON", "json_sr") if is_json else ("Avro or Protobuf", "avro")
        return (
            f"it looks like {kind} framed for a schema registry (schema id {schema}): send JSON "
            f"without the first five bytes, or read the topic by a table with format {how}"
        )
    if found := _NOT_A_NUMBER.search(value):
        return f"{found[1].decode()} is not JSON: send null, or leave the field out"
    return ""


def encode_entry(entry: JournalEntry) -> bytes:
    """Return an entry as bytes, for a journal row."""
    return _encode(entry)


def decode_entry(data: bytes) -> JournalEntry:
    """Return the entry in the bytes; raises SnapshotError if they are damaged."""
    try:
        return _decode_entry(data)
    except msgspec.DecodeError as error:
        msg = f"a journal entry cannot be read: {error}"
        raise SnapshotError(msg) from None


def encode_sessions(sessions: list[Session]) -> bytes:
    """Return sessions as a base blob."""
    return _encode(sessions)


def decode_sessions(blob: bytes, *, plain: bool = True) -> list[Session]:
    """Return the sessions of a base blob; raises SnapshotError if it is damaged.

    What they carry, and when they were last heard of, is there only if they are not taken as plain.
    """
    try:
        sessions = _decode_sessions(blob) if plain else list(map(_least, _decode_any(blob)))
    except msgspec.DecodeError as error:
        msg = f"a base blob cannot be read: {error}"
        raise SnapshotError(msg) from None
    for session in sessions:
        session.platform = sys.intern(session.platform)  # one string for millions of sessions
    return sessions


def _least(session: WatchedSession) -> Session:
    """Return a session without room for what it does not have."""
    if session.idle_timeout_ms:
        return session
    kind = CarryingSession if session.context else Session
    return kind(*astuple(session)[: len(kind.__struct_fields__)])
