"""Explains the records of one device by its facts, in the order in which its lane took them in.

What comes first is decided by time, unless time had come so far when a fact was read that a
heartbeat was out, or that a session was timed out or forgotten. How far it had come is not known,
but only how far it may have come. So every possibility that makes a difference is tried, until the
model has the sessions and ends that the log has.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from session_logic.events import Fact, Heartbeat, OutputEvent, SessionActive, SessionEnd, Watermark
from session_logic.keys import key_group_of
from session_logic.rules import QUIET_TURN_MS, Rules
from tests.simulation.history import Change, Ended, Heard
from tests.support.model import Ending, Model
from tests.support.model import Life as ModelLife

NEVER_MS = -1
Life = tuple[str, str, int]  # device, session, start


class Read(Struct):
    """A fact that was taken in, and how far time may have come then."""

    fact: Fact
    late_ms: int


Event = Read | Change | Heard | Ended


class _State(Struct):
    """What a lane may know of a device.

    late_ends has the ends, or the starts of other sessions, that were read after a later end.
    """

    lives: list[ModelLife] = []
    endings: list[Ending] = []
    late_ends: dict[Life, int] = {}
    rules: Rules | None = None
    hearing_ms: int = 0

    def name(self) -> Any:
        """Return what tells it from others."""
        return (
            tuple(
                (life.fact, life.interval_ms, life.ended_ms, life.sent_ms, life.last_seen_ms)
                for life in self.lives
            ),
            tuple(map(repr, self.endings)),
            tuple(sorted(self.late_ends.items())),
        )


class Explanation:
    """The facts of a device and its records; `find` says what happened."""

    def __init__(
        self, events: list[Event], records: list[OutputEvent], undone_ms: set[int], end_ms: int
    ) -> None:
        """Take the facts and changes of rules, of which the first is the beginning.

        undone_ms are the times at which a crashed run ended what was over the maximum.
        """
        self._events = events
        self._undone_ms = undone_ms
        self._end_ms = end_ms
        self._device = next(event.fact.device_id for event in events if isinstance(event, Read))
        self._order = [
            life for life, after in pairwise([*map(life_of, records), None]) if life != after
        ]
        self._lives = set(self._order)
        self._ends = {life_of(r): r for r in records if isinstance(r, SessionEnd)}
        self._beats_ms = {life_of(r): r.time_ms for r in records if isinstance(r, Heartbeat)}
        self._impossible: set[Any] = set()
        self._deepest = (-1, "")
        self.raced = 0

    def find(self) -> list[ModelLife]:
        """Return the device's sessions; raises AssertionError if nothing explains its records."""
        path = self._find(0, _State())
        if path is None:
            raise AssertionError(self._deepest[1])
        self.raced = sum(fired_ms != NEVER_MS for fired_ms, _ in path)
        return path[-1][1].lives

    def _find(self, index: int, state: _State) -> list[tuple[int, _State]] | None:
        """Return how it goes on from before a fact: with which times, and to which states."""
        if index == len(self._events):
            return self._finish(state)
        name = index, state.name()
        if name in self._impossible:
            return None
        event = self._events[index]
        for fired_ms, after in self._after(event, state):
            path = self._find(index + 1, after)
            if path is not None:
                return [(fired_ms, after), *path]
        self._impossible.add(name)
        self._note(index, f"{event} is nowhere to be seen in {self._order}")
        return None

    def _after(self, event: Event, state: _State) -> Iterator[tuple[int, _State]]:
        """Yield the states that an event may lead to, with how far time had come for it."""
        if isinstance(event, Change):
            return self._changed(event, state)
        if isinstance(event, Ended):
            return self._ended(event, state)
        return (
            self._heard(event, state) if isinstance(event, Heard) else self._possible(event, state)
        )

    def _note(self, index: int, what: str) -> None:
        """Keep what the explanation that came furthest could not explain."""
        if index > self._deepest[0]:
            self._deepest = index, what

    def _finish(self, state: _State) -> list[tuple[int, _State]] | None:
        """Let every session time out; None if the log has others or with other ends."""
        model = self._model(state)
        wanted = [life_of_fact(life.fact) for life in state.lives]
        if wanted != self._order:
            self._note(len(self._events), f"sessions {self._order} instead of {wanted}")
            return None
        for event in model.advance(NEVER_MS, self._end_ms, newest_only=False):
            found = self._ends.get(life_of(event))
            if isinstance(event, SessionEnd) and not self._has(event, self._end_ms):
                self._note(len(self._events), f"{found} instead of {event}")
                return None
        return [(NEVER_MS, state)]

    def _possible(self, read: Read, state: _State) -> Iterator[tuple[int, _State]]:
        """Yield the states that a fact may lead to, with how far time had come for it."""
        fact, known = read.fact, {life_of_fact(life.fact) for life in state.lives}
        seen = set()
        for endings in (state.endings, self._replayed(state)):
            for fired_ms in (NEVER_MS, *self._moments_ms(state, endings, read)):
                model = self._model(replace(state, endings=endings))
                events = model.apply(fact, Watermark(fired_ms))
                if not self._fits(read, events, known):
                    continue
                after = self._state(fact, model, state)
                if (name := after.name()) not in seen:
                    seen.add(name)
                    yield fired_ms, after

    def _model(self, state: _State) -> Model:
        """Return a model that knows what a lane may know."""
        assert state.rules is not None
        model = Model(state.rules)
        model.hearing_ms = state.hearing_ms
        model.lives[self._device] = [replace(life) for life in state.lives]
        model.endings[self._device] = state.endings
        return model

    def _changed(self, change: Change, state: _State) -> Iterator[tuple[int, _State]]:
        """Yield the state that other rules lead to, or that time begins again earlier.

        By the rules of before, time had come so far; what was sent by then is out, and what was
        forgotten by then stays forgotten.
        """
        if state.rules is None:
            yield NEVER_MS, replace(state, rules=change.rules)
            return
        model = self._model(state)
        events = model.advance(NEVER_MS, change.before_ms, newest_only=False)
        if change.sets_back:
            model.set_back(Watermark(change.before_ms))
        events += model.change_rules(change.rules, Watermark(change.watermark_ms))
        if all(self._has(e, change.before_ms) for e in events if isinstance(e, SessionEnd)):
            lives, endings = model.lives[self._device], model.endings[self._device]
            yield NEVER_MS, replace(state, lives=lives, endings=endings, rules=change.rules)

    def _heard(self, heard: Heard, state: _State) -> Iterator[tuple[int, _State]]:
        """Yield the state in which silence counts from another moment on."""
        model, watermark = self._model(state), heard.watermark.of(key_group_of(self._device))
        events = model.advance(NEVER_MS, watermark.upto_ms, newest_only=False)
        if all(self._has(e, watermark.upto_ms) for e in events if isinstance(e, SessionEnd)):
            lives = model.lives[self._device]
            endings = model.endings.get(self._device, [])
            yield NEVER_MS, replace(state, lives=lives, endings=endings, hearing_ms=heard.since_ms)

    def _ended(self, ended: Ended, state: _State) -> Iterator[tuple[int, _State]]:
        """Yield the state after an end that a crashed run has written."""
        model = self._model(state)
        if ended.fact.device_id == self._device:
            model.apply(ended.fact, Watermark(NEVER_MS))
        lives, endings = model.lives[self._device], model.endings.get(self._device, [])
        yield NEVER_MS, replace(state, lives=lives, endings=endings)

    @staticmethod
    def _state(fact: Fact, model: Model, before: _State) -> _State:
        """Return what is known after a fact."""
        late_ends = before.late_ends
        endings = model.endings.get(fact.device_id, [])
        for ending in endings:
            began_ms = ending.began_ms
            late = began_ms is not None and began_ms <= fact.time_ms < ending.ended_ms
            named = ending.session_id == fact.session_id or not fact.session_id
            ends_it = fact.is_start != named and (fact.is_start or not fact.ping)
            if late and ends_it:
                life = fact.device_id, ending.session_id, began_ms or 0
                earliest_ms = min(fact.time_ms, late_ends.get(life, fact.time_ms))
                late_ends = late_ends | {life: earliest_ms}
        lives = model.lives[fact.device_id]
        return replace(before, lives=lives, endings=endings, late_ends=late_ends)

    def _replayed(self, state: _State) -> list[Ending]:
        """Return the ends as a run may know them that was begun after a crash.

        The run before published an end, and was killed before it was stored. If an earlier end, or
        the earlier start of another session, had come meanwhile, the next run has read that one
        first: the record of the later end is out, and stays so, but what is remembered is the
        earlier one.
        """
        late_ends = {(session, ms): at for (_, session, ms), at in state.late_ends.items()}
        return [
            replace(
                ending,
                ended_ms=min(
                    ending.ended_ms,
                    late_ends.get((ending.session_id, ending.began_ms or 0), ending.ended_ms),
                ),
            )
            for ending in state.endings
        ]

    def _moments_ms(self, state: _State, endings: list[Ending], read: Read) -> list[int]:
        """Return the times that make a difference to a fact, if time had come so far.

        They are those of a timeout, of an end for silence, of a heartbeat that an end must not be
        before, and of an end that is remembered no longer.
        """
        rules = state.rules
        assert rules is not None
        window_ms, model = rules.deduplication_window_ms, self._model(state)
        moments_ms = [
            end.ended_ms + window_ms + (end.interval_ms or QUIET_TURN_MS) for end in endings
        ]
        for life in state.lives:
            started_ms, interval_ms = life.fact.time_ms, life.interval_ms
            timeout_ms = started_ms + rules.max_session_ms
            over_ms, _ = model.over(life)
            kept_ms = window_ms + (interval_ms or QUIET_TURN_MS)
            moments_ms += [over_ms, timeout_ms, (life.ended_ms or over_ms) + kept_ms]
            if interval_ms:
                moments_ms += range(started_ms, min(read.late_ms, timeout_ms) + 1, interval_ms)
        return sorted({ms for ms in moments_ms if read.fact.time_ms < ms <= read.late_ms})

    def _fits(self, read: Read, events: list[OutputEvent], known: set[Life]) -> bool:
        """Say whether the log has the ends and the start that a fact is said to cause."""
        opened = any(isinstance(event, SessionActive) for event in events)
        life = life_of_fact(read.fact)
        is_there = read.fact.is_start and life in self._lives and life not in known
        ends = [event for event in events if isinstance(event, SessionEnd)]
        return opened == is_there and all(self._has(end, read.late_ms) for end in ends)

    def _has(self, end: SessionEnd, late_ms: int) -> bool:
        """Say whether the log has an end, at its time or at that of a heartbeat that was out.

        A crashed run may have published the heartbeat, and the next one does not remember that. It
        may have ended what was over the maximum as well, at another time.
        """
        found, beat_ms = self._ends.get(life_of(end)), self._beats_ms.get(life_of(end), NEVER_MS)
        if found is not None and end.time_ms < beat_ms <= late_ms:
            silent = end.reason == "went_silent"
            duration_ms = end.duration_ms if silent else beat_ms - end.started_ms
            end = replace(end, time_ms=beat_ms, duration_ms=duration_ms)
        cut_short = found is not None and found.reason == end.reason == "timed_out"
        return found == end or (cut_short and found.time_ms in self._undone_ms)


def life_of(event: OutputEvent) -> Life:
    """Return the name of the session that a record is of."""
    return event.device_id, event.session_id, event.started_ms


def life_of_fact(fact: Fact) -> Life:
    """Return the name of the session that a start begins."""
    return fact.device_id, fact.session_id or str(fact.time_ms), fact.time_ms
