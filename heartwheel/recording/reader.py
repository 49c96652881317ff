"""The reader of a complete recording."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from backports import zstd

from heartwheel.recording.format import (
    CURRENT_NAMES,
    TAIL,
    TAIL_MAGIC,
    WITHOUT_ROUTE,
    WITHOUT_SILENCE,
    WITHOUT_TABLES,
    WITHOUT_TOPICS,
    Chunk,
    Line,
    RecordingError,
    damage,
    decode_lines,
    decode_manifest,
    frames,
    not_a_recording,
    read_preface,
)


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
            self.manifest = decode_manifest(data)
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
        return (
            WITHOUT_TABLES
            | WITHOUT_SILENCE
            | WITHOUT_TOPICS
            | WITHOUT_ROUTE
            | {CURRENT_NAMES.get(name, name): value for name, value in stored.items()}
        )

    @property
    def input_topics(self) -> list[str]:
        """Every input topic of the recorded run, with a table or without."""
        settings = self.settings
        return [*settings["input_topics"], *settings["inputs"]]

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
                for name in self.partitions(self.input_topics)
                if preface.starts[name] > 0 and self._chunks[name]
            ),
            default=None,
        )

    def read(self, name: str) -> Iterator[tuple[Chunk, list[Line]]]:
        """Yield the chunks of a partition with their records, in offset order; none if it had none.

        Of two topics that lanes write to, one may have more partitions than the other, all of them
        empty. Raises RecordingError for damage, or for other records than the manifest tells of.
        """
        if name not in self.manifest.partitions:
            return
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
                f"recording {self.path}: the records of {name} do not match its manifest; "
                "restore an intact copy, or record again"
            )
            raise RecordingError(msg)
