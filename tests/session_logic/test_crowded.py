"""One device with very many sessions: bounded memory, constant work, and a count that names it."""

import sys
from types import FrameType

from session_logic.crowded import MAX_CROWDED, CrowdedDevices
from session_logic.events import Fact, Watermark
from session_logic.key_group import MAX_ENDED
from session_logic.keys import KEY_GROUPS
from session_logic.rules import Rules
from session_logic.table import SessionTable
from session_logic.transitions import apply_fact

RULES = Rules(30_000, 28_800_000)
T = 1_700_000_000_000
PAIRS_A_SECOND = 500


class HotDevice:
    """A table with one device that starts and ends 500 sessions a second."""

    def __init__(self) -> None:
        self.table = SessionTable(RULES, range(KEY_GROUPS))
        self._pairs = 0

    def go_on(self, pairs: int) -> int:
        """Apply so many starts and ends; return how many calls of functions they took."""
        calls = 0

        def count(_frame: FrameType, event: str, _argument: object) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        sys.setprofile(count)
        try:
            for _ in range(pairs):
                time_ms = T + self._pairs * 1_000 // PAIRS_A_SECOND
                for is_start in (True, False):
                    fact = Fact(is_start, "hot", f"s{self._pairs}", "pc", time_ms, created=True)
                    apply_fact(self.table, fact, Watermark(time_ms))
                self._pairs += 1
        finally:
            sys.setprofile(None)
        return calls

    def remembered(self) -> int:
        """Return how many ended sessions of the device are kept."""
        return len(list(self.table.group("hot").ended("hot")))

    def in_the_wheel(self) -> int:
        """Return how many entries its wheel has."""
        return len(self.table.wheel)


def test_hot_device_costs_the_same_however_long_it_goes_on() -> None:
    """Ended sessions, entries in the wheel and calls for an event do not grow."""
    hot = HotDevice()
    hot.go_on(1_000)
    early = hot.remembered(), hot.in_the_wheel(), hot.go_on(1_000)
    hot.go_on(5_000)
    late = hot.remembered(), hot.in_the_wheel(), hot.go_on(1_000)
    assert early[0] == late[0] == MAX_ENDED
    assert early[1] == late[1] == MAX_ENDED
    assert late[2] <= 1.01 * early[2]
    assert hot.table.crowded.worst(5) == [("hot", 8_000 - MAX_ENDED)]


def test_device_with_few_sessions_is_not_counted() -> None:
    """As many ended sessions as are remembered are no reason to name it."""
    hot = HotDevice()
    hot.go_on(MAX_ENDED)
    assert hot.table.crowded.worst(5) == []


def test_device_that_relaunches_one_session_is_not_counted() -> None:
    """A new life takes the place of the one before it, which nothing has crowded out."""
    table = SessionTable(RULES, range(KEY_GROUPS))
    for number in range(5 * MAX_ENDED):
        for is_start in (True, False):
            time_ms = T + 2 * number + (not is_start)
            fact = Fact(is_start, "relaunched", "s", "pc", time_ms, created=True)
            apply_fact(table, fact, Watermark(time_ms))
    assert table.counts.outcomes["started", "pc"] == 5 * MAX_ENDED
    assert len(table.wheel) == 1
    assert table.crowded.worst(5) == []


def test_hot_device_is_named_among_any_number_of_others() -> None:
    """Memory is bounded, and a device with more than the others together is the worst of all."""
    crowded = CrowdedDevices()
    for number in range(10 * MAX_CROWDED):
        crowded.note(f"d{number}")
        crowded.note("hot")
        crowded.note("hot")
    assert len(crowded.worst(10**6)) == MAX_CROWDED
    ((device, count),) = crowded.worst(1)
    assert device == "hot"
    assert count == 20 * MAX_CROWDED
