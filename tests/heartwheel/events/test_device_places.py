"""Devices are seen in partitions, and those of several numbers are told."""

from collections.abc import Iterator

from dataflows.settings import Settings
from heartwheel.events.device_places import DevicePlaces
from heartwheel.events.records import SeenRecord
from tests.support.own_events import record

TOPICS = {"console-events": "console", "pc-events": "pc"}


def seen(*events: tuple[str, int], kind: str = "GameStart") -> Iterator[tuple[int, SeenRecord]]:
    """Yield an event of each device, in its partition."""
    for offset, (device, partition) in enumerate(events):
        value = {"type": kind, "device_id": device, "session_id": "s"}
        yield partition, record(partition, offset, value)


def test_device_is_split_by_the_numbers_of_its_partitions_and_not_by_its_topics() -> None:
    """Each place is told once."""
    places = DevicePlaces(Settings(input_topics=TOPICS))
    first = [("whole", 1), ("twice", 0), ("twice", 2), ("twice", 2), ("across", 0)]
    assert places.note("pc-events", seen(*first)) == (5, 5)
    assert places.note("console-events", seen(("whole", 1), ("across", 3))) == (2, 2)
    assert len(places) == 3
    assert places.split() == {
        "twice": [("pc-events", 0), ("pc-events", 2)],
        "across": [("console-events", 3), ("pc-events", 0)],
    }


def test_record_without_a_device_is_counted_and_of_none() -> None:
    """What a run would skip or reject."""
    places = DevicePlaces(Settings(input_topics=TOPICS))
    assert places.note("pc-events", seen(("d", 0), ("d", 1), kind="Other")) == (2, 0)
    wrong = [(0, record(0, 0, [])), (1, record(1, 0, "no event"))]
    assert places.note("pc-events", wrong) == (2, 0)
    assert (len(places), places.split()) == (0, {})
