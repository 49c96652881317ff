"""Dead letters as rows of a table and as JSON."""

from typing import Any

from msgspec import to_builtins

from dataflows.text import printable
from heartwheel.kafka.dead_letters import StoredDeadLetter
from heartwheel.text import moment_text, text_or_bytes

MAX_COLUMNS = 60  # of a key or a detail in the list


def list_row(letter: StoredDeadLetter) -> dict[str, Any]:
    """Return a dead letter as a row of the list."""
    return {
        "dead letter": letter.name,
        "rejected at": moment_text(letter.written_ms),
        "reason": printable(letter.reason),
        "from": printable(source(letter)),
        "key": printable(letter.key)[:MAX_COLUMNS],
        "state": letter.state,
        "requeues": letter.requeues,
        "detail": printable(letter.detail)[:MAX_COLUMNS],
    }


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
        "value": "none" if letter.value is None else f"{len(letter.value)} bytes",
    }
    return [{"dead letter": name, letter.name: value} for name, value in values.items()]


def as_json(letter: StoredDeadLetter) -> dict[str, Any]:
    """Return a dead letter as JSON; bytes that are no text are base64, as in a recording."""
    origin = letter.origin
    place = origin and {**origin.record._asdict(), "time_ms": origin.time_ms}
    plain: dict[str, Any] = to_builtins(letter) | {"place": place, "letter": letter.name}
    del plain["origin"]
    for field in ("key", "value"):
        text, data = text_or_bytes(getattr(letter, field))
        plain[field] = text
        if data is not None:
            plain[f"{field}_base64"] = to_builtins(data)
    return plain


def source(letter: StoredDeadLetter) -> str:
    """Return where the input record of a dead letter is."""
    if letter.origin is None:
        return "-"
    topic, partition, offset = letter.origin.record
    return f"{topic}/{partition} offset {offset}"
