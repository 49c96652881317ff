"""The writer of a recording; it continues after the last whole frame of a file."""

import fcntl
import hashlib
import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from dataflows.avro.registry import SchemaText
from dataflows.errors import make_room
from heartwheel.recording.format import (
    FRAME_MAGIC,
    TAIL,
    Chunk,
    Extent,
    Line,
    Manifest,
    Preface,
    RecordingError,
    damage,
    decode_lines,
    encode_line,
    frames,
    not_a_recording,
    pack,
    part_name,
    read_preface,
    tail,
)
from session_logic.errors import ConfigError, HeartwheelError

# Lines of all partitions together that wait to be written as frames, at most.
MAX_BUFFER_BYTES = 16 << 20


class Writer:
    """A recording that is being made; it begins with the whole frames that the file has."""

    def __init__(
        self,
        path: Path,
        wanted: Callable[[], Preface],
        settings: dict[str, Any],
        note_lines: Callable[[list[Line]], None] = lambda _: None,
    ) -> None:
        """Open the file, or create it with the wanted preface.

        note_lines gets all records that the file has, and then each that is written.

        Raises ConfigError if it is complete, in use, or made with other settings, RecordingError
        if it is damaged or no recording.
        """
        self._path = path
        self._note_lines = note_lines
        self._chunks: list[Chunk] = []
        self._sha256: defaultdict[str, Any] = defaultdict(hashlib.sha256)
        self._lines: defaultdict[str, list[bytes]] = defaultdict(list)
        self._bytes = 0
        self.extents: defaultdict[str, Extent] = defaultdict(Extent)
        try:
            if not path.exists():
                self._make(wanted())
            self._file: BinaryIO = path.open("r+b")
        except OSError as error:
            msg = (
                f"recording {path} cannot be made ({error.strerror or error}); name another file, "
                f"or {make_room()}"
            )
            raise ConfigError(msg) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._resume(settings)
        except BlockingIOError:
            self.close()
            raise ConfigError(f"another `heartwheel record` writes to {path}") from None
        except HeartwheelError:
            self.close()
            raise

    def _make(self, preface: Preface) -> None:
        """Create the file together with its preface: one without a preface is never ours."""
        part = self._path.with_name(f"{self._path.name}.part")
        try:
            part.write_bytes(pack(encode_line(preface) + b"\n"))
            part.replace(self._path)
        except OSError:
            part.unlink(missing_ok=True)
            raise

    def _resume(self, settings: dict[str, Any]) -> None:
        end = 0
        if self._file.read(len(FRAME_MAGIC)) != FRAME_MAGIC:
            raise not_a_recording(self._path)
        self._file.seek(0)
        for at, size, data in frames(self._file, self._path):
            if at == 0:
                self.preface = read_preface(self._path, data)
            elif data.startswith(b'{"heartwheel_manifest"'):
                if os.fstat(self._file.fileno()).st_size < at + size + TAIL.size:
                    break  # it was cut off at its very end, and is to be finished again
                msg = f"recording {self._path} is already complete; give another file"
                raise ConfigError(msg)
            else:
                with damage(self._path, at):
                    lines = decode_lines(data)
                self._note(at, size, data, lines)
            end = at + size
        if end == 0:
            raise not_a_recording(self._path)
        stored = self.preface.settings  # a file of an earlier version may have fewer
        other = [name for name, value in stored.items() if value != settings.get(name)]
        if other:
            msg = (
                f"recording {self._path} was begun with another {', '.join(other)}; set it as it "
                "was, or give another file"
            )
            raise ConfigError(msg)
        self._file.seek(end)
        self._file.truncate()

    def _note(self, at: int, size: int, data: bytes, lines: list[Line]) -> None:
        """Add a frame that is in the file to the manifest."""
        name = part_name(lines[0].topic, lines[0].partition)
        extent = self.extents[name]
        times = [line.timestamp_ms for line in lines]
        self._chunks.append(Chunk(name, at, size, len(lines), min(times)))
        self._sha256[name].update(data)
        self._note_lines(lines)
        self.extents[name] = Extent(
            extent.records + len(lines),
            extent.first if extent.records else lines[0].offset,
            lines[-1].offset,
            max(extent.latest_ms, *times),
        )

    def add(self, line: Line) -> None:
        """Add the next record of a partition."""
        data = encode_line(line)
        self._lines[part_name(line.topic, line.partition)].append(data)
        self._bytes += len(data)
        if self._bytes >= MAX_BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what waits, a frame for each partition."""
        for encoded in self._lines.values():
            data = b"\n".join(encoded) + b"\n"
            at, size = self._write(pack(data))
            self._note(at, size, data, decode_lines(data))
        self._lines.clear()
        self._bytes = 0

    def finish(self, complete_ms: int, schemas: dict[str, SchemaText] | None = None) -> Manifest:
        """Write the manifest; the recording is complete then."""
        self.flush()
        for name in self.preface.starts:
            self.extents[name].sha256 = self._sha256[name].hexdigest()
        manifest = Manifest(
            self.preface, complete_ms, dict(self.extents), self._chunks, schemas or {}
        )
        at, _ = self._write(pack(encode_line(manifest) + b"\n"))
        self._write(tail(at))
        os.fsync(self._file.fileno())
        self.close()
        return manifest

    def close(self) -> None:
        """Close the file; another writer can continue it."""
        self._file.close()

    def _write(self, frame: bytes) -> tuple[int, int]:
        """Append a frame; return where it is and its size."""
        at = self._file.tell()
        try:
            self._file.write(frame)
            self._file.flush()
        except OSError as error:
            msg = (
                f"recording {self._path} cannot be written ({error.strerror}); {make_room()}, then "
                "run the same command again: it resumes"
            )
            raise RecordingError(msg) from None
        return at, len(frame)
