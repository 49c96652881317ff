"""The first dead letters of a new store, through kills before anything of it is stored."""

from collections import Counter

import pytest

from dataflows.kafka.partition import InputPartition
from heartwheel.event_writer import BAD_INPUT
from tests.simulation.flow import DEVICES, STRICT_SKEW_MS, TOPICS, Simulation
from tests.support.fake_kafka import Record

HISTORIES = 40


class KilledEarly(Simulation):
    """A history with bad input and a strict clock, whose first runs are killed soon."""

    def _store_a_dead_letter(self) -> None:
        """Kill some runs that have no snapshot of a dead letter yet."""
        for _ in range(3):
            self._append_bad_input()
            for _ in range(self.random.choice([2, 6, 12, 30])):
                self.world.now_ms += 5
                self.go_on(0.9)
            self._end_run()
            self.world.now_ms += self.random.choice([5, STRICT_SKEW_MS])
            self._start()

    def _append_bad_input(self) -> None:
        """Append what is no event, and what is none yet by a clock that is this strict."""
        world = self.world
        for topic in TOPICS:
            for partition in range(2):
                ahead_ms = self.random.choice([0, STRICT_SKEW_MS + 1, 2 * STRICT_SKEW_MS])
                device, start = self.random.choice(DEVICES), len(world.log.at((topic, partition)))
                value = f'{{"type":"GameStart","device_id":"{topic}-{device}-{partition}",'
                value += f'"session_id":"s{start}"}}'
                data = self.random.choice([*BAD_INPUT, value.encode(), value.encode()])
                record = Record(world.now_ms + ahead_ms, b"d", data, None, world.now_ms)
                world.log.at((topic, partition)).append(record)


def letters_of_histories() -> Counter[str]:
    """Run histories, and return what was counted; raises the error of one that is wrong."""
    counts: Counter[str] = Counter()
    for number in range(HISTORIES):
        seed = 10 * number + 7  # the clock is strict in these
        simulation = KilledEarly(seed)
        try:
            simulation.run(10)
        except Exception as error:
            error.add_note(f"seed={seed}")
            raise
        counts += simulation.counts
    return counts


def test_first_dead_letters_of_a_store_are_written_once() -> None:
    """And none of them becomes an event by the clock of a later run."""
    counts = letters_of_histories()
    assert counts["dead letters by the clock"] > HISTORIES
    assert counts["dead letters doubled"] == 0


@pytest.mark.slow
def test_dead_letters_before_their_beginning_is_stored_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A new partition that is read at once is enough for a dead letter that becomes an event."""
    begin = InputPartition.__init__

    def hasty(self: InputPartition, topic: str, number: int, offset: int, **_: bool) -> None:
        begin(self, topic, number, offset)

    monkeypatch.setattr(InputPartition, "__init__", hasty)
    with pytest.raises(AssertionError):
        assert not letters_of_histories()["dead letters doubled"]
