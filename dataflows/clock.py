"""The wall clock, the only one that the dataflow reads."""

from datetime import UTC, datetime, timedelta
from time import time_ns

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now_ms() -> int:
    """Return the wall clock's time in milliseconds since 1970."""
    return time_ns() // 1_000_000


def at_ms(time_ms: int) -> datetime:
    """Return a time in milliseconds since 1970 as Bytewax wants it."""
    return _EPOCH + timedelta(milliseconds=time_ms)
