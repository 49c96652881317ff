"""The four scenarios as text that reads as the rules, one line a step.

A step is `t=MS what -> records`; several steps may share a moment. The heartbeat is 30 s, the
longest session 120 s; times are counted from the first moment. With the rules EVERY, a lane that is
late sends each heartbeat; with NEWEST, only the newest of each session.
"""

from typing import NamedTuple

import pytest

from session_logic.clock import PartitionProgress
from session_logic.events import Fact, Heartbeat, OutputEvent, SessionActive
from session_logic.lane import Lane, LaneOutput
from session_logic.rules import Rules
from tests.support.events import decoded

BEGIN_MS = 1_700_000_000_000
NEWEST = Rules(30_000, 120_000, 60_000, "latest")
EVERY = Rules(30_000, 120_000, 60_000, "all")


class Scenario(NamedTuple):
    """Steps and what comes of them, under these rules."""

    rules: Rules
    text: str


SCENARIOS = {
    "start": Scenario(
        NEWEST,
        """
        t=0      start d1 s1 -> active d1 s1
        t=500    start d1 s1 ->
        t=1000   start d1 s2 -> end d1 s1 replaced 1000, active d1 s2
        t=1000   start d2 s3 -> active d2 s3
        t=1001   start d1 s1 ->
        """,
    ),
    "heartbeat": Scenario(
        EVERY,
        """
        t=0      start d1 s1 -> active d1 s1
        t=29999  tick        ->
        t=30000  tick        -> beat d1 s1 1
        t=30001  tick        ->
        t=59999  tick        ->
        t=60001  tick        -> beat d1 s1 2
        t=120000 tick        -> beat d1 s1 3, end d1 s1 timed_out 120000
        t=150000 tick        ->
        """,
    ),
    "end before heartbeat": Scenario(
        NEWEST,
        """
        t=0      start d1 s1 -> active d1 s1
        t=29999  end d1 s1   -> end d1 s1 ended 29999
        t=30000  tick        ->
        t=30001  end d1 s1   ->
        """,
    ),
    "end at heartbeat": Scenario(
        NEWEST,
        """
        t=0      start d1 s1 -> active d1 s1
        t=29998  tick        ->
        t=30000  end d1 s1   -> beat d1 s1 1, end d1 s1 ended 30000
        t=30001  tick        ->
        """,
    ),
    "end after heartbeat": Scenario(
        NEWEST,
        """
        t=0      start d1 s1 -> active d1 s1
        t=30001  end d1 s1   -> beat d1 s1 1, end d1 s1 ended 30001
        t=60000  tick        ->
        """,
    ),
    "stale end": Scenario(
        NEWEST,
        """
        t=0      start d1 s1 -> active d1 s1
        t=1      end d1 s9   ->
        t=2      end d7 s7   ->
        t=30000  tick        -> beat d1 s1 1
        """,
    ),
    "timeout before": Scenario(
        EVERY,
        """
        t=0      start d1 s1 -> active d1 s1
        t=90000  tick        -> beat d1 s1 1, beat d1 s1 2, beat d1 s1 3
        t=119999 end d1 s1   -> end d1 s1 ended 119999
        t=120000 tick        ->
        """,
    ),
    "timeout at": Scenario(
        EVERY,
        """
        t=0      start d1 s1 -> active d1 s1
        t=90000  tick        -> beat d1 s1 1, beat d1 s1 2, beat d1 s1 3
        t=120000 end d1 s1   -> end d1 s1 timed_out 120000
        t=120001 tick        ->
        """,
    ),
    "timeout after": Scenario(
        EVERY,
        """
        t=0      start d1 s1 -> active d1 s1
        t=90000  tick        -> beat d1 s1 1, beat d1 s1 2, beat d1 s1 3
        t=120001 start d1 s2 -> end d1 s1 timed_out 120000, active d1 s2
        t=150001 tick        -> beat d1 s2 1
        """,
    ),
    "late duplicate": Scenario(
        NEWEST,
        """
        t=0      start d1 s1 -> active d1 s1
        t=1000   end d1 s1   -> end d1 s1 ended 1000
        t=1001   start d1 s1 ->
        t=60999  tick        ->
        t=60999  start d1 s1 ->
        t=61000  tick        ->
        t=61000  start d1 s1 -> active d1 s1
        """,
    ),
}


def shown(event: OutputEvent) -> str:
    """Return a record as the cases write it."""
    name = f"{event.device_id} {event.session_id}"
    if isinstance(event, SessionActive):
        return f"active {name}"
    if isinstance(event, Heartbeat):
        return f"beat {name} {event.sequence}"
    return f"end {name} {event.reason} {event.time_ms - BEGIN_MS}"


def step(lane: Lane, what: str, time_ms: int) -> LaneOutput:
    """Take one step."""
    if what == "tick":
        return lane.advance(time_ms)
    kind, device, session = what.split()
    return lane.apply([Fact(kind == "start", device, session, "pc", time_ms)], time_ms)


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_gives_the_records_it_names(name: str) -> None:
    """Each step brings about just its records, in their order."""
    rules, text = SCENARIOS[name]
    lane = Lane(0, 1, rules)
    lane.update(PartitionProgress("topic/0", 1, None))
    lane.advance(BEGIN_MS)
    for line in text.strip().splitlines():
        left, _, right = line.partition("->")
        time, what = left.split(maxsplit=1)
        output = step(lane, what.strip(), BEGIN_MS + int(time.removeprefix("t=")))
        want = [part.strip() for part in right.split(",") if part.strip()]
        assert [shown(event) for event in decoded(output.records)] == want, line


def test_every_device_ended_leaves_no_session_and_no_timer() -> None:
    """What opens state is cleared: nothing is left after ends, once they are forgotten."""
    lane = Lane(0, 1, NEWEST)
    lane.update(PartitionProgress("topic/0", 1, None))
    facts = [Fact(True, f"d{n}", "s", "pc", BEGIN_MS + n) for n in range(1000)]
    ends = [Fact(False, fact.device_id, "s", "pc", fact.time_ms + 5) for fact in facts]
    lane.apply(facts, BEGIN_MS + 1000)
    lane.apply(ends, BEGIN_MS + 1005)
    assert lane.table.active == 0
    for seconds in range(5, 180, 5):
        lane.advance(BEGIN_MS + seconds * 1000)
    assert not lane.table.wheel
    assert lane.table.counts.outcomes == {("started", "pc"): 1000, ("ended", "pc"): 1000}
