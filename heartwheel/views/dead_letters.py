"""Dead letters as rows of a table and as JSON."""

from typing import Any

from msgspec import to_builtins

from dataflows.messages import Headers
from dataflows.text import printable
from heartwheel.kafka.dead_letters import StoredDeadLetter
from heartwheel.text import moment_text, text_or_bytes

MAX_COLUMNS = 60  # of a key or a detail in the list
MAX_KEY_COLUMNS = 20  # of a key in the list on a terminal


def list_row(letter: StoredDeadLetter) -> dict[str, Any]:
    """Return a dead letter as a row of the list."""
    return {
        "dead letter": letter.name,
        "rejected at": moment_text(letter.written_ms),
        "reason": printable(letter.reason),
        "from": printable(source(letter)),
        "key": _cut(printable(letter.key), MAX_COLUMNS),
        "state": letter.state,
        "requeues": letter.requeues,
        "detail": _cut(printable(letter.detail), MAX_COLUMNS),
    }


def list_lines(letters: list[StoredDeadLetter], columns: int) -> list[str]:
    """Return dead letters as the list shows them on a terminal: two lines each, cut to its width.

    A table of eight columns would be folded there.
    """
    rows = [
        (
            letter.name,
            moment_text(letter.written_ms).partition(".")[0],
            printable(letter.reason),
            printable(source(letter)),
            letter.state + (f" {letter.requeues}x" if letter.requeues else ""),
            _cut(printable(letter.key), MAX_KEY_COLUMNS),
        )
        for letter in letters
    ]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = []
    for letter, row in zip(letters, rows, strict=True):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines += ["  ".join(cells).rstrip(), f"    {printable(letter.detail)}"]
    return [_cut(line, columns) for line in lines]


def show_rows(letter: StoredDeadLetter) -> list[dict[str, Any]]:
    """Return a dead letter as a table of two columns, without its value."""
    values = {
        "rejected at": moment_text(letter.written_ms),
        "from": printable(source(letter)),
        "timestamped": moment_text(letter.origin.time_ms) if letter.origin else "-",
        "reason": printable(letter.reason),
        "detail": printable(letter.detail),
        "state": letter.state,
        "requeues": letter.requeues,
        "key": printable(letter.key),
        **({"headers": _headers_text(letter.headers)} if letter.headers else {}),
        "value": "none" if letter.value is None else f"{len(letter.value)} bytes",
    }
    return [{"dead letter": name, letter.name: value} for name, value in values.items()]


def as_json(letter: StoredDeadLetter) -> dict[str, Any]:
    """Return a dead letter as JSON; bytes that are no text are base64, as in a recording."""
    origin = letter.origin
    place = origin and {**origin.record._asdict(), "time_ms": origin.time_ms}
    plain: dict[str, Any] = to_builtins(letter) | {"place": place, "letter": letter.name}
    del plain["origin"]
    plain["headers"] = [_header(name, data) for name, data in letter.headers]
    for field in ("key", "value"):
        text, data = text_or_bytes(getattr(letter, field))
        plain[field] = text
        if data is not None:
            plain[f"{field}_base64"] = to_builtins(data)
    return plain


def _header(name: str, data: bytes | None) -> dict[str, Any]:
    text, raw = text_or_bytes(data)
    plain = {"name": name, "value": text}
    return plain if raw is None else {**plain, "value_base64": to_builtins(raw)}


def _headers_text(headers: Headers) -> str:
    texts = (f"{name}={(data or b'').decode(errors='backslashreplace')}" for name, data in headers)
    return printable(", ".join(texts))


def _cut(text: str, columns: int) -> str:
    return text if len(text) <= columns else f"{text[: columns - 1]}…"


def source(letter: StoredDeadLetter) -> str:
    """Return where the input record of a dead letter is."""
    if letter.origin is None:
        return "-"
    topic, partition, offset = letter.origin.record
    return f"{topic}/{partition} offset {offset}"
