"""The sessions of a lane: what an input event does to them, and what time does to them.

Begin with TRANSITIONS at the end: for every state of a device, what a start and an end do. Time
does the rest: `fire` goes through the moments one by one, `fast_forward` over many in one step.
Both follow session_logic.rules, which say what is due.
"""

from collections import Counter
from collections.abc import Iterable
from enum import IntEnum, auto
from itertools import product
from sys import intern

from session_logic.codec import encode_output
from session_logic.events import EndReason, Fact, Heartbeat, OutputEvent, SessionActive, Watermark
from session_logic.key_group import KeyGroup
from session_logic.keys import key_group_of
from session_logic.output import OutputBatch
from session_logic.rules import (
    Rules,
    Session,
    drop_ms,
    end_session,
    forget_ms,
    is_due,
    owed_heartbeats,
    timeout_ms,
)
from session_logic.wheel import Wheel


class State(IntEnum):
    """What a device is doing, as seen from the session that a fact speaks of."""

    IDLE = auto()  # no session is active, and this one is unknown
    BUSY = auto()  # another session is active, and this one is unknown
    ACTIVE = auto()  # this session is the active one
    ENDED = auto()  # this session ended a short while ago, whatever is active now


class Input(IntEnum):
    """What a fact says."""

    START = auto()
    END = auto()


class SessionTable:
    """The active and the recently ended sessions of one lane, with their wheel.

    counts has an entry for every outcome: nothing is ignored without a name. platforms counts the
    active sessions of each platform.
    """

    def __init__(self, rules: Rules, groups: Iterable[int]) -> None:
        """Make an empty table for the lane that has these groups."""
        self._rules = rules
        self._groups = {group: KeyGroup() for group in groups}
        self.wheel = Wheel(rules.heartbeat_ms)
        # Timeouts fall on the heartbeat slot, unless the interval does not divide the limit.
        odd_ms = rules.max_session_ms % rules.heartbeat_ms
        self.timeouts = Wheel(rules.heartbeat_ms, odd_ms) if odd_ms else None
        self.counts: Counter[str] = Counter()
        self.platforms: Counter[str] = Counter()

    @property
    def active(self) -> int:
        """How many sessions are active."""
        return sum(len(group.active) for group in self._groups.values())

    def find(self, device_id: str) -> Session | None:
        """Return the active session of a device of this lane, in the same time for any number."""
        return self._groups[key_group_of(device_id)].active.get(device_id)

    # What an input event does.

    def apply(self, fact: Fact, watermark: Watermark) -> list[OutputEvent]:
        """Apply one fact; return the records it causes, in order.

        What comes first is decided by time: a session that this fact ends first gets the
        heartbeats that were due by the fact's time and have not fired yet, or its timeout instead.
        """
        group = self._groups[key_group_of(fact.device_id)]
        active = group.active.get(fact.device_id)
        records: list[OutputEvent] = []
        if active is not None:
            due_ms = timeout_ms(active, self._rules)
            # Live, the wheel has ended what was due by the watermark; a replay relies on this.
            if is_due(due_ms, max(fact.time_ms, watermark.upto_ms)):
                records = self._end(group, active, "timed_out", watermark, due_ms)
                active = None
        state = self._state_of(fact, group, active, watermark)
        transition = TRANSITIONS[state, Input.START if fact.is_start else Input.END]
        records += transition(self, group, fact, active, watermark)
        return records

    def _state_of(
        self, fact: Fact, group: KeyGroup, active: Session | None, watermark: Watermark
    ) -> State:
        if active is not None and active.session_id == fact.session_id:
            return State.ACTIVE
        for session in group.ended(fact.device_id):
            if session.session_id == fact.session_id and not (
                is_due(forget_ms(session, self._rules), fact.time_ms)
                or is_due(drop_ms(session, self._rules), watermark.upto_ms)
            ):
                return State.ENDED
        return State.IDLE if active is None else State.BUSY

    def _open(
        self, group: KeyGroup, fact: Fact, _active: Session | None, watermark: Watermark
    ) -> list[OutputEvent]:
        """Make the fact's session the active one; one opened late owes what it has missed."""
        session = Session(fact.device_id, fact.session_id, intern(fact.platform), fact.time_ms)
        self.put(session)
        self.counts["started"] += 1
        records: list[OutputEvent] = [
            SessionActive(
                fact.device_id, fact.session_id, fact.platform, fact.time_ms, fact.time_ms
            )
        ]
        if is_due(fact.time_ms + self._rules.heartbeat_ms, watermark.upto_ms):
            missed = Watermark(fact.time_ms)
            due_ms = timeout_ms(session, self._rules)
            if is_due(due_ms, watermark.upto_ms):
                records += self._end(group, session, "timed_out", missed, due_ms)
            else:
                records += self._owed(session, missed, watermark.upto_ms)
        return records

    def _replace(
        self, group: KeyGroup, fact: Fact, active: Session | None, watermark: Watermark
    ) -> list[OutputEvent]:
        """End the active session, then open the new one."""
        assert active is not None
        ended = self._end(group, active, "replaced", watermark, fact.time_ms)
        return ended + self._open(group, fact, None, watermark)

    def _close(
        self, group: KeyGroup, fact: Fact, active: Session | None, watermark: Watermark
    ) -> list[OutputEvent]:
        """End the active session."""
        assert active is not None
        return self._end(group, active, "ended", watermark, fact.time_ms)

    def _ignore_start(
        self, _group: KeyGroup, _fact: Fact, active: Session | None, _watermark: Watermark
    ) -> list[OutputEvent]:
        """Count a start of the session that is already active."""
        assert active is not None
        self.counts["duplicate_start"] += 1
        return []

    def _ignore_restart(
        self, _group: KeyGroup, _fact: Fact, _active: Session | None, _watermark: Watermark
    ) -> list[OutputEvent]:
        """Count a start of a session that just ended: a duplicate that was delivered late."""
        self.counts["late_duplicate_start"] += 1
        return []

    def _ignore_end(
        self, _group: KeyGroup, _fact: Fact, active: Session | None, _watermark: Watermark
    ) -> list[OutputEvent]:
        """Count an end of another session than the active one, or for an idle device."""
        self.counts["unknown_end" if active is None else "stale_end"] += 1
        return []

    def _end(
        self,
        group: KeyGroup,
        session: Session,
        reason: EndReason,
        watermark: Watermark,
        time_ms: int,
    ) -> list[OutputEvent]:
        """End a session, after the heartbeats that it still owed at that moment."""
        owed = self._owed(session, watermark, time_ms)
        group.end(session)
        self.platforms[session.platform] -= 1
        self.counts[reason] += 1
        return [*owed, end_session(session, reason, time_ms)]

    def _owed(self, session: Session, watermark: Watermark, upto_ms: int) -> list[OutputEvent]:
        owed = owed_heartbeats(
            session,
            self._rules,
            newest_only=watermark.newest_only,
            after_ms=watermark.upto_ms,
            upto_ms=upto_ms,
        )
        self.counts["heartbeats"] += len(owed)
        return owed

    # What time does.

    def fire(  # noqa: C901  # a hot loop; it is compared with the rules that it inlines
        self, after_ms: int, upto_ms: int, records: OutputBatch, limit: int
    ) -> int:
        """Add every heartbeat and timeout due after after_ms and at or before upto_ms.

        Stops early, between two moments, once records holds limit of them. Returns the moment
        up to which everything has been fired.
        """
        # Inlined from rules.owed_heartbeats and rules.is_due, because a call for each heartbeat
        # would double what it costs; a test holds both equal, over all ages around each limit.
        max_session_ms, heartbeat_ms = self._rules.max_session_ms, self._rules.heartbeat_ms
        add_key, add_value = records.keys.append, records.values.append
        beats = noted = 0
        for time_ms, slot in self.wheel.turn(after_ms, upto_ms):
            ended = expired = False
            for session in slot:
                if session.ended_ms:
                    ended = True
                    continue
                age_ms = time_ms - session.started_ms
                if 0 < age_ms < max_session_ms:
                    add_key(session.device_id)
                    add_value(
                        encode_output(
                            Heartbeat(
                                session.device_id,
                                session.session_id,
                                session.platform,
                                session.started_ms,
                                time_ms,
                                age_ms // heartbeat_ms,
                            )
                        )
                    )
                    beats += 1
                elif age_ms >= max_session_ms:
                    expired = True
            if beats > noted:
                records.due_ms.append((time_ms, beats - noted))
                noted = beats
            if expired:
                self._expire(slot, records, time_ms)
            if ended:
                slot[:] = [s for s in slot if not s.ended_ms or not self._forget(s, time_ms)]
            if len(records.keys) >= limit:
                upto_ms = time_ms
                break
        self.counts["heartbeats"] += beats
        if self.timeouts is not None:
            for time_ms, slot in self.timeouts.turn(after_ms, upto_ms):
                self._expire(slot, records, time_ms)
                slot[:] = [session for session in slot if not session.ended_ms]
        return upto_ms

    def _expire(self, slot: list[Session], records: OutputBatch, now_ms: int) -> None:
        """End the sessions of a slot whose time is up; their heartbeats have been fired."""
        for session in slot:
            due_ms = timeout_ms(session, self._rules)
            if not session.ended_ms and is_due(due_ms, now_ms):
                group = self._groups[key_group_of(session.device_id)]
                for event in self._end(group, session, "timed_out", Watermark(due_ms), due_ms):
                    records.add(event, encode_output(event))

    def fast_forward(
        self, watermark: Watermark, upto_ms: int, *, timeouts_only: bool
    ) -> list[OutputEvent]:
        """Return what is due by upto_ms, session by session, in one pass over all of them.

        For a step of time too long to go through moment by moment. With timeouts_only, the
        heartbeats of the sessions that live on are left to `fire`.
        """
        records: list[OutputEvent] = []
        # Nothing is due of a session that started later: the same rules, asked once for all.
        rules = self._rules
        latest_ms = upto_ms - (rules.max_session_ms if timeouts_only else rules.heartbeat_ms)
        for group in self._groups.values():
            sessions = group.active.values()
            for session in [s for s in sessions if is_due(s.started_ms, latest_ms)]:
                due_ms = timeout_ms(session, self._rules)
                if is_due(due_ms, upto_ms):
                    records += self._end(group, session, "timed_out", watermark, due_ms)
                else:
                    records += self._owed(session, watermark, upto_ms)
        return records

    def _forget(self, session: Session, now_ms: int) -> bool:
        """Drop an ended session that need not be remembered any longer; say whether it was."""
        if not is_due(drop_ms(session, self._rules), now_ms):
            return False
        self._groups[key_group_of(session.device_id)].forget(session)
        return True

    # What is stored and restored.

    def put(self, session: Session) -> None:
        """Add a session, active or ended."""
        self._groups[key_group_of(session.device_id)].put(session)
        self.wheel.add(session)
        if not session.ended_ms:
            self.platforms[session.platform] += 1
            if self.timeouts is not None:
                self.timeouts.add(session)

    def load(self, group: int, sessions: list[Session]) -> None:
        """Add the stored sessions of a group: `put` for many, at a third of the cost."""
        active = self._groups[group].load(sessions)
        self.wheel.extend(sessions)
        self.platforms.update([session.platform for session in active])
        if self.timeouts is not None:
            self.timeouts.extend(active)

    def sessions(self, group: int) -> list[Session]:
        """Return the sessions of a group, active and ended."""
        return self._groups[group].sessions()


TRANSITIONS = {
    (State.IDLE, Input.START): SessionTable._open,
    (State.BUSY, Input.START): SessionTable._replace,
    (State.ACTIVE, Input.START): SessionTable._ignore_start,
    (State.ENDED, Input.START): SessionTable._ignore_restart,
    (State.IDLE, Input.END): SessionTable._ignore_end,
    (State.BUSY, Input.END): SessionTable._ignore_end,
    (State.ACTIVE, Input.END): SessionTable._close,
    (State.ENDED, Input.END): SessionTable._ignore_end,
}
assert TRANSITIONS.keys() == set(product(State, Input))
