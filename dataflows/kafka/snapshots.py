"""The snapshots of the input: how old the last one is, how long it took, which offsets it holds."""

import time
from collections.abc import Sequence

from dataflows.kafka.offset_commits import OffsetCommitter
from dataflows.kafka.partition import InputPartition
from dataflows.metrics import NAN, SNAPSHOT_AGE, SNAPSHOT_DURATION, read_from
from dataflows.run_state import RunState


class SourceSnapshots:
    """Measures the snapshots of this process, and commits their offsets for monitoring."""

    def __init__(self, partitions: Sequence[InputPartition], run: RunState) -> None:
        self._partitions = partitions
        self._run = run
        self._stored_s = time.monotonic()
        self._committer: OffsetCommitter | None = None
        read_from(SNAPSHOT_AGE, self.age_s)

    def commit_with(self, committer: OffsetCommitter) -> None:
        """Commit the offsets of each snapshot from now on."""
        self._committer = committer

    def note(self, part: InputPartition, begin_s: float) -> None:
        """Take in that a snapshot is complete; the first partition says so for all."""
        if part is not self._partitions[0]:
            return
        self._stored_s = begin_s
        SNAPSHOT_DURATION.observe(time.monotonic() - begin_s)
        if self._committer is not None:
            self._committer.commit(self._offsets())

    def age_s(self) -> float:
        """Return how old the last complete snapshot is; before the first one, the run.

        A process with lanes but without input partitions is told of no snapshot, and has no age.
        """
        if self._run.lanes and not self._partitions:
            return NAN
        return time.monotonic() - self._stored_s

    def close(self) -> None:
        """Commit the last offsets."""
        if self._committer is not None:
            self._committer.close(self._offsets())

    def _offsets(self) -> dict[tuple[str, int], int]:
        return {(part.topic, part.number): part.stored_offset for part in self._partitions}
