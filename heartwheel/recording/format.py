"""The format of a recording: what topics of a Kafka held, as zstd frames of JSON lines.

1. The preface: version, settings, and the first offset of each partition.
2. Frames of records, each of one partition and in offset order.
3. The manifest: where every frame is, and a checksum for each partition.
4. The place of the manifest, in a frame that zstd tools skip.

Each frame has a checksum of its own. A cut or damaged file is therefore noticed, and the whole
frames that a killed recorder has written stay good.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec
from backports import zstd
from msgspec import Struct

from dataflows.avro.registry import SchemaText
from dataflows.settings import Settings
from session_logic.errors import HeartwheelError

FORMAT = 4
# Written where devices come to lanes by their hash and no topic is for consumers of their own,
# nothing listens to silence, or there are no input tables: earlier programs know no such settings.
FORMAT_WITHOUT_TOPICS = 3
FORMAT_WITHOUT_SILENCE = 2
FORMAT_WITHOUT_TABLES = 1
MANIFEST = 1
# The settings that decide, with the input, what the output is.
SETTINGS = (
    "input_topics",
    "inputs",
    "output_topic",
    "dead_letter_topic",
    "lanes",
    "heartbeat_ms",
    "max_session_ms",
    "deduplication_window_ms",
    "max_clock_skew_ms",
    "late_limit_ms",
    "max_record_bytes",
    "catch_up",
    "carry_in_heartbeats",
    "registry_url",
    "idle_timeout_ms",
    "heartbeat_topic",
    "summary_topic",
    "table_topic",
    "route",
)
# What a setting is called in the file, where it has been renamed since.
STORED_NAMES = {
    "deduplication_window_ms": "remember_ended_ms",
    "max_clock_skew_ms": "future_limit_ms",
    "max_record_bytes": "value_limit_bytes",
}
# What a recording without input tables lacks.
WITHOUT_TABLES: dict[str, Any] = {
    "inputs": {},
    "late_limit_ms": 86_400_000,
    "registry_url": "",
    "carry_in_heartbeats": True,
}
WITHOUT_SILENCE: dict[str, Any] = {"idle_timeout_ms": 0}
WITHOUT_TOPICS: dict[str, Any] = {"heartbeat_topic": "", "summary_topic": "", "table_topic": ""}
WITHOUT_ROUTE: dict[str, Any] = {"route": "hash"}
CURRENT_NAMES = {stored: name for name, stored in STORED_NAMES.items()}
ZSTD_OPTIONS: dict[int, int] = {
    zstd.CompressionParameter.compression_level: 3,
    zstd.CompressionParameter.checksum_flag: 1,
}
BLOCK_BYTES = 1 << 20
FRAME_MAGIC = b"\x28\xb5\x2f\xfd"  # RFC 8878, section 3.1.1
# A frame that zstd tools skip: magic number, length, and the place of the manifest.
TAIL = struct.Struct("<IIQ")
TAIL_MAGIC = 0x184D2A5E


class RecordingError(HeartwheelError):
    """A recording is damaged or incomplete, or is no recording: restore a copy, or record again."""


class Header(Struct, omit_defaults=True, gc=False, frozen=True):
    """A header of a record; bytes that are no text are in value_base64."""

    name: str
    value: str | None = None
    value_base64: bytes | None = None


class Line(Struct, omit_defaults=True, gc=False, frozen=True):
    """A record of a topic; bytes that are no text are in key_base64 and value_base64."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    timestamp_type: Literal["create", "append"] = "create"
    key: str | None = None
    key_base64: bytes | None = None
    value: str | None = None
    value_base64: bytes | None = None
    headers: list[Header] = []

    def key_bytes(self) -> bytes | None:
        """Return the key as it was."""
        return self.key_base64 if self.key is None else self.key.encode()

    def value_bytes(self) -> bytes | None:
        """Return the value as it was."""
        return self.value_base64 if self.value is None else self.value.encode()

    def header_bytes(self) -> list[tuple[str, bytes | None]]:
        """Return the headers as they were."""
        return [
            (header.name, header.value_base64 if header.value is None else header.value.encode())
            for header in self.headers
        ]


class Preface(Struct, frozen=True):
    """The first line: what to record.

    starts is the first offset of each "topic/partition"; from_ms the time to begin at, if any.
    """

    heartwheel_recording: int
    version: str
    settings: dict[str, Any]
    starts: dict[str, int]
    from_ms: int | None = None


class Extent(Struct):
    """The records of a partition; sha256 is that of its lines, latest_ms the latest timestamp."""

    records: int = 0
    first: int = -1
    last: int = -1
    latest_ms: int = 0
    sha256: str = ""


class Chunk(Struct, frozen=True):
    """A frame of records: where it is in the file, and the least timestamp in it."""

    partition: str
    at: int
    size: int
    records: int
    least_ms: int


class Manifest(
    Struct, frozen=True, omit_defaults=True, tag_field="heartwheel_manifest", tag=MANIFEST
):
    """The last line: everything that is in the file, complete up to complete_ms.

    schemas are those of records in Avro, by their ids.
    """

    preface: Preface
    complete_ms: int
    partitions: dict[str, Extent]
    chunks: list[Chunk]
    schemas: dict[str, SchemaText] = {}


encode_line = msgspec.json.Encoder().encode
decode_lines = msgspec.json.Decoder(Line).decode_lines
_decode_preface = msgspec.json.Decoder(Preface).decode
decode_manifest = msgspec.json.Decoder(Manifest).decode


def part_name(topic: str, partition: int) -> str:
    """Return the name of a partition in the manifest."""
    return f"{topic}/{partition}"


def pack(data: bytes) -> bytes:
    """Return lines as a frame with a checksum."""
    return zstd.compress(data, options=ZSTD_OPTIONS)


def tail(manifest_at: int) -> bytes:
    """Return the end of a complete file."""
    return TAIL.pack(TAIL_MAGIC, TAIL.size - 8, manifest_at)


@contextmanager
def damage(path: Path, at: int) -> Iterator[None]:
    """Raise RecordingError, with file and byte, for whatever cannot be read there."""
    try:
        yield
    except (zstd.ZstdError, msgspec.MsgspecError, OSError, MemoryError) as error:
        msg = (
            f"recording {path} is damaged at byte {at} ({error}); restore an intact copy, or "
            "record again under another name"
        )
        raise RecordingError(msg) from None


def read_preface(path: Path, data: bytes) -> Preface:
    """Return the preface; raises RecordingError if this program cannot read the recording."""
    try:
        preface = _decode_preface(data)
    except msgspec.MsgspecError:
        raise not_a_recording(path) from None
    if preface.heartwheel_recording > FORMAT:
        msg = (
            f"recording {path} has format {preface.heartwheel_recording}, newer than this program "
            f"knows ({FORMAT}); use Heartwheel {preface.version} or later"
        )
        raise RecordingError(msg)
    return preface


def stored_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings that a recording holds, under the names that it has for them."""
    plain = msgspec.json.decode(msgspec.json.encode(settings))  # as it will be read
    left_out = {
        FORMAT_WITHOUT_TABLES: WITHOUT_TABLES | WITHOUT_SILENCE | WITHOUT_TOPICS | WITHOUT_ROUTE,
        FORMAT_WITHOUT_SILENCE: WITHOUT_SILENCE | WITHOUT_TOPICS | WITHOUT_ROUTE,
        FORMAT_WITHOUT_TOPICS: WITHOUT_TOPICS | WITHOUT_ROUTE,
    }.get(format_of(settings), {})
    names = [name for name in SETTINGS if name not in left_out]
    return {STORED_NAMES.get(name, name): plain[name] for name in names}


def format_of(settings: Settings) -> int:
    """Return the earliest format that holds a recording with these settings."""
    if settings.topics_apart or settings.route != "hash":
        return FORMAT
    opens = any(table.open_on_ping for table in settings.inputs.values())
    if settings.idle_timeouts_ms or opens:
        return FORMAT_WITHOUT_TOPICS
    return FORMAT_WITHOUT_SILENCE if settings.inputs else FORMAT_WITHOUT_TABLES


def not_a_recording(path: Path) -> RecordingError:
    """Return the error for a file that `heartwheel record` has not made."""
    return RecordingError(f"{path} is not a Heartwheel recording; give a file of `record`")


def frames(file: BinaryIO, path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yield (first byte, size, content) of every whole frame, up to one that is cut off.

    Raises RecordingError for a damaged frame.
    """
    at, rest = 0, b""
    while True:
        decompressor, parts, size = zstd.ZstdDecompressor(), [], 0
        while not decompressor.eof:
            block = rest or file.read(BLOCK_BYTES)
            if not block:
                return
            with damage(path, at):
                parts.append(decompressor.decompress(block))
            size, rest = size + len(block), b""
        rest = decompressor.unused_data
        size -= len(rest)
        yield at, size, b"".join(parts)
        at += size
