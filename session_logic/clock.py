"""The clock of a lane: it follows the input log while behind, and the wall clock when not."""

from msgspec import Struct

# How long a source's word that its partitions have been read to the end holds.
LEASE_MS = 1_000


class PartitionProgress(Struct, frozen=True, gc=False):
    """What a source says of a partition of its own.

    parts is how many partitions there are in all; through_ms the timestamp it has come to, or
    None when it has read to its end. That holds for a while from as_of_ms on (without as_of_ms,
    for ever); a report with an empty part renews it for all such partitions of the source.
    """

    part: str
    parts: int
    through_ms: int | None
    source: str = ""
    as_of_ms: int | None = None


class LaneClock:
    """Tells the time of a lane from the reports of the source partitions."""

    def __init__(self) -> None:
        """Make a clock that has heard of no partition."""
        self._live: dict[str, PartitionProgress] = {}
        self._behind: dict[str, int] = {}
        self._least_ms: int | None = None
        self._known = False
        self.live = False  # whether every partition has read to its end

    def hear(self, report: PartitionProgress) -> None:
        """Take in a report; the last one of a partition counts."""
        if report.through_ms is not None:
            self._live.pop(report.part, None)
            self._behind[report.part] = report.through_ms
        elif report.part:
            self._behind.pop(report.part, None)
            self._live[report.part] = report
        else:
            for part, known in self._live.items():
                if known.source == report.source:
                    self._live[part] = report
        self.live = len(self._live) == report.parts
        self._known = len(self._live) + len(self._behind) == report.parts
        held = [
            known.as_of_ms + LEASE_MS for known in self._live.values() if known.as_of_ms is not None
        ]
        self._least_ms = min([*self._behind.values(), *held], default=None)

    def time_ms(self, wall_ms: int) -> int | None:
        """Return the lane's time, or None before every partition has reported.

        It is the wall clock if all are live, else the least that one behind has come to. So an
        end that waited while a source was paused or cut off is seen before heartbeats after it.
        """
        if not self._known:
            return None
        return wall_ms if self._least_ms is None else min(wall_ms, self._least_ms)
