"""Whether the input's timestamps fit this machine's clock, as far as the last minute tells.

One event in the future is a sender whose clock is wrong. Where most of the input is, or is long
past although nothing waits to be read, the clock that judges it is: this machine's, or the broker's
that sets the timestamps.
"""

from collections import Counter, deque
from collections.abc import Sequence
from threading import Lock
from typing import Literal, get_args

# A record that arrives so long after its timestamp, though all input has been read, is long past.
LONG_PAST_MS = 3_600_000
WINDOW_MS = 60_000
# Fewer records than this tell nothing.
MIN_RECORDS = 10

Kind = Literal["in_time", "in_the_future", "long_past"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_UNFIT: dict[Kind, str] = {
    "in_the_future": "in the future",
    "long_past": f"over {LONG_PAST_MS // 60_000} minutes old on arrival",
}


class Timestamps:
    """Counts the records of a process by how their timestamps compare with its clock.

    totals are those of the whole run.
    """

    def __init__(self) -> None:
        """Begin with nothing counted."""
        self._lock = Lock()  # worker threads share it
        self._seconds: deque[tuple[int, Counter[Kind]]] = deque()
        self.totals: Counter[Kind] = Counter()

    def note(self, now_ms: int, times_ms: Sequence[int], latest_ms: int, *, at_end: bool) -> None:
        """Count records that have come: after latest_ms is in the future.

        Only with at_end, when nothing waited to be read, one can be long past.
        """
        earliest_ms = now_ms - LONG_PAST_MS if at_end else 0
        future = past = 0
        if times_ms and not earliest_ms <= min(times_ms) <= max(times_ms) <= latest_ms:
            for time_ms in times_ms:
                if time_ms > latest_ms:
                    future += 1
                elif 0 <= time_ms < earliest_ms:
                    past += 1
        with self._lock:
            self._count("in_time", len(times_ms) - future - past, now_ms)
            if future:
                self._count("in_the_future", future, now_ms)
            if past:
                self._count("long_past", past, now_ms)

    def _count(self, kind: Kind, count: int, now_ms: int) -> None:
        """Add to the totals and to the current second, and forget what is older than a minute."""
        self.totals[kind] += count
        second = now_ms // 1000
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append((second, Counter()))
            while self._seconds[0][0] * 1000 < now_ms - WINDOW_MS:
                self._seconds.popleft()
        self._seconds[-1][1][kind] += count

    def suspicion(self, now_ms: int) -> str | None:
        """Say why a clock must be wrong, or None if most of the last minute's records fit it."""
        counts: Counter[Kind] = Counter()
        with self._lock:
            for second, some in self._seconds:
                if second * 1000 >= now_ms - WINDOW_MS:
                    counts.update(some)
        seen = counts.total()
        if seen < MIN_RECORDS:
            return None
        for kind, words in _UNFIT.items():
            if 2 * counts[kind] > seen:
                return (
                    f"the clock of this machine or the broker's is wrong: {counts[kind]} of the "
                    f"last minute's {seen} records are {words}"
                )
        return None
