"""Processes whose epochs end apart, with Bytewax's rules for when an epoch ends."""

import random
from collections.abc import Sequence
from itertools import count

import pytest

from dataflows.epoch_phase import APART_MS, EpochPhase
from dataflows.epoch_rest import EpochRest

TICK_MS = 5
STORE_MS = 8
FRONTIER_MS = 3


class Part:
    """A partition as Bytewax runs it: it ends an epoch at its first turn after the interval."""

    def __init__(self, begin_ms: int) -> None:
        self.epoch_started_ms = begin_ms
        self.awake_ms = begin_ms
        self.epoch = 1
        self.told = 1  # the epoch of its last turn


class Process:
    """One worker with partitions, which all have a turn when one of them is awake."""

    def __init__(self, begins_ms: Sequence[int], interval_ms: int, *, alone: bool) -> None:
        self.interval_ms = interval_ms
        self.parts = [Part(begin_ms) for begin_ms in begins_ms]
        rest = None if alone else EpochRest(interval_ms)
        self.phase = EpochPhase(interval_ms, alone=alone, rest=rest)
        self.paused_until_ms = 0

    def turn(self, now_ms: int, stored: int) -> None:
        """Take the turn of every partition whose last epoch is stored."""
        if now_ms < self.paused_until_ms or all(part.awake_ms > now_ms for part in self.parts):
            return
        for part in self.parts:
            if part.epoch - 1 > stored:
                continue
            if part.awake_ms <= now_ms:
                if part.told < part.epoch:
                    part.told = part.epoch
                    self.phase.note_begin(part.epoch - 1, now_ms)
                part.awake_ms = self.phase.turn_ms(now_ms + TICK_MS, now_ms)
            if now_ms - part.epoch_started_ms >= self.interval_ms:
                self.phase.note_end(part.epoch, now_ms)
                part.epoch_started_ms = now_ms
                part.epoch += 1


class Bytewax:
    """Several processes on one clock."""

    def __init__(self, processes: Sequence[Process]) -> None:
        self.processes = processes
        self.now_ms = 0
        self.stored = 0  # the newest epoch that is stored
        self._ended_ms: dict[int, int] = {}  # when the last partition has ended an epoch

    def run(self, for_ms: int) -> list[int]:
        """Let time pass; return how far apart the ends of each epoch were."""
        first_ms: dict[int, int] = {}
        apart_ms = []
        for _ in range(for_ms):
            self.now_ms += 1
            for process in self.processes:
                process.turn(self.now_ms, self.stored)
            epochs = [part.epoch for process in self.processes for part in process.parts]
            first_ms.setdefault(max(epochs), self.now_ms)
            ended = min(epochs) - 1
            if ended > self.stored and ended not in self._ended_ms:
                self._ended_ms[ended] = self.now_ms
                if ended + 1 in first_ms:
                    apart_ms.append(self.now_ms - first_ms[ended + 1])
            since_ms = self.now_ms - self._ended_ms.get(ended, self.now_ms)
            if since_ms == FRONTIER_MS:
                for process in self.processes:
                    process.phase.note_all_ended(self.now_ms)
            if since_ms == FRONTIER_MS + STORE_MS:
                self.stored = ended
        return apart_ms


def turn(phase: EpochPhase, wanted_ms: int) -> int:
    """Return when a partition has its turn that had the one before a tick earlier."""
    return phase.turn_ms(wanted_ms, wanted_ms - TICK_MS)


def cluster(begins_ms: Sequence[int], interval_ms: int) -> Bytewax:
    """Return processes of one partition that begin at different moments."""
    return Bytewax([Process([at_ms, at_ms], interval_ms, alone=False) for at_ms in begins_ms])


@pytest.mark.parametrize("interval_ms", [100, 250, 1_000])
@pytest.mark.parametrize("late", [0.2, 0.5, 0.97, 2.5])
def test_process_that_was_paused_is_together_with_the_others_again(
    interval_ms: int, late: float
) -> None:
    """However long it was, and whichever process."""
    for number in range(3):
        bytewax = cluster([0, 0, 0], interval_ms)
        bytewax.run(3 * interval_ms + interval_ms // 3)
        paused = bytewax.processes[number]
        paused.paused_until_ms = bytewax.now_ms + int(interval_ms * (0.7 + late))
        bytewax.run(14 * interval_ms)
        assert max(bytewax.run(10 * interval_ms)) <= APART_MS


@pytest.mark.parametrize("interval_ms", [250, 1_000])
def test_processes_that_begin_apart_come_together(interval_ms: int) -> None:
    """Whatever their moments."""
    choice = random.Random(interval_ms)
    for _ in range(5):
        begins_ms = [choice.randrange(2 * interval_ms) for _ in range(choice.randrange(2, 5))]
        bytewax = cluster(begins_ms, interval_ms)
        bytewax.run(30 * interval_ms)
        assert max(bytewax.run(10 * interval_ms)) <= APART_MS, begins_ms


def test_partitions_of_one_process_that_begin_apart_come_together() -> None:
    """As those do that a store knows, and new ones."""
    process = Process([0, 300, 900], 1_000, alone=True)
    bytewax = Bytewax([process])
    bytewax.run(20_000)
    assert max(bytewax.run(10_000)) <= APART_MS


def test_epochs_that_end_together_are_left_alone() -> None:
    """Every turn is when it is wanted."""
    phase = EpochPhase(1_000, alone=False)
    for epoch, end_ms in zip(count(1), range(1_000, 20_000, 1_010)):
        phase.note_end(epoch, end_ms)
        phase.note_all_ended(end_ms + APART_MS)
        phase.note_begin(epoch, end_ms + 40)
        assert turn(phase, end_ms + 45) == end_ms + 45
        assert turn(phase, end_ms + 999) == end_ms + 999


def test_single_long_wait_is_an_accident_and_changes_nothing() -> None:
    """As one is behind a large batch: only what lasts is mended."""
    phase = EpochPhase(1_000, alone=False)
    for epoch, end_ms in zip(count(1), range(1_000, 20_000, 1_010)):
        phase.note_end(epoch, end_ms)
        phase.note_all_ended(end_ms + (600 if epoch % 3 else 0))
        phase.note_begin(epoch, end_ms + 640)
        assert turn(phase, end_ms + 999) == end_ms + 999


def test_work_that_looks_like_a_phase_is_waited_for_ever_more_rarely() -> None:
    """A wait mends nothing there, and costs time in which nothing is read."""
    phase = EpochPhase(1_000, alone=False)
    waited = []
    for epoch, end_ms in zip(count(1), range(1_000, 100_000, 1_060)):
        phase.note_end(epoch, end_ms)
        phase.note_all_ended(end_ms + 50)
        phase.note_begin(epoch, end_ms + 60)
        if turn(phase, end_ms + 1_010) > end_ms + 1_010:
            waited.append(epoch)
    assert waited == [3, 6, 12, 24, 48]


def test_snapshots_as_slow_as_the_interval_leave_no_time_to_wait() -> None:
    """Input must be read, and there is nothing that a wait would mend."""
    phase = EpochPhase(100, alone=False)
    for epoch, end_ms in zip(count(1), range(1_000, 20_000, 310)):
        phase.note_end(epoch, end_ms)
        phase.note_all_ended(end_ms + 50)
        phase.note_begin(epoch, end_ms + 300)
        assert turn(phase, end_ms + 305) == end_ms + 305
