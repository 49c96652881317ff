"""Devices with more ended sessions than are remembered of one: a shared id, or a loop of restarts.

What one device costs has a bound, so the oldest of its ended sessions are forgotten early. Here
is counted for whom, in bounded memory as well.
"""

# So many devices are counted at most.
MAX_CROWDED = 100


class CrowdedDevices:
    """How many ended sessions of which devices were forgotten early.

    With more devices than are counted, a new one takes the place of the one with the least and
    begins at its number. So a device that is hotter than the rest is always among those counted,
    and its number is at most too high by that of the one before it.
    """

    def __init__(self) -> None:
        """Count nothing yet."""
        self._by_device: dict[str, int] = {}

    def note(self, device_id: str) -> None:
        """Count one session of a device."""
        counted = self._by_device
        before = counted.get(device_id)
        if before is None:
            before = 0
            if len(counted) == MAX_CROWDED:
                before = counted.pop(min(counted, key=counted.__getitem__))
        counted[device_id] = before + 1

    def clear(self) -> None:
        """Count nothing again."""
        self._by_device.clear()

    def worst(self, count: int) -> list[tuple[str, int]]:
        """Return the devices with the most, the worst first."""
        return sorted(self._by_device.copy().items(), key=lambda item: -item[1])[:count]
