"""Whether values are times, in which unit, and how far they are from the records' timestamps."""

from collections.abc import Iterable, Sequence
from statistics import median

from msgspec import Struct

from heartwheel.events.fields import Scalar, text_of
from heartwheel.text import UNITS_MS
from session_logic.event_time import TimeUnit, time_reader

# 2000 to 2100: a time outside was written in another unit, or is none.
EARLIEST_MS, LATEST_MS = 946_684_800_000, 4_102_444_800_000
NANOS_PER_MS = 1_000_000
MAX_DIGITS = 20
MOST = 0.95
UNITS: tuple[TimeUnit, ...] = ("iso", "s", "ms", "us")
UNIT_NAMES: dict[TimeUnit, str] = {
    "iso": "ISO 8601",
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
}


class Reading(Struct, frozen=True):
    """The unit in which values are times; how long, in the middle, their records were after them.

    apart_ms is None where no record has a timestamp.
    """

    unit: TimeUnit
    apart_ms: int | None


def reading_of(
    values: Sequence[tuple[Scalar, int | None]], first: TimeUnit = "iso"
) -> Reading | None:
    """Return how values are times, or None; each comes with the timestamp of its record, if any.

    A time of Avro is read in any unit, so the one that is wanted is tried first.
    """
    for unit in (first, *UNITS):
        read = time_reader(unit)
        found = [
            (time_ms, stamp_ms)
            for value, stamp_ms in values
            if (time_ms := read(value)) is not None and EARLIEST_MS <= time_ms <= LATEST_MS
        ]
        if found and len(found) >= MOST * len(values):
            apart = [
                stamp_ms - time_ms
                for time_ms, stamp_ms in found
                if stamp_ms is not None and stamp_ms >= 0
            ]
            return Reading(unit, round(median(apart)) if apart else None)
    return None


def are_nanoseconds(values: Iterable[Scalar]) -> bool:
    """Say whether whole numbers are nanoseconds since 1970, which no table reads."""
    return all(
        text.isdecimal()
        and len(text) < MAX_DIGITS
        and EARLIEST_MS <= int(text) // NANOS_PER_MS <= LATEST_MS
        for text in map(text_of, values)
    )


def distance_text(time_ms: int) -> str:
    """Return a distance in time in the largest unit of which there is at least one."""
    for name in reversed(UNITS_MS):
        if abs(time_ms) >= UNITS_MS[name]:
            return f"{abs(time_ms) / UNITS_MS[name]:.1f} {name}".replace(".0 ", " ")
    return "0 ms"
