"""Where a store begins to read the input: at what is there, at what comes, or at a moment."""

from datetime import UTC, datetime, timedelta

START_ALLOWED = "earliest, latest, or a moment with its zone, such as 2026-11-25T00:00:00Z"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def start_ms(start: str) -> int | None:
    """Return the moment of a start in ms since 1970; None for a start that is a word.

    Raises ValueError for what is neither.
    """
    if start in ("earliest", "latest"):
        return None
    moment = datetime.fromisoformat(start)
    if moment.tzinfo is None:
        raise ValueError(f"{start} has no zone")
    since = moment - _EPOCH
    if since < timedelta(0):
        raise ValueError(f"{start} is before 1970")
    return since // timedelta(milliseconds=1)
