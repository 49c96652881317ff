"""What an output topic must hold, and every way in which it does not.

The reference model says what must come of each session (`expected`). A `Checker` follows each
session through the records of the topic: it is absent, then active, then ended. TRANSITIONS says
what each record means in each state; a record that is in its place is then compared, field by
field, with what the model says. Every difference has a name, so that "nothing lost and nothing
doubled" is one assertion: `not check.differences`.

Records must come in the order of their partitions. All records of a device are in one partition,
so the order of partitions does not matter.
"""

from collections import Counter
from collections.abc import Iterable
from enum import Enum, StrEnum, auto

from msgspec import UNSET, Struct, field
from msgspec.structs import replace

from session_logic.events import (
    Fact,
    Heartbeat,
    OutputEvent,
    SessionActive,
    SessionEnd,
    Watermark,
)
from session_logic.rules import Rules, as_context
from tests.support.events import kinds
from tests.support.model import Model

SHOWN = 5
NOTHING_FIRED = Watermark(-1)


class State(Enum):
    """How far the output of a session has come."""

    ABSENT = auto()
    ACTIVE = auto()
    ENDED = auto()


class Difference(StrEnum):
    """What can be amiss."""

    MISSING_SESSION = "missing session"  # it never begins
    MISSING_HEARTBEAT = "missing heartbeat"
    MISSING_END = "missing end"
    DOUBLED = "doubled"  # a record is there again
    MISORDERED = "misordered"  # a record is there before or after its place
    FOREIGN = "foreign"  # no input names this session
    WRONG = "wrong"  # a field has another value than the model says


TRANSITIONS: dict[tuple[State, type], tuple[State, Difference | None]] = {
    (State.ABSENT, SessionActive): (State.ACTIVE, None),
    (State.ABSENT, Heartbeat): (State.ABSENT, Difference.MISORDERED),
    (State.ABSENT, SessionEnd): (State.ABSENT, Difference.MISORDERED),
    (State.ACTIVE, SessionActive): (State.ACTIVE, Difference.DOUBLED),
    (State.ACTIVE, Heartbeat): (State.ACTIVE, None),  # if its sequence is the next one
    (State.ACTIVE, SessionEnd): (State.ENDED, None),
    (State.ENDED, SessionActive): (State.ENDED, Difference.DOUBLED),
    (State.ENDED, Heartbeat): (State.ENDED, Difference.MISORDERED),
    (State.ENDED, SessionEnd): (State.ENDED, Difference.DOUBLED),
}


class Expected(Struct, gc=False):
    """What must come of a session."""

    start: Fact
    heartbeats: int = 0
    end: SessionEnd | None = None


def expected(facts: Iterable[Fact], rules: Rules, upto_ms: int) -> dict[str, Expected]:
    """Return what the reference model makes of the input by a moment: session -> Expected.

    No two sessions may have the same id.
    """
    model = Model(rules)
    sessions: dict[str, Expected] = {}

    def note(fact: Fact | None, events: list[OutputEvent]) -> None:
        for event in events:
            if isinstance(event, SessionActive):
                assert fact is not None
                assert event.session_id not in sessions, f"{event.session_id} begins twice"
                sessions[event.session_id] = Expected(fact)
            elif isinstance(event, Heartbeat):
                sessions[event.session_id].heartbeats = event.sequence
            else:
                sessions[event.session_id].end = event

    for fact in facts:
        note(fact, model.apply(fact, NOTHING_FIRED))
    note(None, model.advance(-1, upto_ms, newest_only=False))
    return sessions


class Check(Struct):
    """What was found: nothing but `raced` may differ from the model."""

    sessions: int = 0
    records: int = 0
    # Heartbeats that were sent before an end with an earlier timestamp was read.
    raced: int = 0
    # Ends of silent sessions, and those among them that an outage has put off.
    silent: int = 0
    put_off: int = 0
    differences: Counter[Difference] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def note(self, difference: Difference, what: object, count: int = 1) -> None:
        """Count a difference, and keep the first few for whoever reads the failure."""
        self.differences[difference] += count
        if len(self.examples) < SHOWN:
            self.examples.append(f"{difference}: {what}")


class Followed(Struct, gc=False):
    """How far the output of a session has come."""

    state: State = State.ABSENT
    heartbeats: int = 0  # the sequence of the last one
    gaps: tuple[int, ...] = ()  # sequences before the last one that are not there

    def beat(self, sequence: int) -> bool:
        """Take a heartbeat in; say whether it is there for the first time."""
        if sequence > self.heartbeats:
            self.gaps += tuple(range(self.heartbeats + 1, sequence))
            self.heartbeats = sequence
            return True
        first = sequence in self.gaps
        self.gaps = tuple(gap for gap in self.gaps if gap != sequence)
        return first


class Checker:
    """Follows the sessions of an output topic, record by record."""

    def __init__(
        self, sessions: dict[str, Expected], rules: Rules, *, outages: bool = False
    ) -> None:
        """Expect these sessions; after outages, which are no silence, silent ones end later."""
        self.check = Check(sessions=len(sessions))
        self._expected = sessions
        self._outages = outages
        self._heartbeat_ms = rules.heartbeat_ms
        self._carry_in_heartbeats = rules.carry_in_heartbeats
        self._followed: dict[str, Followed] = {}
        self._active: dict[str, str] = {}  # the session of each device

    def take(self, event: OutputEvent) -> None:
        """Follow a session by one record."""
        self.check.records += 1
        want = self._expected.get(event.session_id)
        if want is None:
            self.check.note(Difference.FOREIGN, event)
            return
        got = self._followed.get(event.session_id)
        if got is None:
            got = self._followed[event.session_id] = Followed()
        got.state, difference = TRANSITIONS[got.state, type(event)]
        if isinstance(event, Heartbeat):
            difference = self._order(got, event, difference)
        if difference is not None:
            self.check.note(difference, event)
        elif not self._is_right(self._put_off(want, event), got, event):
            self.check.note(Difference.WRONG, event)
        else:
            self._change_device(event)

    def _put_off(self, want: Expected, event: OutputEvent) -> Expected:
        """Expect the end of a silent session when it came, if that may be later than foreseen.

        Heartbeats go on until then.
        """
        end = want.end
        if not isinstance(event, SessionEnd) or end is None or end.reason != "went_silent":
            return want
        self.check.silent += 1
        if self._outages and event.time_ms > end.time_ms:
            self.check.put_off += 1
            want.end = replace(end, time_ms=event.time_ms)
            want.heartbeats = (event.time_ms - end.started_ms) // self._heartbeat_ms
        return want

    @staticmethod
    def _order(got: Followed, event: Heartbeat, difference: Difference | None) -> Difference | None:
        """Return what a heartbeat's sequence says of its place."""
        last = got.heartbeats
        if not got.beat(event.sequence):
            return Difference.DOUBLED
        return Difference.MISORDERED if event.sequence < last else difference

    def _is_right(self, want: Expected, got: Followed, event: OutputEvent) -> bool:
        """Say whether every field of a record is as the model says.

        An end that was read after a later heartbeat had been sent has the time of that heartbeat.
        """
        if isinstance(event, SessionEnd):
            if want.end is None or got.heartbeats <= want.heartbeats:
                return event == want.end
            duration_ms = got.heartbeats * self._heartbeat_ms
            time_ms = want.start.time_ms + duration_ms
            return event == replace(want.end, time_ms=time_ms, duration_ms=duration_ms)
        start = want.start
        time_ms = start.time_ms
        if isinstance(event, Heartbeat):
            time_ms += event.sequence * self._heartbeat_ms
        has_context = self._carry_in_heartbeats or not isinstance(event, Heartbeat)
        context = as_context(start.carried) if has_context else UNSET
        found = event.time_ms, event.started_ms, event.device_id, event.platform, event.context
        return found == (time_ms, start.time_ms, start.device_id, start.platform, context)

    def _change_device(self, event: OutputEvent) -> None:
        """Let a device have at most one session: the one before ends first."""
        if isinstance(event, SessionActive):
            if event.device_id in self._active:
                self.check.note(Difference.MISORDERED, event)
            self._active[event.device_id] = event.session_id
        elif isinstance(event, SessionEnd) and self._active.get(event.device_id) == (
            event.session_id
        ):
            del self._active[event.device_id]

    def finish(self, through_ms: int) -> Check:
        """Look for what is not there; what is due after through_ms may be missing."""
        for session, want in self._expected.items():
            got = self._followed.get(session)
            if got is None or got.state is State.ABSENT:
                self.check.note(Difference.MISSING_SESSION, session)
                continue
            due = want.heartbeats
            if got.state is State.ACTIVE:
                elapsed_ms = max(0, through_ms - want.start.time_ms)
                due = min(due, elapsed_ms // self._heartbeat_ms)
                if want.end is not None and want.end.time_ms <= through_ms:
                    self.check.note(Difference.MISSING_END, want.end)
            missing = sum(gap <= due for gap in got.gaps) + max(0, due - got.heartbeats)
            if missing:
                what = f"{missing} of {session}, which has {got.heartbeats} without {got.gaps}"
                self.check.note(Difference.MISSING_HEARTBEAT, what, missing)
            if want.end is not None:
                self.check.raced += max(0, got.heartbeats - want.heartbeats)
        return self.check


def check_output(
    events: Iterable[OutputEvent],
    sessions: dict[str, Expected],
    rules: Rules,
    through_ms: int,
    *,
    outages: bool = False,
) -> Check:
    """Compare output with the model; what is due after through_ms may be missing.

    After outages, silent sessions may end later than the model says, which knows of none.
    """
    checker = Checker(sessions, rules, outages=outages)
    for event in events:
        checker.take(event)
    return checker.finish(through_ms)


def check_whole(sessions: dict[str, list[OutputEvent]]) -> None:
    """Check without a model: each session begins once, beats in sequence, and ends at most once."""
    for session, events in sessions.items():
        beats = sum(isinstance(event, Heartbeat) for event in events)
        ends = [word for word in kinds(events) if word.startswith("end ")][:1]
        right = ["active", *(f"beat {n}" for n in range(1, beats + 1)), *ends]
        assert kinds(events) == right, session
