"""Bytes in and out: bad bytes are values, damaged state is an error that says what to do."""

import gzip
import re

import pytest

from session_logic.codec import (
    DETAIL_LENGTH,
    decode_entry,
    decode_input,
    decode_sessions,
    encode_entry,
    encode_sessions,
)
from session_logic.errors import SnapshotError
from session_logic.events import Fact, GameStart, JournalEntry, Rejected, Watermark
from session_logic.restoring import LISTENING_VERSION, STATE_VERSION, read_lane_state
from session_logic.rules import Session

GOOD = b'{"type":"GameStart","device_id":"d","session_id":"s","more":[1]}'
BAD = {
    "no value": (None, "empty"),
    "empty": (b"", "empty"),
    "not json": (b"{", "not_json"),
    "not utf-8": (b'{"type":"GameStart","device_id":"\xff","session_id":"s"}', "not_json"),
    "too deep": (b'{"a":' + b"[" * 100_000, "not_json"),
    "no object": (b"[1,2]", "not_an_event"),
    "unknown type": (b'{"type":"GamePause","device_id":"d","session_id":"s"}', "not_an_event"),
    "no type": (b'{"device_id":"d","session_id":"s"}', "not_an_event"),
    "missing id": (b'{"type":"GameEnd","device_id":"d"}', "not_an_event"),
    "number for id": (b'{"type":"GameEnd","device_id":7,"session_id":"s"}', "not_an_event"),
    "empty id": (b'{"type":"GameEnd","device_id":"","session_id":"s"}', "not_an_event"),
    "long id": (
        b'{"type":"GameEnd","device_id":"' + b"x" * 129 + b'","session_id":"s"}',
        "not_an_event",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_rejected_with_its_reason(name: str) -> None:
    """No bytes raise; each kind has a reason to count by."""
    value, reason = BAD[name]
    rejected = decode_input(value)
    assert isinstance(rejected, Rejected)
    assert rejected.reason == reason
    assert rejected.detail


LIKELY = {
    "framed JSON": (
        b"\x00\x00\x00\x00\x07" + GOOD,
        "like JSON framed .*id 7",
    ),
    "framed Avro": (
        b"\x00\x00\x00\x01\x00\x02d\x02s",
        "Avro or Protobuf framed .*id 256.* format avro",
    ),
    "byte order mark": (b"\xef\xbb\xbf" + GOOD, "byte order mark"),
    "UTF-16": (GOOD.decode().encode("utf-16"), "UTF-16"),
    "UTF-16 from the least byte": (GOOD.decode().encode("utf-16-le"), "UTF-16"),
    "UTF-16 from the greatest byte": (GOOD.decode().encode("utf-16-be"), "UTF-16"),
    "gzip": (gzip.compress(GOOD), "gzip"),
    "NaN": (GOOD.replace(b"[1]", b"NaN"), "^NaN is not JSON"),
    "Infinity": (GOOD.replace(b"[1]", b"[1, -Infinity]"), "^-Infinity is not JSON"),
}


@pytest.mark.parametrize("name", LIKELY)
def test_detail_names_the_likely_cause_and_what_the_parser_said(name: str) -> None:
    """Whoever reads a dead letter sees what its sender has to change."""
    value, cause = LIKELY[name]
    rejected = decode_input(value)
    assert isinstance(rejected, Rejected)
    assert rejected.reason == "not_json"
    assert re.search(cause, rejected.detail)
    assert "JSON is malformed" in rejected.detail or "utf-8" in rejected.detail


@pytest.mark.parametrize("value", [b"\x00", b"\x00\x00\x00\x00\x07", b"{", b'{"a":"NaN"', b"NaNny"])
def test_other_bytes_have_only_the_parsers_word(value: bytes) -> None:
    """No cause is better than a wrong one."""
    rejected = decode_input(value)
    assert isinstance(rejected, Rejected)
    assert rejected.detail.startswith(("JSON is malformed", "Input data was truncated"))


def test_unknown_fields_are_ignored() -> None:
    """A producer may add fields."""
    assert decode_input(GOOD) == GameStart("d", "s")


def test_stored_values_come_back_as_they_were() -> None:
    """Chunks and base blobs survive the way through bytes."""
    chunk = JournalEntry(Watermark(5, newest_only=True), [Fact(True, "d", "s", "pc", 7)])
    assert decode_entry(encode_entry(chunk)) == chunk
    sessions = [Session("d", "s", "pc", 7), Session("e", "t", "console", 8, 9)]
    assert decode_sessions(encode_sessions(sessions)) == sessions


@pytest.mark.parametrize("decode", [decode_entry, decode_sessions])
def test_damaged_state_is_a_clear_error(decode: object) -> None:
    """A cut or changed blob is never taken for an empty one."""
    with pytest.raises(SnapshotError, match="cannot be read"):
        decode(b"\x93\x01")  # type: ignore[operator]


def test_newer_state_is_refused() -> None:
    """An older program does not guess at what a newer one has stored."""
    with pytest.raises(SnapshotError, match="newer than this program"):
        read_lane_state([LISTENING_VERSION + 1, 4, 0, 0, [0, {}]])
    with pytest.raises(SnapshotError, match="cannot be read"):
        read_lane_state([STATE_VERSION])


def test_detail_of_a_rejection_is_short_however_long_the_input() -> None:
    """The input is quoted in it, and it goes into a header of the dead letter."""
    rejected = decode_input(b'{"type":"' + b"x" * 100_000 + b'"}')
    assert isinstance(rejected, Rejected)
    assert (rejected.reason, len(rejected.detail)) == ("not_an_event", DETAIL_LENGTH)
