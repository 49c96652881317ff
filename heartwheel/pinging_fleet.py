"""A simulated fleet of devices that give signs of life, and fall silent."""

from collections.abc import Mapping
from itertools import count

from confluent_kafka import Producer

from heartwheel.event_writer import Writer
from heartwheel.fleet import Fleet, Mix, Names, SentEvent

# The shares of the turns of a device in which it comes, says that it goes, and falls silent.
COMES, GOES, FALLS_SILENT = 0.2, 0.03, 0.04


class PingingFleet(Fleet):
    """Devices that take turns: one that is there pings, unless it goes or falls silent."""

    def __init__(
        self,
        producer: Producer,
        writers: Mapping[str, Writer],
        devices: int,
        seed: int,
        names: Names,
    ) -> None:
        """Send through this producer to the topics of these writers; a device stays on one."""
        super().__init__(producer, writers, Mix(devices=devices), seed, names)
        self._turns = (turn % devices for turn in count())

    def _next_event(self, late_ms: int) -> SentEvent:
        """Return the next event: that of the next device that says anything."""
        for device in self._turns:
            topic = self._topic(device)
            kinds = self._writers[topic].kinds
            chance = self._random.random()
            if device not in self._sessions:
                if chance < COMES:
                    self._begin(device, late_ms)
                    return self._event(device, "start" if "start" in kinds else "ping", late_ms)
            elif chance < FALLS_SILENT:
                del self._sessions[device]
            elif chance < FALLS_SILENT + GOES and "end" in kinds:
                event = self._event(device, "end", late_ms)
                del self._sessions[device]
                return event
            else:
                return self._event(device, "ping", late_ms)
        raise AssertionError
