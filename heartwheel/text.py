"""Bytes and times as text."""

from datetime import UTC, datetime, timedelta

UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def text_or_bytes(data: bytes | str | None) -> tuple[str | None, bytes | None]:
    """Return bytes as text if they are UTF-8, else as bytes; None for what is not there."""
    if data is None or isinstance(data, str):
        return data, None
    try:
        return data.decode(), None
    except UnicodeDecodeError:
        return None, data


def duration_text(time_ms: int) -> str:
    """Return a time in the largest unit that it is a whole number of."""
    if time_ms < 0:
        return "forever"
    unit = next(unit for unit in reversed(UNITS_MS) if time_ms % UNITS_MS[unit] == 0)
    return f"{time_ms // UNITS_MS[unit]} {unit}"


def moment_text(time_ms: int) -> str:
    """Return a time in ms since 1970 as text; `never` for what is none."""
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)
    except OverflowError:
        return "never"
    if time_ms < 0:
        return "never"
    return moment.isoformat(" ", "milliseconds").removesuffix("+00:00") + "Z"
