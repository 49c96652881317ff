"""When input rests around the end of an epoch, with Bytewax's rules for who has a turn."""

from collections.abc import Callable, Iterator
from itertools import repeat

import pytest

from dataflows.epoch_rest import LATE_MS, LONGER_MS, NOTED_LATE_MS, SHARE, EpochRest

INTERVAL_MS, TICK_MS = 250, 10


def run(
    rest: EpochRest, stored_after_ms: Iterator[int], wanted: Callable[[int], int], noted_ms: int = 0
) -> Iterator[tuple[int, int, int]]:
    """Yield the length, the rest and the time waited for with a core, of epoch after epoch.

    Bytewax begins a turn noted_ms before it is noted here.
    """
    now = started = 0
    for stored_ms in stored_after_ms:
        while True:
            awake = rest.turn_ms(wanted(now + noted_ms), now + noted_ms)
            if now - started >= INTERVAL_MS:
                break
            now = max(awake, now + 1)
        length, started = now - started, now
        rest.note_end(now + noted_ms)
        stored = now + stored_ms
        now = max(awake, stored)
        yield length, awake - started, max(0, stored - awake)
        rest.note_begin(now + noted_ms)


def on_the_grid(now: int) -> int:
    """Want the next tick."""
    return (now // TICK_MS + 1) * TICK_MS


@pytest.mark.parametrize("stored_ms", [12, 30, 90])
def test_input_rests_for_about_as_long_as_an_epoch_takes_to_be_stored(stored_ms: int) -> None:
    """Bytewax asks for the next turn while one is due: a core computes for nothing meanwhile."""
    epochs = list(run(EpochRest(INTERVAL_MS), repeat(stored_ms, 100), on_the_grid))[30:]
    assert sum(waited for *_, waited in epochs) / len(epochs) < LATE_MS + stored_ms / SHARE
    assert max(rested for _, rested, _ in epochs) < stored_ms + LONGER_MS + TICK_MS


def test_epoch_that_is_stored_before_the_next_tick_needs_no_rest() -> None:
    """As in a process that is alone: the next turn is the one that is wanted."""
    epochs = run(EpochRest(INTERVAL_MS), repeat(3, 20), on_the_grid)
    assert all(rested <= TICK_MS and not waited for _, rested, waited in epochs)


@pytest.mark.parametrize("noted_ms", range(NOTED_LATE_MS))
def test_epochs_end_with_the_turn_of_which_that_is_expected(noted_ms: int) -> None:
    """Else a turn that ends one would want the next one at the next tick, and that is waited for.

    How late a turn is noted does not matter, and neither does which turns are wanted.
    """
    for wanted in (on_the_grid, lambda now: now + 7, lambda now: now + 1_000):
        epochs = list(run(EpochRest(INTERVAL_MS), repeat(40, 60), wanted, noted_ms))[20:]
        assert {length for length, *_ in epochs} <= {INTERVAL_MS + 1, INTERVAL_MS + noted_ms + 1}
        assert sum(waited for *_, waited in epochs) / len(epochs) < LATE_MS + 1


def test_one_accident_lengthens_the_rest_by_little_and_is_forgotten() -> None:
    """As a process that starts late, or is paused: input is not kept waiting for it."""
    rest = EpochRest(INTERVAL_MS)
    stored_after_ms = iter([*repeat(20, 30), 900, *repeat(20, 2 * SHARE)])
    rested = [rested for _, rested, _ in run(rest, stored_after_ms, on_the_grid)]
    assert max(rested[31:]) <= max(rested[10:30]) + LONGER_MS
    assert max(rested[-SHARE // 2 :]) <= 20 + LONGER_MS


def test_rest_is_never_longer_than_half_an_interval() -> None:
    """Input is read between two epochs, however long they take."""
    epochs = run(EpochRest(INTERVAL_MS), repeat(700, 60), on_the_grid)
    assert max(rested for _, rested, _ in epochs) <= INTERVAL_MS // 2 + 1


def test_turn_that_ends_an_epoch_is_known_when_it_begins() -> None:
    """What is told in it costs no message of its own."""
    rest = EpochRest(INTERVAL_MS)
    assert not rest.ends(10_000)
    rest.note_end(10_000)
    rest.note_begin(10_020)
    assert [rest.ends(now) for now in (10_100, 10_250, 10_251)] == [False, False, True]


def test_turns_before_the_first_epoch_has_ended_are_as_wanted() -> None:
    """When it began is not known."""
    rest = EpochRest(INTERVAL_MS)
    assert [rest.turn_ms(now + 5, now) for now in (0, 248, 900)] == [5, 253, 905]


def test_other_partitions_of_the_turn_that_ends_an_epoch_rest_as_long() -> None:
    """One that is awake earlier would have the process wait for all of them."""
    rest = EpochRest(INTERVAL_MS)
    list(run(rest, repeat(40, 20), on_the_grid))
    first_ms = rest.turn_ms(100_005, 100_000)
    assert first_ms > 100_020
    rest.note_end(100_000)
    assert rest.turn_ms(100_001, 100_000) == first_ms
    assert rest.turn_ms(100_100, 100_000) == 100_100
