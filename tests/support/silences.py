"""For how long each session says nothing in the output topic."""

from collections.abc import Iterable
from itertools import pairwise

from msgspec import Struct

from session_logic.events import OutputEvent


class Silence(Struct, frozen=True):
    """Two records of a session with nothing between them, by when they were written, in ms."""

    session_id: str
    since_ms: int
    until_ms: int

    @property
    def took_ms(self) -> int:
        """How long it was."""
        return self.until_ms - self.since_ms


def longest_silence(records: Iterable[tuple[int, OutputEvent]]) -> Silence:
    """Return the longest silence of any session; records have the moment that each was written."""
    written: dict[str, list[int]] = {}
    for written_ms, event in records:
        written.setdefault(event.session_id, []).append(written_ms)
    return max(
        (Silence(name, *pair) for name, times in written.items() for pair in pairwise(times)),
        key=lambda silence: silence.took_ms,
    )
