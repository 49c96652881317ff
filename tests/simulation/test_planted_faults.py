"""Faults that are planted in the rules: the simulations find each within some histories.

Those of the journal and the boundaries are in test_lane, those of Kafka and the clocks in
test_flow.
"""

from collections import Counter
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from session_logic import journal, lane, restoring, table, transitions
from session_logic.errors import HeartwheelError
from session_logic.events import Fact, Heartbeat, OutputEvent
from session_logic.lane import Lane
from session_logic.lane_time import Phase
from session_logic.restoring import LaneState
from session_logic.rules import Rules, Session, early_end, has_begun
from session_logic.table import SessionTable
from session_logic.transitions import TRANSITIONS, Change, Input, State
from tests.simulation.lane import PARTS, Simulation, simulate
from tests.support.lanes import DEVICES

# The other tests cover session_logic whole; measuring these, too, would take several times as long.
pytestmark = pytest.mark.no_cover
# A fault must be found in fewer histories than this.
SEARCH = 100
Plant = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 300)
    monkeypatch.setattr(lane, "MAX_FIRED_RECORDS", 6)


def act_on_a_late_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a start that is older than one that was acted on open its session."""

    def open_late(table: SessionTable, change: Change) -> list[OutputEvent]:
        if change.active is None:
            return transitions.open_session(table, change)
        return transitions.replace_session(table, change)

    monkeypatch.setitem(TRANSITIONS, (State.OVERTAKEN, Input.START), open_late)


def forget_an_early_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count an end that comes before its start, and no more."""
    for state in (State.IDLE, State.BUSY):
        monkeypatch.setitem(TRANSITIONS, (state, Input.END), transitions.ignore_end)


def restore_no_early_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lose what is remembered of early ends when key groups are written whole."""
    encode = lane.encode_sessions

    def lossy(sessions: list[Session]) -> bytes:
        return encode([session for session in sessions if has_begun(session)])

    monkeypatch.setattr(lane, "encode_sessions", lossy)


def restore_no_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lose what sessions carry when they come back from the rows of their key groups."""
    decode = restoring.decode_sessions
    monkeypatch.setattr(restoring, "decode_sessions", lambda blob, **_: decode(blob))


def remember_no_context_of_an_early_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep of an end that comes before its start what a plain one has."""

    def plain(fact: Fact, rules: Rules) -> Session:
        return early_end(replace(fact, carried=b""), rules)

    monkeypatch.setattr(transitions, "early_end", plain)


def end_a_later_session_without_an_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an end without a session id end what is active, whenever that began."""

    state_of = transitions.state_of

    def ends_whatever(table: SessionTable, change: Change) -> State:
        if change.active is not None and not change.fact.session_id:
            return State.ACTIVE
        return state_of(table, change)

    monkeypatch.setattr(transitions, "state_of", ends_whatever)


def end_before_a_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an end have its own time, whatever is out."""
    monkeypatch.setattr(table, "earliest_end_ms", lambda session, *_: session.started_ms)


def fire_all_of_a_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the time before a first start for no outage."""
    begin = Lane.__init__

    def live(self: Lane, *arguments: object) -> None:
        begin(self, *arguments)  # type: ignore[arg-type]
        if self.time.phase is Phase.CATCHING_UP:
            self.time.phase = Phase.LIVE

    monkeypatch.setattr(Lane, "__init__", live)


def apply_other_settings_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let running sessions beat in the interval of the new run."""
    monkeypatch.setattr(LaneState, "rules_or", lambda _, rules: rules)


def store_the_rules_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Store only the newest interval, and not those that older sessions have."""
    stored = restoring.stored_rules

    def short(rules: Rules) -> restoring.StoredRules:
        return stored(Rules(rules.heartbeat_ms, rules.max_session_ms))

    monkeypatch.setattr(lane, "stored_rules", short)


def remember_for_a_heartbeat_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what has ended before the deduplication window is over."""

    def short_ms(session: Session, rules: Rules) -> int:
        return session.ended_ms + rules.intervals_ms[session.interval]

    monkeypatch.setattr(table, "drop_ms", short_ms)
    monkeypatch.setattr(transitions, "drop_ms", short_ms)


def take_a_duplicate_for_a_relaunch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a start in the window open a session, whoever has set its timestamp."""

    def is_repeated(session: Session, _rules: Rules, fact: Fact) -> bool:
        return fact.time_ms <= session.ended_ms

    monkeypatch.setattr(transitions, "is_repeated", is_repeated)


def take_a_relaunch_for_a_duplicate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a start that its sender has stamped after the end be a duplicate in the window."""

    def is_repeated(session: Session, rules: Rules, fact: Fact) -> bool:
        return fact.time_ms < max(1, session.ended_ms + rules.deduplication_window_ms)

    monkeypatch.setattr(transitions, "is_repeated", is_repeated)


FAULTS: list[Plant] = [
    act_on_a_late_start,
    forget_an_early_end,
    restore_no_early_end,
    restore_no_context,
    remember_no_context_of_an_early_end,
    end_a_later_session_without_an_id,
    end_before_a_heartbeat,
    apply_other_settings_to_all,
    store_the_rules_of_the_shell,
    remember_for_a_heartbeat_only,
    take_a_duplicate_for_a_relaunch,
    take_a_relaunch_for_a_duplicate,
]


@pytest.mark.parametrize("plant", FAULTS)
def test_planted_fault_of_the_rules_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in some of the first histories of a lane."""
    plant(monkeypatch)
    with pytest.raises((AssertionError, HeartwheelError, LookupError)) as found:
        for seed in range(SEARCH):
            simulate(seed)
    assert any(note.startswith("seed=") for note in found.value.__notes__)


class FirstStart(Simulation):
    """A lane whose input has a long history when it starts for the first time."""

    def some_rules(self) -> Rules:
        """Return rules that leave out what was missed."""
        return replace(super().some_rules(), catch_up="latest")

    def a_fact(self) -> Fact:
        """Return the next one of the history, or one that changes nothing."""
        if self._came:
            return self._came.pop(0)
        return Fact(False, DEVICES[0], "unknown", "pc", self.now_ms)

    def run(self, steps: int) -> None:
        """Read so many sessions in order of time, with crashes, and then what is due now."""
        self._came = sorted(self._sessions(steps), key=lambda fact: fact.time_ms)
        while self._came:
            self._come_to(self._came[0].time_ms)
            self.facts()
            self.advance()
            if self.random.random() < 0.3:
                self.commit()
            if self.random.random() < 0.1:
                self.crash()
            while self.to_restore:
                self.restore_row()
        self._come_to(None)
        self.advance()
        while self.lane.behind(self.now_ms):
            self.advance()
        self._check()

    def put_clock_right(self) -> None:
        """Leave it: what comes is of the time before the start."""

    def _sessions(self, count: int) -> list[Fact]:
        facts = []
        for number in range(count):
            device, session = self.random.choice(DEVICES), f"s{number}"
            start_ms = self.now_ms - self.random.randrange(1, 60 * self.beat_ms)
            facts.append(Fact(True, device, session, "pc", start_ms, created=True))
            end_ms = start_ms + self.random.randrange(60 * self.beat_ms)
            if end_ms < self.now_ms:
                facts.append(Fact(False, device, session, "pc", end_ms, created=True))
        return facts

    def _come_to(self, watermark_ms: int | None) -> None:
        for part in PARTS:
            self._report(part, watermark_ms)

    def _check(self) -> None:
        """Check that each session has one heartbeat of the time before the start at most."""
        beats = Counter(
            (event.session_id, event.started_ms)
            for events in self.history.values()
            for event in events
            if isinstance(event, Heartbeat)
        )
        assert self.sent
        assert max(beats.values(), default=0) <= 1, beats


def find_first_start() -> int:
    """Raise the error of the first history that is wrong; else return how much was sent."""
    sent = 0
    for seed in range(SEARCH // 2):
        simulation = FirstStart(seed)
        simulation.run(12)
        sent += simulation.sent
    return sent


def test_history_of_a_first_start_is_an_outage() -> None:
    """Each session of it gets its newest heartbeat alone, whatever crashes meanwhile."""
    assert find_first_start() > 10 * SEARCH


def test_history_that_is_fired_whole_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time before a first start would be the flood of heartbeats that an outage is not."""
    fire_all_of_a_history(monkeypatch)
    with pytest.raises(AssertionError):
        find_first_start()
