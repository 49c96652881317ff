"""Whether events are where the contract wants them: a device in one partition, keyed by its id.

Otherwise the events of a device have no order, and a backlog is read in the wrong one. Nothing is
refused for that, because the rules decide by time what comes first; but whoever runs this must
know. So each such event is counted, and a warning tells of the first.
"""

import logging

from dataflows.logs import log
from dataflows.metrics import MISPLACED, MISPLACED_CAUSES
from dataflows.text import printable

# Of so many devices it is known where they were last. It is a sample of all where there are more:
# the starts and ends of a session can be hours apart, so the newest ones would tell little.
MAX_DEVICES = 65_536
# A cause is told of again after this time.
TELL_AGAIN_MS = 600_000
# So much of a key is shown: as much as a device id can have characters.
MAX_KEY_BYTES = 128

Place = tuple[str, int]  # topic and partition


class Placement:
    """Where devices were seen last by a process, whose worker threads share it."""

    def __init__(self) -> None:
        """Know of no device."""
        self._places: dict[str, Place] = {}
        # A device is in the sample if these bits of its hash are 0.
        self._left_out = 0
        self._counters = {cause: MISPLACED.labels(cause) for cause in MISPLACED_CAUSES}
        self._told_ms: dict[str, int] = {}

    def check(
        self, device_id: str, key: bytes | None, place: Place, now_ms: int, *, keyed: bool = True
    ) -> None:
        """Count an event whose key is not its device id, or whose device was elsewhere before.

        keyed says that the key should be the device id.
        """
        if keyed and key != device_id.encode():
            self._counters["key"].inc()
            if self._is_to_be_told("key", now_ms):
                _tell("the key of an event is not its device id", device_id, key, place)
        if hash(device_id) & self._left_out:
            return
        before = self._places.get(device_id)
        if before == place:
            return
        self._places[device_id] = place
        if before is None:
            if len(self._places) > MAX_DEVICES:
                self._halve()
            return
        self._counters["partition"].inc()
        if self._is_to_be_told("partition", now_ms):
            _tell(f"a device was in {before[0]}/{before[1]} before", device_id, key, place)

    def _halve(self) -> None:
        """Leave every other device out of the sample."""
        self._left_out = left_out = 2 * self._left_out + 1
        places = self._places.copy()  # other threads add to it
        self._places = {name: place for name, place in places.items() if not hash(name) & left_out}

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
        device=printable(device_id),
        key=None if key is None else printable(key[:MAX_KEY_BYTES]),
        topic=place[0],
        partition=place[1],
    )
