"""The records that are looked at: from a topic, or from a file of JSON lines."""

import sys
from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import IO

from msgspec import DecodeError, Struct
from msgspec.json import decode

from dataflows.messages import Headers
from session_logic.errors import ConfigError

BOM = b"\xef\xbb\xbf"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
# A longer line is no record: no broker takes it.
MAX_LINE_BYTES = 64_000_000


class SeenRecord(Struct, frozen=True, kw_only=True):
    """A record, with its name for a person; time_ms is its timestamp, None for one of a file."""

    name: str
    time_ms: int | None
    key: bytes | None
    value: bytes | None
    headers: Headers


def read_lines(path: str, last: int) -> list[SeenRecord]:
    """Return the last lines of a file as records without key, headers and timestamp.

    Raises ConfigError if it cannot be read, or has no lines of JSON.
    """
    try:
        with nullcontext(sys.stdin.buffer) if path == "-" else Path(path).open("rb") as file:
            numbered = deque(_lines(file, path), maxlen=last)
    except OSError as error:
        msg = f"--file {path} cannot be read: {error.strerror}"
        raise ConfigError(msg) from None
    if not numbered:
        raise ConfigError(f"--file {path} is empty: write one record in each line, as JSON")
    if not any(_is_json(line) for _, line in numbered):
        raise ConfigError(_no_json_lines(path, numbered[0][1]))
    return [
        SeenRecord(name=f"line {number}", time_ms=None, key=None, value=line, headers=[])
        for number, line in numbered
    ]


def _lines(file: IO[bytes], path: str) -> Iterator[tuple[int, bytes]]:
    """Yield each line that is not empty, with its number."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        if number == 1:
            if line.startswith(UTF_16):
                raise ConfigError(f"--file {path} looks like UTF-16: save it as UTF-8")
            line = line.removeprefix(BOM)  # of the file, and not of its first record
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            msg = f"--file {path}, line {number}: over {MAX_LINE_BYTES // 1_000_000} MB long"
            raise ConfigError(f"{msg}; write one record in each line")
        try:
            line.decode()
        except UnicodeDecodeError:
            msg = f"--file {path}, line {number}: this is not UTF-8; write one record in each line"
            raise ConfigError(msg) from None
        if line.strip():
            yield number, line.strip()


def _is_json(line: bytes) -> bool:
    """Say whether a line is a JSON object."""
    try:
        return isinstance(decode(line), dict)
    except (DecodeError, RecursionError):
        return False


def _no_json_lines(path: str, first: bytes) -> str:
    how = "`jq -c '.[]' FILE` makes that of an array" if first[:1] == b"[" else ""
    how = how or "`jq -c . FILE` makes that of JSON over several lines"
    return f"--file {path} has no line that is a JSON object: write one record in each line ({how})"
