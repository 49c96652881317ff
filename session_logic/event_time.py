"""The time of an event as senders write it, in milliseconds since 1970."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import ClassVar, Literal

TimeUnit = Literal["iso", "s", "ms", "us"]
# What a value must be, in words.
NEEDED: dict[TimeUnit, str] = {
    "iso": "a time such as 2025-11-01T00:06:45.000Z",
    "s": "seconds since 1970",
    "ms": "milliseconds since 1970",
    "us": "microseconds since 1970",
}
ReadTime = Callable[[object], int | None]

# Numbers beyond this are no time in any unit.
LIMIT = 10**18
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_S = 86_400
# After the date, 2025-11-01 or 20251101.
_SEPARATORS = {"T", "t", " "}
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?")
# Written by some after a space, where ISO 8601 has none.
_ZONE = re.compile(r" (UTC|GMT|Z|(?=[+-]\d))")


class Timestamp(int):
    """A time in a unit that comes with it, so that no table need say it: whole, since 1970."""

    __slots__ = ()
    per_ms: ClassVar[int] = 1

    @property
    def ms(self) -> int:
        """The time in milliseconds."""
        return int(self) // self.per_ms


class Millis(Timestamp):
    """Milliseconds."""

    __slots__ = ()


class Micros(Timestamp):
    """Microseconds."""

    __slots__ = ()
    per_ms = 1_000


class Nanos(Timestamp):
    """Nanoseconds."""

    __slots__ = ()
    per_ms = 1_000_000


def time_reader(unit: TimeUnit) -> ReadTime:
    """Return what reads a time of this unit; it returns None for what is none, and never raises."""
    return {"iso": read_iso, "s": _read_s, "ms": _read_ms, "us": _read_us}[unit]


def read_iso(value: object) -> int | None:
    """Return the time that ISO 8601 text tells; without a zone it is UTC."""
    if not isinstance(value, str):
        return _own_ms(value)
    if value[10:11] not in _SEPARATORS and value[8:9] not in _SEPARATORS:
        return None  # no time of day, or a number
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        try:
            moment = datetime.fromisoformat(_ZONE.sub(_zone, value.upper()))
        except ValueError:
            return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - _EPOCH
    return (since.days * _DAY_S + since.seconds) * 1000 + since.microseconds // 1000


def _zone(found: re.Match[str]) -> str:
    return "Z" if found[1] else ""


def _read_s(value: object) -> int | None:
    number = _number(value)
    if isinstance(number, float):
        # By way of microseconds, so that 1.001 is 1,001 ms whatever its binary digits are.
        return round(number * 1_000_000) // 1000
    return _own_ms(value) if number is None else number * 1000


def _read_ms(value: object) -> int | None:
    number = _number(value)
    return _own_ms(value) if number is None else int(number // 1)


def _read_us(value: object) -> int | None:
    number = _number(value)
    return _own_ms(value) if number is None else int(number // 1000)


def _own_ms(value: object) -> int | None:
    """Return the time that a value tells in its own unit."""
    return value.ms if isinstance(value, Timestamp) else None


def _number(value: object) -> int | float | None:
    """Return a number that is one or is written as text."""
    if isinstance(value, str):
        found = _NUMBER.fullmatch(value)
        if found is None:
            return None
        value = float(value) if found[1] else int(value)
    if type(value) not in (int, float):
        return None
    number: int | float = value  # type: ignore[assignment]  # as just looked at
    return number if -LIMIT < number < LIMIT else None
