"""In which input partitions devices are seen.

All events of a device belong in partitions of one number. Else they have no order, and by the route
`partition` they come to several lanes, where the sessions of the device do not end one another.
"""

from collections.abc import Iterable

from dataflows.settings import Settings
from heartwheel.events.records import SeenRecord
from heartwheel.events.trial import Trial

# A topic and a number.
Place = tuple[str, int]


class DevicePlaces:
    """Notes the places of each device, which is found as a run finds it."""

    def __init__(self, settings: Settings) -> None:
        """Know of no device yet."""
        self._settings = settings
        self._places: dict[str, tuple[Place, ...]] = {}

    def __len__(self) -> int:
        """Return how many devices were seen."""
        return len(self._places)

    def note(self, topic: str, records: Iterable[tuple[int, SeenRecord]]) -> tuple[int, int]:
        """Note records of a topic with their partitions; return how many, and how many of a device.

        What a run would skip or reject is of none.
        """
        trial, alone = Trial(self._settings, topic), dict[int, tuple[Place, ...]]()
        count = events = 0
        for partition, record in records:
            count += 1
            device = trial.of(record).device_id
            if not device:
                continue
            events += 1
            own = alone.setdefault(partition, ((topic, partition),))
            known = self._places.setdefault(device, own)
            if own[0] not in known:
                self._places[device] = known + own
        return count, events

    def split(self) -> dict[str, list[Place]]:
        """Return the devices that are in partitions of several numbers, each with its places."""
        return {
            device: sorted(places)
            for device, places in self._places.items()
            if len({number for _, number in places}) > 1
        }
