"""Whether events are where the contract wants them: a device in one partition, keyed by its id.

Otherwise the events of a device have no order, and a backlog is read in the wrong one. Nothing is
refused for that, because the rules decide by time what comes first; but whoever runs this must
know. So each such event is counted, and a warning tells of the first.
"""

import logging

from dataflows.logs import log
from dataflows.metrics import MISPLACED, MISPLACED_CAUSES
from dataflows.text import shown

# Of so many devices it is known where they were seen last.
MAX_DEVICES = 65_536
# A cause is told of again after this time.
TELL_AGAIN_MS = 600_000

Place = tuple[str, int]  # topic and partition


class Placement:
    """Where a process saw the devices last that it saw lately; its worker threads share it."""

    def __init__(self) -> None:
        """Know of no device."""
        # Two generations: the older one goes when the recent one is full. A device that is seen
        # again comes into the recent one, so that nothing has to be moved for each event.
        self._recent: dict[str, Place] = {}
        self._older: dict[str, Place] = {}
        self._counters = {cause: MISPLACED.labels(cause) for cause in MISPLACED_CAUSES}
        self._told_ms: dict[str, int] = {}

    def check(self, device_id: str, key: bytes | None, place: Place, now_ms: int) -> None:
        """Count an event whose key is not its device id, or whose device was elsewhere before."""
        if key != device_id.encode():
            self._counters["key"].inc()
            if self._is_to_be_told("key", now_ms):
                _tell("the key of an event is not its device id", device_id, key, place)
        before = self._recent.get(device_id)
        if before == place:
            return
        before = before or self._remembered(device_id)
        self._recent[device_id] = place
        if before is not None and before != place:
            self._counters["partition"].inc()
            if self._is_to_be_told("partition", now_ms):
                _tell(f"a device was in {before[0]}/{before[1]} before", device_id, key, place)

    def _remembered(self, device_id: str) -> Place | None:
        """Return where a device was seen that is not among the recent ones, and make room there."""
        before = self._older.get(device_id)
        if len(self._recent) >= MAX_DEVICES // 2:
            self._older, self._recent = self._recent, {}
        return before

    def _is_to_be_told(self, cause: str, now_ms: int) -> bool:
        """Say whether a cause was not told of lately, and note that it is now."""
        told_ms = self._told_ms.get(cause)
        if told_ms is not None and now_ms - told_ms < TELL_AGAIN_MS:
            return False
        self._told_ms[cause] = now_ms
        return True


def _tell(fault: str, device_id: str, key: bytes | None, place: Place) -> None:
    if not logging.getLogger().hasHandlers():
        return  # a replay has no log
    log.warning(
        f"{fault}: a backlog may be read in the wrong order",
        device=shown(device_id),
        key=None if key is None else shown(key.decode(errors="backslashreplace")),
        topic=place[0],
        partition=place[1],
    )
