"""The clock of a lane: it follows the input log while behind, and the wall clock when not."""

from msgspec import Struct


class Report(Struct, frozen=True, gc=False):
    """What a source partition says of itself.

    parts is how many partitions there are in all; through_ms the timestamp it has come to, or
    None when it has read to its end.
    """

    part: str
    parts: int
    through_ms: int | None


class LaneClock:
    """Tells the time of a lane from the reports of the source partitions."""

    def __init__(self) -> None:
        """Make a clock that has heard of no partition."""
        self._live: set[str] = set()
        self._behind: dict[str, int] = {}
        self._least_ms: int | None = None
        self._known = False
        self.live = False  # whether every partition has read to its end

    def hear(self, report: Report) -> None:
        """Take in a report; the last one of a partition counts."""
        if report.through_ms is None:
            self._behind.pop(report.part, None)
            self._live.add(report.part)
        else:
            self._live.discard(report.part)
            self._behind[report.part] = report.through_ms
        self.live = len(self._live) == report.parts
        self._known = len(self._live) + len(self._behind) == report.parts
        self._least_ms = min(self._behind.values(), default=None)

    def time_ms(self, wall_ms: int) -> int | None:
        """Return the lane's time, or None before every partition has reported.

        It is the wall clock if all are live, else the least that one behind has come to.
        """
        if not self._known:
            return None
        return wall_ms if self._least_ms is None else min(wall_ms, self._least_ms)
