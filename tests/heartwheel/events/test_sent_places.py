"""Whether the input is where senders are said to put it."""

import pytest

from heartwheel.events.records import SeenRecord
from heartwheel.events.sent_places import Senders, SentPlaces
from heartwheel.kafka.partitioners import PARTITIONERS
from session_logic.errors import ConfigError
from tests.support.flow import SETTINGS, T

PLACE = PARTITIONERS["murmur2"]
TOPIC = next(iter(SETTINGS.input_topics))


def record(device: str, partition: int, offset: int) -> tuple[int, SeenRecord]:
    """Return an event of a device."""
    value = f'{{"type":"GameStart","device_id":"{device}","session_id":"s"}}'.encode()
    name = f"{partition}/{offset}"
    return partition, SeenRecord(name=name, time_ms=T, key=None, value=value, headers=[])


def device_of(*places: int) -> str:
    """Return a device that murmur2 puts there of 4 and, if that is given, of 8 partitions."""
    counts = (4, 8)[: len(places)]
    return next(
        name
        for name in map("d{}".format, range(1_000))
        if all(
            PLACE(name.encode(), count) == place
            for count, place in zip(counts, places, strict=True)
        )
    )


def test_devices_where_the_partitioner_puts_them_are_counted() -> None:
    """What is no event is of none."""
    places = SentPlaces(SETTINGS, Senders("murmur2", 4, 4))
    other = SeenRecord(name="3/2", time_ms=T, key=None, value=b"x", headers=[])
    found = [record(device_of(n), n, 1) for n in range(4)]
    places.note(TOPIC, [*found, *found, (3, other)], {})
    assert len(places.devices) == 4


def test_device_that_is_elsewhere_is_named_with_its_record() -> None:
    """The senders have another partitioner, or another key."""
    device = device_of(1)
    places = SentPlaces(SETTINGS, Senders("murmur2", 4, 4))
    with pytest.raises(ConfigError, match=f"{TOPIC}/2/7 is of device {device}, which is in part"):
        places.note(TOPIC, [record(device, 2, 7)], {2: 9})


def test_where_partitions_were_added_what_was_read_is_where_it_was() -> None:
    """A record that is yet to be read would come to the lane of before."""
    device = device_of(1, 5)
    places = SentPlaces(SETTINGS, Senders("murmur2", 8, 4))
    places.note(TOPIC, [record(device, 1, 7), record(device, 5, 0)], {1: 8})
    for since in ({1: 7}, {}):
        with pytest.raises(ConfigError, match="in partition 5 of 8 by murmur2"):
            places.note(TOPIC, [record(device, 1, 7)], since)


def test_device_that_moved_between_partitions_that_were_read_is_refused() -> None:
    """Its session is in another lane than its newest event, which has not met it."""
    device = next(
        name
        for name in map("d{}".format, range(1_000))
        if (PLACE(name.encode(), 4), PLACE(name.encode(), 6)) == (1, 3)
    )
    places = SentPlaces(SETTINGS, Senders("murmur2", 6, 4))
    places.note(TOPIC, [record(device, 1, 7), record(device, 3, 9)], {1: 8, 3: 9})
    with pytest.raises(ConfigError, match="in partition 1 of 4 by murmur2"):
        places.note(TOPIC, [record(device, 3, 8)], {1: 8, 3: 9})


def test_what_was_read_before_the_store_was_made_may_be_anywhere() -> None:
    """Topics had fewer partitions then."""
    places = SentPlaces(SETTINGS, Senders("murmur2", 8, 4, T + 1))
    places.note(TOPIC, [record(device_of(1), 2, 7)], {2: 8})
    assert not places.devices
    with pytest.raises(ConfigError, match="of 8 by murmur2"):
        places.note(TOPIC, [record(device_of(1, 5), 2, 8)], {2: 8})
