"""The clock of a lane: it follows the input while behind, and the wall clock when not.

A heartbeat may be sent only when no input can still come that would have ended its session
earlier. So a lane's time never passes

- the timestamp that the slowest partition which is behind has come to: what it still has to read
  is later (as far as a log is in order of time), and
- the moment up to which the word "read to the end" of every other partition is known to hold. A
  paused process or a cut connection cannot renew that word, so time stops END_VALID_MS after the
  last renewal, and an end that was sent meanwhile is read before the heartbeats after it.

What would break it: a source that says "read to the end" although more input is there, or one
that renews that word without having asked.
"""

from msgspec import Struct

# How long the word of a source that its partitions are read to their ends holds.
END_VALID_MS = 1_000


class PartitionProgress(Struct, frozen=True, gc=False):
    """How far a source has come with one of its partitions.

    parts is how many partitions there were in all sources when they began. One that was added since
    holds time up from its first word on, and stands for no other. One that is left does not hold
    time up, and what it has not read is not known.

    watermark_ms is the timestamp that the partition has come to, or None when it is read to its
    end. That end holds until END_VALID_MS after as_of_ms; without as_of_ms it holds for ever.
    """

    part: str
    parts: int
    watermark_ms: int | None
    source: str = ""
    as_of_ms: int | None = None
    added: bool = False
    left: bool = False


class Renewal(Struct, frozen=True, gc=False):
    """Every partition that a source has read to its end was still at its end at as_of_ms."""

    source: str
    as_of_ms: int


Progress = PartitionProgress | Renewal


class LaneClock:
    """Tells the time of a lane from the progress of the source partitions."""

    def __init__(self) -> None:
        """Make a clock that knows of no partition yet."""
        self._ended: dict[str, tuple[str, int | None]] = {}  # part: its source, as of when
        self._behind: dict[str, int] = {}  # part: its watermark
        self._added: set[str] = set()
        self._left: set[str] = set()
        self._parts = 0
        self._limit_ms: int | None = None
        self._known = False
        self.live = False  # whether every partition is read to its end

    def update(self, progress: Progress) -> None:
        """Take in progress; what is said last of a partition counts."""
        if isinstance(progress, Renewal):
            for part, (source, _) in self._ended.items():
                if source == progress.source:
                    self._ended[part] = source, progress.as_of_ms
        else:
            self._note(progress)
        ends_ms = [as_of_ms for _, as_of_ms in self._ended.values() if as_of_ms is not None]
        limits_ms = [*self._behind.values(), *(ms + END_VALID_MS for ms in ends_ms)]
        self._limit_ms = min(limits_ms, default=None)

    def _note(self, progress: PartitionProgress) -> None:
        self._left.discard(progress.part)
        if progress.left:
            self._ended.pop(progress.part, None)
            self._behind.pop(progress.part, None)
            self._left.add(progress.part)
        elif progress.watermark_ms is None:
            self._behind.pop(progress.part, None)
            self._ended[progress.part] = progress.source, progress.as_of_ms
        else:
            self._ended.pop(progress.part, None)
            self._behind[progress.part] = progress.watermark_ms
        if progress.added:
            self._added.add(progress.part)
        self._parts = max(self._parts, progress.parts)
        heard_of = len(self._ended) + len(self._behind) + len(self._left)
        self._known = heard_of - len(self._added) >= self._parts
        self.live = self._known and not self._behind and not self._left

    @property
    def leaves(self) -> bool:
        """Whether a partition is left, so that its devices are not heard."""
        return bool(self._left)

    def time_ms(self, wall_ms: int) -> int | None:
        """Return the lane's time, at most wall_ms, or None before every partition is known."""
        if not self._known:
            return None
        return wall_ms if self._limit_ms is None else min(wall_ms, self._limit_ms)
