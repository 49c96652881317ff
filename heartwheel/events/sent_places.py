"""Whether senders put devices where a partitioner would, as far as the input shows.

The sessions of a store are moved to where their devices' events will come, so each record that is
yet to be read must be there. What was read must be where its device was: an event of a device in
another lane than that of its session has not met it.
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

    partitions_before is how many it had when the records were sent that were read, from since_ms
    on: those of before were read by another store.
    """

    partitioner: PartitionerName
    partitions: int
    partitions_before: int
    since_ms: int = 0

    def place(self, device_id: str, *, is_read: bool) -> tuple[int, int]:
        """Return the partition that an event of a device must be in, and of how many."""
        count = self.partitions_before if is_read else self.partitions
        return PARTITIONERS[self.partitioner](device_id.encode(), count), count


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
        for device_id, partition, offset, time_ms in self._events(topic, records):
            is_read = offset < since.get(partition, 0)
            if is_read and time_ms < self._senders.since_ms:
                continue
            place, count = self._senders.place(device_id, is_read=is_read)
            if partition != place:
                raise ConfigError(
                    f"{topic}/{partition}/{offset} is of device {printable(device_id)}, which is "
                    f"in partition {place} of {count} by {self._senders.partitioner}: give the "
                    "partitioner of the senders, which must use the device id as key; "
                    "docs/shards.md says what to do if partitions were added"
                )
            self.devices.add(device_id)

    def _events(
        self, topic: str, records: Iterable[tuple[int, SeenRecord]]
    ) -> Iterator[tuple[str, int, int, int]]:
        """Yield device, partition, offset and timestamp of what is an event."""
        trial = Trial(self._settings, topic)
        for partition, record in records:
            device_id = trial.of(record).device_id
            if device_id:
                offset = int(record.name.rpartition("/")[2])
                yield device_id, partition, offset, record.time_ms or 0


def _since(topic: str, partitions: int, stored: Mapping[str, int]) -> dict[int, int]:
    """Return up to where each partition of a topic is read; nothing for one that is new."""
    found = {number: stored.get(f"{topic}/{number}") for number in range(partitions)}
    if not any(offset is not None for offset in found.values()):
        return {}
    return {number: max(0, offset or 0) for number, offset in found.items()}
