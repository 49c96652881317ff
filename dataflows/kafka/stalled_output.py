"""Output that Kafka does not take: a partition has no leader, or too few replicas in sync.

librdkafka tries again for as long as it takes, and says nothing. So each lane tells at its
snapshots how far its partitions have come.
"""

import time
from collections.abc import Callable

from dataflows.logs import log

# Brokers that change places take longer than that at times, and then it is worth a line.
TOLD_S = 10.0

Place = tuple[str, int]  # a topic and a partition


class StalledOutput:
    """The partitions of a process that have output to take and do not take it."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        """Know of no partition yet."""
        self._now_s = now_s
        self._since: dict[Place, tuple[int, float]] = {}  # its end, and since when it has that
        self._told = False

    def note(self, place: Place, end_offset: int, *, waiting: bool) -> None:
        """Note how far a partition has come, and whether something waits for it."""
        known_end, since_s = self._since.get(place, (-1, 0.0))
        if not waiting:
            self._since.pop(place, None)
        elif known_end != end_offset:
            self._since[place] = end_offset, self._now_s()
        elif not self._told and self._now_s() - since_s > TOLD_S:
            self._told = True
            log.warning(
                "Kafka does not take the output: a partition has no leader, or fewer replicas in "
                "sync than its min.insync.replicas; what waits is sent once it does",
                partitions=self.words(TOLD_S),
            )
        if self._told and not self.words(TOLD_S):
            self._told = False
            log.info("Kafka takes the output again")

    def words(self, longer_than_s: float) -> str:
        """Return which partitions have taken nothing for so long; "" if there are none."""
        now_s = self._now_s()
        stalled = sorted(
            (since_s, place)
            for place, (_, since_s) in tuple(self._since.items())
            if now_s - since_s > longer_than_s
        )
        if not stalled:
            return ""
        since_s, (topic, partition) = stalled[0]
        others = f" and {len(stalled) - 1} more" if len(stalled) > 1 else ""
        return f"{topic}/{partition}{others} for {now_s - since_s:.1f} s"
