"""Sessions that end because nothing is heard of them, pings, and outages, which are no silence."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from session_logic.clock import PartitionProgress
from session_logic.codec import decode_entry
from session_logic.events import Fact, Heartbeat, OutputEvent, SessionActive, SessionEnd
from session_logic.hearing import RESTART_MS
from session_logic.journal import JournalRow
from session_logic.lane import Lane, LaneOutput
from session_logic.move import Move
from session_logic.restoring import (
    LISTENING_VERSION,
    STALLING_VERSION,
    STATE_VERSION,
    read_lane_state,
)
from session_logic.rules import Rules
from tests.support.events import decoded
from tests.support.lanes import DEVICES, LANE, LANES, Store, T

RULES = Rules(30_000, 3_600_000)
IDLE_MS = 10_000
A, B, C = DEVICES[:3]


def start(time_ms: int, device: str = A, session: str = "s", idle_ms: int = IDLE_MS) -> Fact:
    """Return a start of a session that silence may end."""
    return Fact(True, device, session, "pc", T + time_ms, idle_timeout_ms=idle_ms)


def ping(time_ms: int, device: str = A, session: str = "s", *, opens: bool = False) -> Fact:
    """Return a ping of a session."""
    return Fact(opens, device, session, "pc", T + time_ms, ping=True, idle_timeout_ms=IDLE_MS)


def end(time_ms: int, device: str = A, session: str = "s") -> Fact:
    """Return an end of a session."""
    return Fact(False, device, session, "pc", T + time_ms, created=True)


def shown(events: list[OutputEvent]) -> list[str]:
    """Return records as short text, with times counted from the first moment."""
    return [_shown(event) for event in events]


def _shown(event: OutputEvent) -> str:
    where = "" if event.device_id == A else f"{DEVICES.index(event.device_id)} "
    if isinstance(event, SessionActive):
        return f"{where}active {event.session_id}@{event.time_ms - T}"
    if isinstance(event, Heartbeat):
        return f"{where}beat {event.sequence}@{event.time_ms - T}"
    return f"{where}{event.reason}@{event.time_ms - T} lasted {event.duration_ms}"


class Run:
    """A lane that reads one partition, with a store that it is restored from."""

    def __init__(self, rules: Rules = RULES) -> None:
        self.rules = rules
        self.store = Store()
        self.lane = Lane(LANE, LANES, rules)
        self.rested = False  # whether a batch was to wait until the state is stored
        self.now_ms = T
        self.at_end()
        self.jump_to(0)

    def at_end(self) -> None:
        """Let the partition be read to its end."""
        self.lane.update(PartitionProgress("topic/0", 1, None))

    def hold_at(self, time_ms: int) -> None:
        """Let time stop, because the end of the partition is not known any longer."""
        self.lane.update(PartitionProgress("topic/0", 1, None, "source", T + time_ms - 1_000))

    def give(self, *facts: Fact) -> list[str]:
        """Let time come to the last fact, and apply them; return the records as short text."""
        records = self.wait_until(max(fact.time_ms for fact in facts) - T)
        return records + self.read(*facts)

    def read(self, *facts: Fact) -> list[str]:
        """Apply facts before time has come on; return the records as short text."""
        self.now_ms = max(self.now_ms, *(fact.time_ms for fact in facts))
        return self._taken(self.lane.apply(list(facts), self.now_ms))

    def wait_until(self, time_ms: int) -> list[str]:
        """Let time pass in small steps; return the records as short text."""
        records = []
        while self.now_ms < T + time_ms:
            self.now_ms = min(self.now_ms + 1_000, T + time_ms)
            records += self._taken(self.lane.advance(self.now_ms))
        return records

    def jump_to(self, time_ms: int) -> list[str]:
        """Let the next turn come only then."""
        self.now_ms = T + time_ms
        return self._taken(self.lane.advance(self.now_ms))

    def restart(
        self,
        time_ms: int,
        *input_: Fact,
        rules: Rules | None = None,
        behind_ms: int | None = None,
    ) -> list[str]:
        """Stop, start again at a moment, and read what came meanwhile; return the records."""
        self.store.commit(self.lane)
        return self.kill(time_ms, *input_, rules=rules, behind_ms=behind_ms)

    def kill(
        self,
        time_ms: int,
        *input_: Fact,
        rules: Rules | None = None,
        waiting: Sequence[Fact] = (),
        behind_ms: int | None = None,
        **ends_ms: int,
    ) -> list[str]:
        """Go back to the last snapshot, start again at a moment, and read what came since.

        What is waiting is read before the sessions are there; a partition that is behind has come
        to behind_ms; ends_ms has when those of A ended for silence, by the output.
        """
        self.store.crash()
        self.rules = rules or self.rules
        self.now_ms = T + time_ms
        assert self.store.state is not None
        state = read_lane_state(self.store.state)
        self.lane = Lane(LANE, LANES, self.rules, state, self.now_ms, wants_silent_ends=True)
        for fact in waiting:
            assert self._taken(self.lane.apply([fact], self.now_ms)) == []
        rows = list(self.store.rows.values())
        records = [shown for row in rows for shown in self._taken(self.lane.restore(row, T))]
        assert self.lane.restoring
        sent_ms = {(A, session, T): T + end_ms for session, end_ms in ends_ms.items()}
        records += self._taken(self.lane.learn_silent_ends(sent_ms, self.now_ms))
        for fact in input_:
            records += self._taken(self.lane.apply([fact], self.now_ms))
        if behind_ms is None:
            self.at_end()
        else:
            self.lane.update(PartitionProgress("topic/0", 1, T + behind_ms))
        return records + self.jump_to(time_ms)

    def _taken(self, output: LaneOutput) -> list[str]:
        self.store.write(output.rows)
        self.rested = self.rested or output.records.rests_on_state
        return shown(decoded(output.records))

    @property
    def stored(self) -> list[Fact]:
        """The facts in the journal."""
        rows = [row for row in self.store.rows.values() if isinstance(row, JournalRow)]
        entries = [decode_entry(entry) for row in rows for entry in row.entries]
        return [fact for entry in entries for fact in entry.facts]


# When silence ends a session.


def test_session_of_which_nothing_is_heard_ends_after_its_timeout() -> None:
    """The end is at the timeout, to the millisecond; the duration goes to what was last heard."""
    run = Run()
    assert run.give(start(0)) == ["active s@0"]
    assert run.wait_until(9_999) == []
    assert run.wait_until(10_000) == ["went_silent@10000 lasted 0"]
    assert run.wait_until(60_000) == []
    assert not run.lane.table.active


def test_end_of_a_silent_session_says_when_it_was_last_heard_of() -> None:
    """The record has last_seen_ms, and no other end has it."""
    run = Run()
    run.give(start(0))
    run.give(ping(4_000))
    run.wait_until(13_000)
    (record,) = decoded(run.lane.advance(T + 14_000).records)
    assert isinstance(record, SessionEnd)
    assert (record.last_seen_ms, record.time_ms, record.duration_ms) == (
        T + 4_000,
        T + 14_000,
        4_000,
    )


@pytest.mark.parametrize("heard", [ping(6_000), ping(6_000, session=""), start(6_000)])
def test_whatever_is_heard_of_the_session_puts_its_end_off(heard: Fact) -> None:
    """A ping does, with a session id or without, and so does its start that comes again."""
    run = Run()
    run.give(start(0))
    run.give(heard)
    assert run.wait_until(15_999) == []
    assert run.wait_until(16_000) == ["went_silent@16000 lasted 6000"]


def test_ping_of_another_session_puts_nothing_off() -> None:
    """A ping is of the session that it names; it is counted."""
    run = Run()
    run.give(start(0))
    run.give(ping(6_000, session="other"), ping(6_000, device=B))
    assert run.wait_until(10_000) == ["went_silent@10000 lasted 0"]
    assert run.lane.table.counts.outcomes["unknown_ping", "pc"] == 2


def test_heartbeats_go_on_until_silence_ends_the_session() -> None:
    """One that is due at that very moment comes first."""
    run = Run(Rules(5_000, 3_600_000))
    run.give(start(0))
    assert run.wait_until(60_000) == ["beat 1@5000", "beat 2@10000", "went_silent@10000 lasted 0"]


@pytest.mark.parametrize(
    ("max_session_ms", "want"),
    [
        (9_999, "timed_out@9999 lasted 9999"),
        (10_000, "timed_out@10000 lasted 10000"),
        (10_001, "went_silent@10000 lasted 0"),
    ],
)
def test_first_of_silence_and_the_maximum_ends_a_session(max_session_ms: int, want: str) -> None:
    """At the same moment it is the maximum."""
    run = Run(Rules(9_000, max_session_ms))
    run.give(start(0))
    assert run.wait_until(20_000) == ["beat 1@9000", want]


def test_event_after_the_timeout_finds_the_session_silent_though_time_has_not_come() -> None:
    """The times of the facts decide, so that a replay decides alike."""
    run = Run()
    run.give(start(0))
    run.wait_until(9_000)
    assert run.read(end(10_000)) == ["went_silent@10000 lasted 0"]
    run.give(start(20_000, session="t"))
    run.wait_until(29_000)
    assert run.read(ping(30_000, session="t")) == ["went_silent@30000 lasted 0"]
    run.give(start(40_000, session="u"))
    assert run.give(start(49_999, session="v")) == ["replaced@49999 lasted 9999", "active v@49999"]


def test_session_that_begins_late_and_would_be_silent_ends_at_once() -> None:
    """Its start was read when its time was over."""
    run = Run()
    run.give(start(0, B, idle_ms=0))
    run.wait_until(20_000)
    assert run.give(start(9_000)) == ["active s@9000", "went_silent@19000 lasted 0"]


def test_end_that_came_before_its_start_ends_the_session() -> None:
    """An end is heard, so the session did not go silent before it."""
    run = Run()
    run.give(end(15_000))
    assert run.give(start(0)) == ["active s@0", "ended@15000 lasted 15000"]


def test_sessions_with_and_without_a_timeout_live_side_by_side() -> None:
    """What a topic's table says counts for the sessions that begin there."""
    run = Run()
    run.give(start(0), start(0, B, idle_ms=0), start(0, C, idle_ms=20_000))
    assert run.wait_until(29_000) == ["went_silent@10000 lasted 0", "2 went_silent@20000 lasted 0"]
    assert run.lane.table.active == 1


def test_more_sessions_than_one_turn_takes_go_silent_at_one_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each key group has its turn, and none of them twice."""
    monkeypatch.setattr("session_logic.lane.MAX_FIRED_RECORDS", 2)
    run = Run()
    run.give(*[start(0, device) for device in DEVICES])
    run.wait_until(9_900)
    ended = [run.jump_to(10_100) for _ in range(2 * len(DEVICES))]
    assert sum(map(len, ended)) == len(DEVICES)
    assert max(map(len, ended)) < len(DEVICES)


# Pings.


def test_pings_cost_at_most_ten_stored_facts_a_timeout() -> None:
    """What was last heard moves in steps of a tenth, whatever the number of pings."""
    run = Run()
    run.give(start(0))
    for ms in range(10, 20_001, 10):
        run.give(ping(ms))
    run.store.commit(run.lane)
    assert len(run.stored) == 21
    assert run.lane.table.counts.outcomes["ping", "pc"] == 2_000
    assert run.wait_until(40_000) == ["beat 1@30000", "went_silent@30000 lasted 20000"]


def test_unknown_pings_are_counted_and_not_stored() -> None:
    """Nothing follows from them."""
    run = Run()
    assert run.give(ping(0), ping(1)) == []
    run.store.commit(run.lane)
    assert not run.stored
    assert run.lane.table.counts.outcomes["unknown_ping", "pc"] == 2


def test_ping_without_a_timeout_changes_nothing() -> None:
    """A session that began without one goes on."""
    run = Run()
    run.give(start(0, idle_ms=0), ping(1_000))
    assert run.wait_until(29_999) == []
    assert run.lane.table.counts.outcomes["ping", "pc"] == 1


def test_late_ping_takes_nothing_back() -> None:
    """What was heard later stays heard."""
    run = Run()
    run.give(start(0))
    run.give(ping(5_000))
    run.give(ping(2_000))
    assert run.wait_until(15_000) == ["went_silent@15000 lasted 5000"]


@pytest.mark.parametrize("session", ["web", ""])
def test_ping_that_may_opens_a_session_where_none_is_active(session: str) -> None:
    """Without a session id, the moment names it."""
    run, name = Run(), session or str(T)
    assert run.give(ping(0, session=session, opens=True)) == [f"active {name}@0"]
    assert run.give(ping(5_000, session=session, opens=True)) == []
    assert run.wait_until(15_000) == ["went_silent@15000 lasted 5000"]
    assert run.give(ping(15_000, session=session, opens=True)) == [
        f"active {session or T + 15_000}@15000"
    ]


def test_ping_of_another_session_replaces_the_active_one() -> None:
    """It is a start then."""
    run = Run()
    run.give(start(0))
    assert run.give(ping(1_000, session="t", opens=True)) == [
        "replaced@1000 lasted 1000",
        "active t@1000",
    ]


@pytest.mark.parametrize("late", [ping(500, opens=True), ping(500, session="other", opens=True)])
def test_ping_from_before_an_end_opens_nothing(late: Fact) -> None:
    """It came late."""
    run = Run()
    run.give(start(0))
    run.give(end(1_000), start(2_000, session="t"))
    assert run.give(late) == []
    assert run.lane.table.counts.outcomes["unknown_ping", "pc"] == 1


@pytest.mark.parametrize(
    ("session", "time_ms", "ends"),
    [("t", 500, ["t"]), ("s", 500, ["s"]), ("", 500, [f"{T + 500}"]), ("s", 1_000, [])],
)
def test_ignored_ping_that_might_have_opened_a_session_brings_an_end_for_it(
    session: str, time_ms: int, ends: list[str]
) -> None:
    """A crashed run may have announced it, as it read another partition first."""
    run = Run()
    run.give(start(1_000), end(1_100))
    records = run.lane.apply([ping(time_ms, session=session, opens=True)], run.now_ms).records
    assert [event.session_id for event in records.ends_if_open] == ends
    assert not run.lane.apply([ping(time_ms, session=session)], run.now_ms).records.ends_if_open
    assert run.lane.table.counts.outcomes["unknown_ping", "pc"] == 2


def test_ping_of_a_session_whose_end_came_already_opens_nothing() -> None:
    """The end waits for the start."""
    run = Run()
    run.give(end(1_000))
    assert run.give(ping(900, opens=True)) == []


# Stops, kills and outages.


def test_stop_that_devices_did_not_notice_ends_nobody_falsely_and_silent_ones_later() -> None:
    """What came in ten minutes is in the input; who is not heard of may only be held up."""
    run = Run()
    run.give(start(0), start(0, B))
    input_ = [ping(ms) for ms in range(5_000, 600_000, 5_000)]
    assert run.restart(600_000, *input_) == ["beat 20@600000", "1 beat 20@600000"]
    assert run.give(ping(605_000)) == []
    assert run.wait_until(610_000) == ["1 went_silent@610000 lasted 0"]


def test_device_that_was_silent_while_nobody_listened_says_so_by_its_own_times() -> None:
    """Its next event is later than its timeout, whatever else may be held up."""
    run = Run()
    run.give(start(0), start(0, B))
    run.wait_until(4_000)
    others = [ping(ms, B) for ms in range(5_000, 30_000, 5_000)]
    input_ = ping(9_000), *others, ping(28_000, session="t", opens=True)
    assert run.restart(29_000, *input_) == ["went_silent@19000 lasted 9000", "active t@28000"]


@pytest.mark.parametrize(
    ("away_ms", "want"),
    [
        (RESTART_MS, ["1 went_silent@14000 lasted 4000", "went_silent@19000 lasted 9000"]),
        (RESTART_MS + 1, ["1 went_silent@23501 lasted 4000", "went_silent@23501 lasted 9000"]),
    ],
)
def test_run_that_is_back_at_once_sends_what_it_would_have_sent(
    away_ms: int, want: list[str]
) -> None:
    """A kill changes no end, unless a partition can have been away meanwhile."""
    run = Run()
    run.give(start(0), start(0, B))
    run.give(ping(4_000), ping(4_000, B))
    run.wait_until(8_500)
    run.store.commit(run.lane)
    run.wait_until(9_500)
    records = run.kill(8_500 + away_ms, ping(9_000)) + run.wait_until(25_000)
    assert sorted(records) == want


def test_partition_that_was_lost_just_before_a_kill_lets_nobody_go_silent() -> None:
    """The next run finds it read to its end; what its senders hold back comes after that."""
    run = Run()
    run.give(start(0), start(0, B))
    run.wait_until(2_000)
    run.hold_at(3_000)
    run.wait_until(4_400)
    run.store.commit(run.lane)
    others = [ping(ms) for ms in range(2_000, 9_500, 500)]
    assert run.kill(9_500, *others) == []
    assert run.rested
    assert run.wait_until(17_000) == []
    assert run.read(*[ping(ms, B) for ms in range(3_000, 17_000, 3_000)]) == []
    assert run.wait_until(20_000) == ["went_silent@19500 lasted 9000"]
    assert run.lane.table.find(B)


def test_run_that_is_back_after_long_ends_nobody_before_all_is_read() -> None:
    """Where time goes on with what is read, sessions are in partitions that are behind."""
    run = Run(Rules(30_000, 3_600_000, catch_up="all"))
    run.give(start(0), start(0, B))
    run.store.commit(run.lane)
    others = [ping(ms) for ms in range(3_000, 25_000, 3_000)]
    assert run.kill(26_000, *others, behind_ms=20_000) == []
    assert run.lane.watermark_ms == T + 20_000
    run.restart(28_000, behind_ms=27_000)
    assert run.lane.watermark_ms == T + 27_000
    assert run.read(*[ping(ms, B) for ms in range(3_000, 28_000, 3_000)]) == []
    run.at_end()
    assert run.wait_until(38_000) == ["beat 1@30000", "1 beat 1@30000"]
    ends = run.wait_until(40_000)
    assert sorted(ends) == ["1 went_silent@39000 lasted 27000", "went_silent@39000 lasted 24000"]


def test_first_input_of_all_is_taken_as_it_is_after_a_kill() -> None:
    """Time has never come anywhere, so nothing was missed."""
    run = Run()
    run.lane = Lane(LANE, LANES, RULES)
    run.give(start(0))
    run.store.commit(run.lane)
    assert run.kill(20_000) == ["went_silent@10000 lasted 0"]


def test_session_that_had_gone_silent_before_a_snapshot_stays_so() -> None:
    """Its end is not in the journal, but time was there already."""
    run = Run()
    run.give(start(0))
    run.wait_until(11_000)
    assert run.restart(12_000) == []
    assert run.wait_until(60_000) == []


def test_time_that_stood_still_is_no_silence() -> None:
    """Ten minutes without Kafka: nobody could be heard, so all have a whole timeout again."""
    run = Run()
    run.give(start(0), start(0, B))
    run.wait_until(5_000)
    run.hold_at(5_500)
    assert run.wait_until(600_000) == []
    run.at_end()
    assert run.jump_to(600_100) == ["beat 20@600000", "1 beat 20@600000"]
    assert run.give(ping(603_000)) == []
    ends = [text for text in run.wait_until(625_000) if "silent" in text]
    assert ends == ["1 went_silent@610100 lasted 0", "went_silent@613000 lasted 603000"]


def test_one_partition_without_a_leader_is_no_silence() -> None:
    """Others go on being read while time stands still; nobody is judged by their times."""
    run = Run()
    run.give(start(0), start(0, B))
    run.wait_until(5_000)
    run.hold_at(5_500)
    run.wait_until(5_600)
    for ms in range(6_000, 600_000, 1_000):
        assert run.give(ping(ms)) == []
    run.at_end()
    records = run.give(end(600_000, B)) + run.wait_until(608_000)
    assert not [text for text in records if "silent" in text]
    assert records[-1] == "1 ended@600000 lasted 600000"
    (end_,) = run.wait_until(612_000)
    assert end_.startswith("went_silent@61")
    assert end_.endswith(" lasted 599000")


def test_partition_that_is_behind_and_cannot_be_read_is_no_silence() -> None:
    """Time stands still for it, while others are read; then its devices have a whole timeout."""
    run = Run()
    run.give(start(0), start(0, B))
    run.wait_until(5_000)
    run.lane.update(PartitionProgress("topic/1", 1, T + 5_100, added=True))
    for ms in range(6_000, 600_000, 1_000):
        assert run.give(ping(ms)) == []
    run.lane.update(PartitionProgress("topic/1", 1, T + 7_000, added=True))
    assert run.jump_to(600_100) == []
    run.lane.update(PartitionProgress("topic/1", 1, T + 600_100, added=True))
    run.jump_to(600_200)
    run.lane.update(PartitionProgress("topic/1", 1, None, added=True))
    assert not [text for text in run.wait_until(608_900) if "silent" in text]
    ends = [text for text in run.wait_until(620_000) if "silent" in text]
    assert sorted(ends) == [
        "1 went_silent@610100 lasted 0",
        "went_silent@610100 lasted 599000",
    ]


@pytest.mark.parametrize("killed", [False, True])
def test_partition_that_is_left_lets_nobody_go_silent(*, killed: bool) -> None:
    """Time goes on without it, but its devices are not heard; then silence begins anew."""
    run = Run()
    run.give(start(0, idle_ms=IDLE_MS), start(0, B), start(0, C, idle_ms=0))
    run.wait_until(5_000)
    run.lane.update(PartitionProgress("topic/1", 1, None, left=True, added=True))
    records = run.wait_until(59_000)
    assert records == ["beat 1@30000", "1 beat 1@30000", "2 beat 1@30000"]
    if killed:
        run.restart(59_500)
        run.lane.update(PartitionProgress("topic/1", 1, None, left=True, added=True))
        assert run.wait_until(59_900) == []
    run.lane.update(PartitionProgress("topic/1", 1, T + 59_900, added=True))
    assert run.wait_until(59_950) == []
    run.lane.update(PartitionProgress("topic/1", 1, None, added=True))
    assert not [text for text in run.wait_until(68_000) if "silent" in text]
    run.give(ping(68_500))
    ends = [text for text in run.wait_until(100_000) if "silent" in text]
    assert [end.partition("@")[0] for end in ends] == ["1 went_silent", "went_silent"]
    assert ends[1] == "went_silent@78500 lasted 68500"


def test_run_that_comes_back_after_kafka_did_ends_nobody_falsely() -> None:
    """No fact is there of a long while, so nobody could be heard in it."""
    run = Run()
    run.give(start(0), start(0, B))
    records = run.restart(698_000, ping(690_000))
    assert not [text for text in records if "silent" in text]
    ends = [text for text in run.wait_until(720_000) if "silent" in text]
    assert sorted(ends) == ["1 went_silent@708000 lasted 0", "went_silent@708000 lasted 690000"]


def test_outage_that_ended_is_known_after_a_kill() -> None:
    """When silence began anew is stored before it counts."""
    run = Run()
    run.give(start(0), start(0, B), start(0, C))
    run.wait_until(5_000)
    run.hold_at(5_500)
    run.wait_until(100_000)
    run.at_end()
    run.jump_to(100_100)
    run.give(ping(101_000, B))
    run.restart(101_100)
    ends = [text for text in run.wait_until(120_000) if "silent" in text]
    assert sorted(ends) == [
        "1 went_silent@111000 lasted 101000",
        "2 went_silent@110100 lasted 0",
        "went_silent@110100 lasted 0",
    ]


def test_session_that_was_silent_before_an_outage_is_not_there_after_a_kill() -> None:
    """It had ended when the outage began, and does not come back with what is restored."""
    run = Run()
    run.give(start(0))
    run.give(start(9_000, B))
    run.wait_until(12_000)
    run.hold_at(12_500)
    run.wait_until(100_000)
    run.at_end()
    run.jump_to(100_100)
    assert run.restart(100_200) == []
    assert run.lane.table.find(A) is None
    assert run.lane.table.find(B)


def test_ping_that_is_read_late_after_a_kill_counts() -> None:
    """Another partition is read first, from after an outage; the ping is in one not yet read."""
    run = Run()
    run.give(start(0), start(0, B))
    run.wait_until(9_000)
    run.store.commit(run.lane)
    pings = [ping(ms) for ms in range(9_900, 60_000, 9_900)]
    records = run.kill(60_000, ping(25_000, B), *pings)
    records += run.wait_until(80_000)
    ends = [text for text in records if "silent" in text]
    assert sorted(ends) == ["1 went_silent@70000 lasted 25000", "went_silent@70000 lasted 59400"]


def test_what_follows_from_an_outage_waits_until_that_is_stored() -> None:
    """A run that is killed before may decide otherwise."""
    run = Run()
    run.give(start(0), start(0, B))
    run.wait_until(5_000)
    run.hold_at(5_500)
    run.wait_until(6_500)
    run.at_end()
    run.wait_until(9_000)
    assert not run.rested  # for that was short
    run.hold_at(9_500)
    run.wait_until(30_000)
    run.at_end()
    run.jump_to(30_100)
    assert run.rested


def test_partition_that_cannot_be_read_for_some_seconds_is_no_silence() -> None:
    """Even if it has not been read to its end when time goes on."""
    run = Run()
    run.give(start(0), start(0, B))
    run.wait_until(8_000)
    run.lane.update(PartitionProgress("topic/1", 1, T + 8_100, added=True))
    assert run.give(ping(13_000)) == []
    run.lane.update(PartitionProgress("topic/1", 1, T + 9_000, added=True))
    run.wait_until(13_500)
    run.lane.update(PartitionProgress("topic/1", 1, None, added=True))
    ends = [text for text in run.wait_until(25_000) if "silent" in text]
    assert sorted(ends) == ["1 went_silent@23500 lasted 0", "went_silent@23500 lasted 13000"]


def test_time_that_goes_on_to_before_the_end_of_an_outage_changes_nothing() -> None:
    """Silence never begins earlier than was noted, so a restore has the ends of the live run."""
    ends = []
    for restarts in (False, True):
        run = Run()
        run.give(start(0), start(0, B))
        run.wait_until(8_000)
        run.lane.update(PartitionProgress("topic/1", 1, T + 8_100, added=True))
        run.give(ping(20_000))
        run.lane.update(PartitionProgress("topic/1", 1, T + 9_000, added=True))
        run.jump_to(20_050)
        assert run.lane.hearing_ms == T + 20_050
        run.lane.update(PartitionProgress("topic/1", 1, T + 19_500, added=True))
        run.jump_to(20_100)
        assert run.lane.watermark_ms > T + 19_000
        assert run.lane.hearing_ms == T + 20_050
        records = run.restart(20_150) if restarts else []
        run.lane.update(PartitionProgress("topic/1", 1, None, added=True))
        records += run.wait_until(40_000)
        ends.append([text for text in records if "silent" in text])
    assert ends[0] == ends[1] == ["went_silent@30050 lasted 20000", "1 went_silent@30050 lasted 0"]


SENT = 10_000  # when the session went silent, as a run that was killed has sent


def test_ping_that_came_after_a_sent_end_revives_nobody() -> None:
    """The killed run had read it too late; the next one reads it before time has come so far."""
    run = Run()
    run.give(start(0), start(0, B))
    run.wait_until(9_000)
    run.store.commit(run.lane)
    records = run.kill(12_000, ping(9_500), s=SENT)
    assert records == ["ended@10000 lasted 10000", "1 went_silent@10000 lasted 0"]
    assert run.restart(13_000) == []
    assert run.lane.table.find(A) is None


@pytest.mark.parametrize("waits", [False, True])
def test_fact_after_a_sent_end_finds_the_session_ended(*, waits: bool) -> None:
    """So a ping opens what it opened in the killed run, whenever it is read."""
    run = Run()
    run.give(start(0), start(0, B, idle_ms=0))
    run.wait_until(9_000)
    run.store.commit(run.lane)
    facts = [ping(9_500), ping(11_000, session="t", opens=True), ping(12_000, B)]
    read, waiting = ([], facts) if waits else (facts, [])
    records = run.kill(13_000, *read, waiting=waiting, s=SENT)
    assert records == ["ended@10000 lasted 10000", "active t@11000"]
    assert run.restart(14_000) == []
    session = run.lane.table.find(A)
    assert session is not None
    assert session.started_ms == T + 11_000
    assert run.wait_until(21_000) == ["went_silent@21000 lasted 0"]
    assert run.lane.table.find(B)


def test_sent_end_of_a_session_that_begins_again_is_known() -> None:
    """Its start is after the snapshot, and is read again."""
    run = Run()
    run.give(start(0, B, idle_ms=0))
    run.store.commit(run.lane)
    assert run.kill(30_000, start(0), ping(25_000, B), s=SENT) == [
        "active s@0",
        "ended@10000 lasted 10000",
        "1 beat 1@30000",
    ]


@pytest.mark.parametrize(
    ("input_", "waiting"), [([], []), ([ping(11_000)], []), ([], [ping(11_000)])]
)
@pytest.mark.parametrize("sent_ms", [SENT - 1, SENT])
def test_sent_end_is_counted_as_one_of_silence(
    input_: list[Fact], waiting: list[Fact], sent_ms: int
) -> None:
    """Once, whether this run would have ended the session then or later."""
    run = Run()
    run.give(start(0), start(0, B, idle_ms=0))
    run.wait_until(9_000)
    run.store.commit(run.lane)
    run.kill(13_000, *input_, waiting=waiting, s=sent_ms)
    counted = dict(run.lane.table.counts.outcomes)
    assert counted.pop(("unknown_ping", "pc"), 0) == len(input_ + waiting)
    assert counted == {("went_silent", "pc"): 1}
    run.give(end(14_000, B))
    assert run.lane.table.counts.outcomes["ended", "pc"] == 1


def test_sent_end_that_is_still_to_come_waits_for_its_time() -> None:
    """A clock was ahead."""
    run = Run()
    run.give(start(0))
    run.store.commit(run.lane)
    assert run.kill(2_000, s=SENT, other=1_000) == []
    assert run.wait_until(9_999) == []
    assert run.give(ping(9_999)) == []
    assert run.wait_until(11_000) == ["ended@10000 lasted 10000"]


def test_sent_end_counts_while_input_is_behind() -> None:
    """Time has come to it, though not all has been read."""
    run = Run()
    run.give(start(0))
    run.store.commit(run.lane)
    assert run.kill(9_000, s=SENT) == []
    run.give(ping(9_500))
    run.lane.update(PartitionProgress("topic/0", 1, T + 10_500))
    assert run.wait_until(11_000) == ["ended@10000 lasted 10000"]


def test_outage_that_is_found_before_the_sessions_are_there_counts() -> None:
    """Facts that wait tell it."""
    run = Run()
    run.give(start(0), start(0, B))
    run.wait_until(5_000)
    run.store.commit(run.lane)
    waiting = [ping(25_000, C), ping(26_000)]
    assert run.kill(27_000, waiting=waiting) == []
    ends = [text for text in run.wait_until(40_000) if "silent" in text]
    assert ends == ["1 went_silent@35000 lasted 0", "went_silent@36000 lasted 26000"]


def test_base_from_after_an_outage_knows_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A restore applies to it no entry from before."""
    monkeypatch.setattr("session_logic.journal.SEGMENT_BYTES", 1)
    run = Run()
    run.give(start(0), start(0, B))
    run.wait_until(5_000)
    run.hold_at(5_500)
    run.wait_until(100_000)
    run.at_end()
    run.jump_to(100_100)
    run.give(ping(101_500))
    run.give(ping(103_000))
    run.restart(103_100)
    ends = [text for text in run.wait_until(120_000) if "silent" in text]
    assert ends == ["1 went_silent@110100 lasted 0", "went_silent@113000 lasted 103000"]


def test_store_of_the_version_before_keeps_what_it_had_ended() -> None:
    """Whose end was due in the first 2 s of an outage had ended; those rows are written anew."""
    run = Run()
    run.give(start(0), start(1_000, B))
    run.wait_until(9_000)
    run.hold_at(9_500)
    for ms in range(10_000, 100_000, 10_000):
        run.give(ping(ms, C))  # the outage goes on
    run.at_end()
    run.jump_to(100_100)
    run.lane.update(PartitionProgress("topic/0", 1, T + 90_000))
    run.give(start(120_000, C))
    run.store.commit(run.lane)
    assert run.store.state is not None
    run.store.state[0] = STALLING_VERSION
    state = read_lane_state(run.store.state)
    assert Lane(LANE, LANES, RULES, state).state().version == STALLING_VERSION
    assert not [text for text in run.kill(121_000) if "silent" in text]
    assert run.lane.table.find(A) is None
    assert run.lane.table.find(B) is None
    assert run.lane.state().version == LISTENING_VERSION
    run.restart(122_000)
    assert run.lane.table.find(A) is None


def test_store_without_such_sessions_stays_as_it_was() -> None:
    """Earlier programs read it."""
    run = Run()
    run.give(start(0, idle_ms=0))
    assert run.lane.state().version == STATE_VERSION
    run.give(start(1, B))
    assert run.lane.state().version == LISTENING_VERSION


def test_moved_lanes_take_along_what_was_heard() -> None:
    """Silence goes on counting where it did."""
    run = Run()
    run.give(start(0))
    run.give(ping(4_000))
    move = Move(1)
    rows = list(move.take(run.lane))
    (state,) = move.states()
    lane = Lane(0, 1, RULES, state, T + 5_000)
    for row in rows:
        lane.restore(row, T + 5_000)
    lane.update(PartitionProgress("topic/0", 1, None))
    assert not lane.advance(T + 5_000).records
    records = [
        record for s in range(6, 16) for record in decoded(lane.advance(T + s * 1_000).records)
    ]
    assert shown(records) == ["went_silent@14000 lasted 4000"]


def test_rules_that_change_leave_what_was_heard() -> None:
    """A session keeps its own timeout."""
    run = Run()
    run.give(start(0))
    run.give(ping(4_000))
    run.restart(5_000, rules=replace(RULES, heartbeat_ms=7_000, intervals_ms=(), sent_ms=()))
    assert run.wait_until(20_000) == ["went_silent@14000 lasted 4000"]


# No heartbeats.


def test_without_heartbeats_there_are_starts_and_ends() -> None:
    """The wheel turns all the same: for timeouts, and to forget what has ended."""
    run = Run(Rules(0, 100_000))
    run.give(start(0, idle_ms=0), start(0, B))
    assert run.wait_until(99_999) == ["1 went_silent@10000 lasted 0"]
    assert run.wait_until(100_000) == ["timed_out@100000 lasted 100000"]
    run.give(start(100_500, session="t"))
    assert run.wait_until(400_000) == ["went_silent@110500 lasted 0"]
    assert not run.lane.table.wheel


def test_sessions_keep_beating_when_heartbeats_are_turned_off() -> None:
    """A session keeps the interval with which it started, and none is one."""
    run = Run()
    run.give(start(0, idle_ms=0))
    run.restart(1_000, rules=Rules(0, 3_600_000))
    run.give(start(2_000, B, idle_ms=0))
    assert run.wait_until(61_000) == ["beat 1@30000", "beat 2@60000"]
    run.restart(62_000, rules=RULES)
    assert run.wait_until(91_000) == ["beat 3@90000"]
