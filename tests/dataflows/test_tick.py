"""How long the ticks of a loop are."""

import pytest

from dataflows.tick import Tick

T = 1_700_000_000_000 - 1_700_000_000_000 % 60  # a multiple of every tick of these tests


def busy_tick() -> Tick:
    """Return a tick of 2 ms, of up to 10 ms, that grows with every 16 pieces of work."""
    return Tick(2, 10, busy_work=16)


@pytest.mark.parametrize(("passed_ms", "expected_ms"), [(0, 2), (1, 2), (2, 4)])
def test_next_tick_is_the_next_multiple_after_now(passed_ms: int, expected_ms: int) -> None:
    """A moment that is a multiple itself is over: the next one follows it."""
    assert busy_tick().next_ms(T + passed_ms) == T + expected_ms


@pytest.mark.parametrize(
    ("work", "expected_ms"), [(0, 2), (15, 2), (16, 4), (31, 4), (32, 6), (1_000_000, 10)]
)
def test_tick_grows_with_the_work_up_to_its_longest(work: int, expected_ms: int) -> None:
    """Every busy_work pieces of work in a tick add a base tick."""
    tick = busy_tick()
    tick.note_work(T, work)
    assert tick.next_ms(T) == T + expected_ms


def test_work_of_a_long_tick_counts_by_base_tick() -> None:
    """Steady load gives steady ticks: a long tick has more work because it is long."""
    tick = busy_tick()
    tick.note_work(T, 32)
    for _ in range(5):
        tick.note_work(T, 3 * 32)
        assert tick.next_ms(T) == T + 6
    tick.note_work(T, 3)
    assert tick.next_ms(T) == T + 2


def test_turn_that_costs_much_itself_makes_ticks_longer() -> None:
    """However long they are by then: what a turn costs does not grow with them."""
    tick = Tick(2, 10, busy_work=16, turn_work=12)
    tick.note_work(T, 3)
    assert tick.next_ms(T) == T + 2
    for work in (4, 8, 8, 8):
        tick.note_work(T, work)
        assert tick.next_ms(T) == T + 4


def test_loop_without_work_takes_its_longest_ticks() -> None:
    """From idle_ms after the last work on, until work comes again."""
    tick = Tick(2, 10, busy_work=16, idle_ms=1_000)
    tick.note_work(T, 1)
    tick.note_work(T + 998, 0)
    assert tick.next_ms(T + 998) == T + 1_000
    assert [tick.is_idle(T + 998), tick.is_idle(T + 1_000)] == [False, True]
    assert tick.next_ms(T + 1_000) == T + 1_010
    tick.note_work(T + 1_010, 1)
    assert tick.next_ms(T + 1_010) == T + 1_012


def test_loop_without_idle_time_keeps_its_tick() -> None:
    """Where silence says nothing about the load, only work changes the tick."""
    tick = busy_tick()
    tick.note_work(T, 16)
    assert tick.next_ms(T + 100_000) == T + 100_004
    assert not tick.is_idle(T + 100_000)


def test_longest_tick_that_is_shorter_than_the_base_is_the_base() -> None:
    """Who asks for rare turns gets them."""
    tick = Tick(20, 10, busy_work=16)
    tick.note_work(T, 1_000_000)
    assert tick.next_ms(T) == T + 20
