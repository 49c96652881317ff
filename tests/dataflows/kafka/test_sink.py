"""The sink's part of a lane that the store does not know."""

import random

import pytest

from dataflows.kafka.sink import KafkaSink
from dataflows.messages import HOLD_EPOCHS
from dataflows.run_state import RunState
from dataflows.settings import Settings
from session_logic.keys import key_group_of, lane_of
from tests.support.clocks import T
from tests.support.fake_kafka import Consumer, Log, Producer, Record
from tests.support.output_records import active, batch, beat

DEVICE = next(f"d{n}" for n in range(99) if not lane_of(key_group_of(f"d{n}"), 4))


class Sink:
    """An output topic, and runs that write to it."""

    def __init__(self) -> None:
        self.log = Log({"session-events": 4, "dead-letters": 1})

    def values(self) -> list[bytes | None]:
        """Return what is in the partition of lane 0."""
        return [record.value for record in self.log.at(("session-events", 0))]

    def run(self, *epochs: list[bytes], new_store: bool = False) -> None:
        """Write values to lane 0, of which the store knows nothing, a snapshot after each list."""
        kafka = Producer(self.log, random.Random(1), lambda: T)
        sink = KafkaSink(
            Settings(new_store=new_store),
            RunState(),
            make_consumer=lambda _options: Consumer(self.log, lambda: T),
            make_producer=lambda _options: kafka,
        )
        part = sink.build_part("sink", "lane-000", None)
        for values in epochs:
            records = batch()
            records.keys += [DEVICE for _ in values]
            records.values += values
            part.write_batch([records])  # type: ignore[list-item]
            part.snapshot()
        sink.producer.flush()

    def write(self, values: list[bytes]) -> None:
        """Let an earlier run have written values."""
        self.log.at(("session-events", 0)).extend(Record(T, b"k", v, None, T) for v in values)


VALUES = batch(active(DEVICE), beat(1, DEVICE), beat(2, DEVICE)).values


@pytest.fixture
def sink() -> Sink:
    """Return an empty topic."""
    return Sink()


def test_new_lane_sends_only_once_its_offset_is_stored(sink: Sink) -> None:
    """Its first records are held until then."""
    sink.run(VALUES)
    assert sink.values() == []
    sink.run(VALUES, *([] for _ in range(HOLD_EPOCHS - 1)))
    assert sink.values() == VALUES


def test_lane_that_was_new_after_the_copy_of_a_store_sends_nothing_again(sink: Sink) -> None:
    """The store was restored from before the lane began, and its partition has records."""
    sink.write(VALUES[:2])
    sink.run(VALUES)
    assert sink.values() == VALUES


def test_lane_of_a_store_that_is_meant_to_be_new_sends_all_again(sink: Sink) -> None:
    """What another store has written does not count."""
    sink.write(VALUES[:2])
    sink.run(VALUES, *([] for _ in range(HOLD_EPOCHS - 1)), new_store=True)
    assert sink.values() == VALUES[:2] + VALUES
