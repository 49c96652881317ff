"""The sessions of a lane, and what time does to them.

`fire` goes through the moments one by one, `fast_forward` over many in one step. Both follow
session_logic.rules, which say what is due; session_logic.transitions says what facts do.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from session_logic.codec import encode_output
from session_logic.crowded import CrowdedDevices
from session_logic.events import EndReason, Heartbeat, OutputEvent, Watermark
from session_logic.key_group import Forgotten, KeyGroup
from session_logic.keys import key_group_of
from session_logic.output import OutputBatch
from session_logic.rules import (
    Rules,
    Session,
    drop_ms,
    earliest_end_ms,
    end_session,
    is_due,
    owed_heartbeats,
    timeout_ms,
)
from session_logic.wheel import Wheel


class SessionTable:
    """The active and the recently ended sessions of one lane, with their wheel.

    counts has an entry for every outcome: nothing is ignored without a name. platforms counts the
    active sessions of each platform. crowded knows the devices with too many ended sessions.
    """

    def __init__(self, rules: Rules, groups: Iterable[int]) -> None:
        """Make an empty table for the lane that has these groups."""
        self.rules = rules
        self._groups = {group: KeyGroup() for group in groups}
        self.interval = rules.interval
        self.wheel = Wheel(rules.intervals_ms)
        # Timeouts fall on the heartbeat slot, unless the interval does not divide the limit.
        odd_ms = [rules.max_session_ms % interval_ms for interval_ms in rules.intervals_ms]
        self.timeouts = Wheel(rules.intervals_ms, odd_ms) if any(odd_ms) else None
        self.counts: Counter[str] = Counter()
        self.platforms: Counter[str] = Counter()
        self.crowded = CrowdedDevices()

    @property
    def active(self) -> int:
        """How many sessions are active."""
        return sum(len(group.active) for group in self._groups.values())

    def group(self, device_id: str) -> KeyGroup:
        """Return the key group of a device of this lane."""
        return self._groups[key_group_of(device_id)]

    def find(self, device_id: str) -> Session | None:
        """Return the active session of a device of this lane, in the same time for any number."""
        return self.group(device_id).active.get(device_id)

    # What a session owes, and how it ends.

    def end(
        self,
        session: Session,
        outcome: EndReason | Literal["ended_early"],
        watermark: Watermark,
        time_ms: int,
        at_most: int | None = None,
    ) -> list[OutputEvent]:
        """End a session; return the heartbeats that it still owed at that moment, then its end.

        Its end is never before its start, nor before a heartbeat that is out. See `owed` for
        at_most. The outcome is counted; one that ended early is an ended one for its record.
        """
        time_ms = max(time_ms, earliest_end_ms(session, self.rules, watermark.upto_ms))
        owed = self.owed(session, watermark, time_ms, at_most)
        self.let_go(self.group(session.device_id).end(session))
        self.platforms[session.platform] -= 1
        self.counts[outcome] += 1
        reason: EndReason = "ended" if outcome == "ended_early" else outcome
        return [*owed, end_session(session, reason, time_ms)]

    def owed(
        self, session: Session, watermark: Watermark, upto_ms: int, at_most: int | None = None
    ) -> list[OutputEvent]:
        """Return the heartbeats that a session owes between the watermark and a moment.

        With at_most, or a watermark of newest_only, the older ones are left out.
        """
        owed = owed_heartbeats(
            session,
            self.rules,
            after_ms=watermark.upto_ms,
            upto_ms=upto_ms,
            at_most=1 if watermark.newest_only else at_most,
        )
        self.counts["heartbeats"] += len(owed)
        return owed

    def let_go(self, forgotten: Forgotten | None) -> None:
        """Take an ended session off the wheel that is remembered no longer."""
        if forgotten is not None:
            session = forgotten.session
            if forgotten.crowded_out:
                self.crowded.note(session.device_id)
            self.wheel.discard(session)
            if self.timeouts is not None:
                self.timeouts.discard(session)

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
        max_session_ms = self.rules.max_session_ms
        add_key, add_value = records.keys.append, records.values.append
        beats = noted = 0
        fired_ms = after_ms
        for time_ms, heartbeat_ms, slot in self.wheel.turn(after_ms, upto_ms):
            if len(records.keys) >= limit and time_ms > fired_ms:
                upto_ms = fired_ms
                break
            fired_ms = time_ms
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
        self.counts["heartbeats"] += beats
        if self.timeouts is not None:
            for time_ms, _, slot in self.timeouts.turn(after_ms, upto_ms):
                self._expire(slot, records, time_ms)
                slot[:] = [session for session in slot if not session.ended_ms]
        return upto_ms

    def _expire(self, slot: list[Session], records: OutputBatch, now_ms: int) -> None:
        """End the sessions of a slot whose time is up; their heartbeats have been fired."""
        for session in list(slot):  # an end may take an earlier one of the device off the slot
            due_ms = timeout_ms(session, self.rules)
            if not session.ended_ms and is_due(due_ms, now_ms):
                for event in self.end(session, "timed_out", Watermark(due_ms), due_ms):
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
        rules = self.rules
        first_ms = rules.max_session_ms if timeouts_only else min(rules.intervals_ms)
        latest_ms = upto_ms - first_ms
        for group in self._groups.values():
            sessions = group.active.values()
            for session in [s for s in sessions if is_due(s.started_ms, latest_ms)]:
                due_ms = timeout_ms(session, self.rules)
                if is_due(due_ms, upto_ms):
                    records += self.end(session, "timed_out", watermark, due_ms)
                else:
                    records += self.owed(session, watermark, upto_ms)
        return records

    def end_overdue(self, time_ms: int) -> list[OutputEvent]:
        """End the sessions that are over the maximum before a time, at that time.

        For a maximum that has become shorter: all that was due before time_ms has been sent.
        """
        sent = Watermark(time_ms - 1)
        overdue = [
            session
            for group in self._groups.values()
            for session in group.active.values()
            if is_due(timeout_ms(session, self.rules), sent.upto_ms)
        ]
        return [
            event for session in overdue for event in self.end(session, "timed_out", sent, time_ms)
        ]

    def _forget(self, session: Session, now_ms: int) -> bool:
        """Drop an ended session that need not be remembered any longer; say whether it was."""
        if not is_due(drop_ms(session, self.rules), now_ms):
            return False
        self.group(session.device_id).forget(session)
        return True

    # What is stored and restored.

    def put(self, session: Session) -> None:
        """Add a session, active or ended."""
        self.let_go(self.group(session.device_id).put(session))
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
