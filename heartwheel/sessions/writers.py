"""Sessions written as CSV, as JSON lines or as Parquet, some at a time."""

import csv
from typing import Any, BinaryIO, Literal, Protocol

import msgspec
from msgspec import UNSET, Raw

from heartwheel.sessions.shown import ShownSession
from session_logic.errors import ConfigError

Format = Literal["csv", "jsonl", "parquet"]
# All sessions that are shown are active.
COLUMNS = tuple(name for name in ShownSession.__struct_fields__ if name != "active")
# How many rows are together in a row group of Parquet.
GROUP_ROWS = 50_000
_encode_lines = msgspec.json.Encoder().encode_lines


class SessionWriter(Protocol):
    """Writes sessions to a file that somebody else closes."""

    def write(self, sessions: list[ShownSession]) -> None:
        """Write some sessions."""

    def finish(self) -> None:
        """Write what comes after the last one."""


class LinesWriter:
    """Writes a line of JSON for each session, as a listing over HTTP does."""

    def __init__(self, file: BinaryIO) -> None:
        """Write to a file."""
        self._file = file

    def write(self, sessions: list[ShownSession]) -> None:
        """Write some sessions."""
        self._file.write(_encode_lines(sessions))

    def finish(self) -> None:
        """Write nothing more."""


class CsvWriter:
    """Writes a line with the names of the columns, and one for each session."""

    def __init__(self, file: BinaryIO) -> None:
        """Write the names of the columns."""
        self._rows = csv.writer(_Utf8(file), lineterminator="\n")
        self._rows.writerow(COLUMNS)

    def write(self, sessions: list[ShownSession]) -> None:
        """Write some sessions; what a session does not have is empty."""
        self._rows.writerows(map(_cells, sessions))

    def finish(self) -> None:
        """Write nothing more."""


class ParquetWriter:
    """Writes a table with the same columns: text, whole numbers, and the context as JSON."""

    def __init__(self, file: BinaryIO) -> None:
        """Begin a table; raises ConfigError without pyarrow."""
        try:
            import pyarrow  # noqa: ICN001, PLC0415  # an extra, and slow to import
            import pyarrow.parquet  # noqa: PLC0415
        except ImportError:
            raise ConfigError(
                "Parquet needs pyarrow, which is not installed: "
                "pip install 'heartwheel[parquet]'; or take another --format"
            ) from None
        text, number = pyarrow.string(), pyarrow.int64()
        kinds = {"device_id": text, "session_id": text, "platform": text, "context": text}
        self._schema = pyarrow.schema([(name, kinds.get(name, number)) for name in COLUMNS])
        self._table = pyarrow.table
        self._writer = pyarrow.parquet.ParquetWriter(file, self._schema)
        self._rows: list[tuple[Any, ...]] = []

    def write(self, sessions: list[ShownSession]) -> None:
        """Keep some sessions until a row group is full."""
        self._rows += map(_cells, sessions)
        while len(self._rows) >= GROUP_ROWS:
            self._write(self._rows[:GROUP_ROWS])
            del self._rows[:GROUP_ROWS]

    def _write(self, rows: list[tuple[Any, ...]]) -> None:
        columns = [list(column) for column in zip(*rows, strict=True)]
        self._writer.write_table(self._table(columns, schema=self._schema))

    def finish(self) -> None:
        """Write the last row group and what tells where all of them are."""
        if self._rows:
            self._write(self._rows)
        self._writer.close()


class _Utf8:
    """Takes text for a file of bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        return self._file.write(text.encode())


def _cells(session: ShownSession) -> tuple[Any, ...]:
    """Return the values of a session by column; None for what it does not have."""
    return tuple(_cell(getattr(session, name)) for name in COLUMNS)


def _cell(value: Any) -> Any:
    if value is UNSET:
        return None
    return bytes(value).decode() if isinstance(value, Raw) else value


WRITERS: dict[Format, type[LinesWriter | CsvWriter | ParquetWriter]] = {
    "csv": CsvWriter,
    "jsonl": LinesWriter,
    "parquet": ParquetWriter,
}
