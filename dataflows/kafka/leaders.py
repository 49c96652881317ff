"""Which input partitions have no leader, so that nothing of them can be read."""

from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from dataflows.kafka.partition import InputPartition
from dataflows.logs import log
from dataflows.metrics import LEADERLESS_PARTITIONS


class Leaders:
    """Tells partitions, the log and the metrics when a leader is lost, and when there is one."""

    def __init__(self, topics: Sequence[str], partitions: Sequence[InputPartition]) -> None:
        """Know of no leader yet."""
        self._topics = topics
        self._partitions = partitions
        self._leaderless: AbstractSet[tuple[str, int]] | None = None  # not known yet

    def note(self, leaderless: AbstractSet[tuple[str, int]], now_ms: int) -> None:
        """Take in which partitions have none, as topic and number."""
        if leaderless == self._leaderless:
            return
        self._leaderless = leaderless
        for part in self._partitions:
            is_there = (part.topic, part.number) not in leaderless
            if is_there and part.left:
                log.warning(
                    "an input partition has a leader again; what waited there is made up for",
                    topic=part.topic,
                    partition=part.number,
                )
            part.note_leader(now_ms, is_there=is_there)
        lost = Counter(part.topic for part in self._partitions if part.leaderless_ms is not None)
        for topic in self._topics:
            LEADERLESS_PARTITIONS.labels(topic).set(lost[topic])
