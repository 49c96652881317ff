"""A recording: what topics of a Kafka held, in one file of zstd frames of JSON lines.

The header comes first, then frames with records of one partition each, in offset order, at last
the manifest, and where it begins, in a frame that zstd tools skip. Each frame has a checksum, so
a cut or damaged file is noticed, and what a killed recorder has written stays good.
"""

import hashlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec
from backports import zstd
from msgspec import Struct

from dataflows.settings import Settings
from session_logic.errors import HeartwheelError

FORMAT = 1
# The settings that decide, with the input, what the output is.
SETTINGS = (
    "input_topics",
    "output_topic",
    "dead_letter_topic",
    "lanes",
    "heartbeat_ms",
    "max_session_ms",
    "deduplication_window_ms",
    "max_clock_skew_ms",
    "max_record_bytes",
    "catch_up",
)
# What a setting is called in the file, where it has been renamed since.
STORED_NAMES = {
    "deduplication_window_ms": "remember_ended_ms",
    "max_clock_skew_ms": "future_limit_ms",
    "max_record_bytes": "value_limit_bytes",
}
_NAMES = {stored: name for name, stored in STORED_NAMES.items()}
ZSTD_OPTIONS: dict[int, int] = {
    zstd.CompressionParameter.compression_level: 3,
    zstd.CompressionParameter.checksum_flag: 1,
}
BLOCK_BYTES = 1 << 20
# A frame that zstd tools skip: magic number, length, and the place of the manifest.
TAIL = struct.Struct("<IIQ")
TAIL_MAGIC = 0x184D2A5E


class RecordingError(HeartwheelError):
    """A recording is damaged, cut off or none: put back a whole copy, or record again."""


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

    def header_bytes(self) -> list[tuple[str, str | bytes | None]]:
        """Return the headers as they were."""
        return [
            (header.name, header.value_base64 if header.value is None else header.value.encode())
            for header in self.headers
        ]


class Preface(Struct, frozen=True):
    """The first line: what was asked for.

    starts is the first offset of each "topic/partition"; from_ms the time to begin at, if any.
    """

    heartwheel_recording: int
    version: str
    settings: dict[str, Any]
    starts: dict[str, int]
    from_ms: int | None = None


class Extent(Struct):
    """What there is of a partition; sha256 is that of its lines, latest_ms its last timestamp."""

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


class Manifest(Struct, frozen=True, tag_field="heartwheel_manifest", tag=FORMAT):
    """The last line: everything that is in the file, complete up to complete_ms."""

    preface: Preface
    complete_ms: int
    partitions: dict[str, Extent]
    chunks: list[Chunk]


encode_line = msgspec.json.Encoder().encode
decode_lines = msgspec.json.Decoder(Line).decode_lines
_decode_preface = msgspec.json.Decoder(Preface).decode
_decode_manifest = msgspec.json.Decoder(Manifest).decode


def text_or_bytes(data: bytes | str | None) -> tuple[str | None, bytes | None]:
    """Return bytes as text if they are UTF-8, else as bytes; None for what is not there."""
    if data is None or isinstance(data, str):
        return data, None
    try:
        return data.decode(), None
    except UnicodeDecodeError:
        return None, data


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
    """Raise RecordingError, with file and place, for whatever cannot be read there."""
    try:
        yield
    except (zstd.ZstdError, msgspec.MsgspecError, OSError, MemoryError) as error:
        msg = (
            f"recording {path} is damaged at byte {at} ({error}); put back a whole copy of it, "
            "or record again under another name"
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
    plain = msgspec.to_builtins(settings)
    return {STORED_NAMES.get(name, name): plain[name] for name in SETTINGS}


def not_a_recording(path: Path) -> RecordingError:
    """Return the error for a file that `heartwheel record` has not made."""
    return RecordingError(f"{path} is not a Heartwheel recording; give a file of `record`")


def frames(file: BinaryIO, path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yield (place, size, content) of every whole frame; a cut one ends it.

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


class Recording:
    """A complete recording, to read from."""

    def __init__(self, path: Path) -> None:
        """Open it; raises RecordingError if it is none, not complete, or damaged."""
        self.path = path
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                self._check_first(file)
                manifest_at = self._manifest_at(file, size)
        except OSError as error:
            msg = f"recording {path} cannot be read: {error.strerror}"
            raise RecordingError(msg) from None
        data = self._read(manifest_at, size - TAIL.size - manifest_at)
        with damage(path, manifest_at):
            self.manifest = _decode_manifest(data)
        self._chunks: dict[str, list[Chunk]] = {name: [] for name in self.manifest.partitions}
        for chunk in self.manifest.chunks:
            self._chunks[chunk.partition].append(chunk)

    def _check_first(self, file: BinaryIO) -> None:
        try:
            _, _, data = next(frames(file, self.path))
        except (StopIteration, RecordingError):
            raise not_a_recording(self.path) from None
        read_preface(self.path, data)

    def _manifest_at(self, file: BinaryIO, size: int) -> int:
        file.seek(max(0, size - TAIL.size))
        data = file.read()
        if len(data) == TAIL.size:
            magic, length, at = TAIL.unpack(data)
            if (magic, length) == (TAIL_MAGIC, TAIL.size - 8) and at < size:
                return int(at)
        raise RecordingError(
            f"recording {self.path} is not complete: it was cut off, or is still being made; "
            "`heartwheel record` with the same file and settings completes it"
        )

    def _read(self, at: int, size: int) -> bytes:
        with damage(self.path, at), self.path.open("rb") as file:
            file.seek(at)
            return zstd.decompress(file.read(size))

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the recorded run."""
        stored = self.manifest.preface.settings
        return {_NAMES.get(name, name): value for name, value in stored.items()}

    def partitions(self, topics: list[str]) -> list[str]:
        """Return the names of the partitions of some topics."""
        return [name for name in self.manifest.partitions if name.rpartition("/")[0] in topics]

    def from_ms(self) -> int | None:
        """Return the time before which input may be missing, or None if none is."""
        preface = self.manifest.preface
        if preface.from_ms is not None:
            return preface.from_ms
        return max(
            (
                self._chunks[name][0].least_ms
                for name in self.partitions(list(self.settings["input_topics"]))
                if preface.starts[name] > 0 and self._chunks[name]
            ),
            default=None,
        )

    def read(self, name: str) -> Iterator[tuple[Chunk, list[Line]]]:
        """Yield the chunks of a partition with their records, in offset order.

        Raises RecordingError for damage, or for other records than the manifest tells of.
        """
        sha256, extent, last, records = hashlib.sha256(), self.manifest.partitions[name], -1, 0
        for chunk in self._chunks[name]:
            data = self._read(chunk.at, chunk.size)
            sha256.update(data)
            with damage(self.path, chunk.at):
                lines = decode_lines(data)
            records += len(lines)
            last = lines[-1].offset if lines else last
            yield chunk, lines
        if (sha256.hexdigest(), records, last) != (extent.sha256, extent.records, extent.last):
            msg = (
                f"recording {self.path}: the records of {name} are not those that its manifest "
                "tells of; put back a whole copy of it, or record again"
            )
            raise RecordingError(msg)
