"""Whether senders put devices where a partitioner would, as far as the input shows.

The sessions of a store are moved to where their devices' events will come. So each record that is
yet to be read must be there, and so must some that were read before.
"""

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from dataflows.settings import Settings
from dataflows.text import printable
from heartwheel.events.records import SeenRecord
from heartwheel.events.trial import Trial
from heartwheel.kafka.newest import NewestRecords
from heartwheel.kafka.partitioners import PARTITIONERS, PartitionerName
from session_logic.errors import ConfigError


class Senders(Struct, frozen=True):
    """What senders are said to do: a partitioner, and how many partitions a topic has.

    partitions_before is how many it had when records that were read before were sent.
    """

    partitioner: PartitionerName
    partitions: int
    partitions_before: int

    def may_be(self, device_id: str, partition: int, *, is_read: bool) -> bool:
        """Say whether an event of a device can be in a partition."""
        place, key = PARTITIONERS[self.partitioner], device_id.encode()
        if place(key, self.partitions) == partition:
            return True
        return is_read and place(key, self.partitions_before) == partition


class SentPlaces:
    """Compares records of the input with what senders are said to do."""

    def __init__(self, settings: Settings, senders: Senders) -> None:
        """Have seen nothing yet."""
        self._settings = settings
        self._senders = senders
        self.devices: set[str] = set()

    def check(self, records: int, stored: Mapping[str, int]) -> None:
        """Read the newest records of each input topic, and all from the stored offsets on.

        Those are by topic/partition. Raises ConfigError for a record that is elsewhere, a topic
        with another number of partitions or no record to compare with, ReadError if Kafka does
        not let them be read.
        """
        topics = list(self._settings.all_input_topics)
        newest = NewestRecords(self._settings, topics)
        try:
            for topic in topics:
                self._check_partitions(topic, newest.partitions(topic))
                since = _since(topic, newest.partitions(topic), stored)
                self.note(topic, newest.sample(topic, records, since), since)
        finally:
            newest.close()
        if not self.devices:
            msg = (
                "the input topics have no event to compare with --partitioner: let senders send "
                "some first"
            )
            raise ConfigError(msg)

    def _check_partitions(self, topic: str, count: int) -> None:
        wanted = self._senders.partitions
        if count != wanted:
            msg = (
                f"input topic {topic} has {count} partitions, and there are to be {wanted} lanes: "
                "give --lanes as many as each input topic has partitions"
            )
            raise ConfigError(msg)

    def note(
        self, topic: str, records: Iterable[tuple[int, SeenRecord]], since: Mapping[int, int]
    ) -> None:
        """Take in records of a topic with their partitions, read up to the offsets in since.

        Raises ConfigError for the first that is elsewhere.
        """
        for device_id, partition, offset in self._events(topic, records):
            is_read = offset < since.get(partition, 0)
            if not self._senders.may_be(device_id, partition, is_read=is_read):
                raise ConfigError(self._elsewhere(device_id, f"{topic}/{partition}/{offset}"))
            self.devices.add(device_id)

    def _events(
        self, topic: str, records: Iterable[tuple[int, SeenRecord]]
    ) -> Iterator[tuple[str, int, int]]:
        """Yield device, partition and offset of what is an event."""
        trial = Trial(self._settings, topic)
        for partition, record in records:
            device_id = trial.of(record).device_id
            if device_id:
                yield device_id, partition, int(record.name.rpartition("/")[2])

    def _elsewhere(self, device_id: str, where: str) -> str:
        senders = self._senders
        place = PARTITIONERS[senders.partitioner](device_id.encode(), senders.partitions)
        return (
            f"{where} is of device {printable(device_id)}, which is in partition {place} by "
            f"{senders.partitioner}: give the partitioner of the senders, which must use the "
            "device id as key; if partitions were added, let all senders know of them and the "
            "shards read on, then stop again"
        )


def _since(topic: str, partitions: int, stored: Mapping[str, int]) -> dict[int, int]:
    """Return up to where each partition of a topic is read; nothing for one that is new."""
    found = {number: stored.get(f"{topic}/{number}") for number in range(partitions)}
    if not any(offset is not None for offset in found.values()):
        return {}
    return {number: max(0, offset or 0) for number, offset in found.items()}
