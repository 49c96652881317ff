"""The sessions of a lane, and what time does to them.

`fire` goes through the moments one by one, `fast_forward` over many in one step. Both follow
session_logic.rules, which say what is due; session_logic.transitions says what facts do.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import chain
from operator import attrgetter
from typing import Literal

from msgspec import UNSET, Raw

from session_logic.codec import encode_output
from session_logic.counts import Counts
from session_logic.crowded import CrowdedDevices
from session_logic.events import Context, EndReason, Heartbeat, OutputEvent, Watermark
from session_logic.key_group import Forgotten, KeyGroup
from session_logic.keys import LaneKeys
from session_logic.output import OutputBatch
from session_logic.rules import (
    CarryingSession,
    Rules,
    Session,
    WatchedSession,
    drop_ms,
    earliest_end_ms,
    end_session,
    is_due,
    owed_heartbeats,
    timeout_ms,
)
from session_logic.silence import Silence
from session_logic.wheel import Pieces, Ring, Slots, Wheel

ALL_KEYS = LaneKeys()
_parts = attrgetter("device_id", "session_id", "started_ms")


class SessionTable:
    """The active and the recently ended sessions of one lane, with their wheel.

    counts has every outcome: nothing is ignored without a name. platforms counts the active
    sessions of each platform, by the names of counts. crowded knows the devices with too many ended
    sessions. carries says that some session may carry something, listens that some may end for
    silence.
    """

    def __init__(
        self,
        rules: Rules,
        groups: Iterable[int],
        counts: Counts | None = None,
        keys: LaneKeys = ALL_KEYS,
    ) -> None:
        """Make an empty table for these groups of a lane; counts may have begun before."""
        self.keys = keys
        self.rules = rules
        self.carries = False
        self.listens = False
        self.groups = {group: KeyGroup() for group in groups}
        self.interval = rules.interval
        self.wheel = Wheel(rules)
        self._pieces: Pieces | None = None
        self.counts = counts or Counts()
        self.platforms: defaultdict[str, int] = defaultdict(int)
        self.crowded = CrowdedDevices()

    @property
    def active(self) -> int:
        """How many sessions are active."""
        return sum(len(group.active) for group in self.groups.values())

    def group(self, device_id: str) -> KeyGroup:
        """Return the key group of a device of this lane."""
        return self.groups[self.keys.group_of(device_id)]

    def find(self, device_id: str) -> Session | None:
        """Return the active session of a device of this lane, in the same time for any number."""
        return self.group(device_id).active.get(device_id)

    # What a session owes, and how it ends.

    def due_end(self, session: Session) -> tuple[int, EndReason]:
        """Return when an active session ends by itself, and why."""
        due_ms = timeout_ms(session, self.rules)
        if isinstance(session, WatchedSession):
            silent_ms = self.wheel.silence.due_ms(session)
            if silent_ms < due_ms:
                return silent_ms, "went_silent"
        return due_ms, "timed_out"

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
        sent_until_ms = watermark.upto_ms
        if isinstance(session, WatchedSession):
            sent_until_ms = min(sent_until_ms, self.due_end(session)[0])
        time_ms = max(time_ms, earliest_end_ms(session, self.rules, sent_until_ms))
        owed = self.owed(session, watermark, time_ms, at_most)
        forgotten = self.group(session.device_id).end(session)
        if forgotten is not None:
            self.let_go(forgotten)
        self.platforms[self.counts.platforms[session.platform]] -= 1
        self.counts.add(outcome, session.platform)
        reason: EndReason = "ended" if outcome == "ended_early" else outcome
        return [*owed, end_session(session, reason, time_ms)]

    def owed(
        self, session: Session, watermark: Watermark, upto_ms: int, at_most: int | None = None
    ) -> list[OutputEvent]:
        """Return the heartbeats that a session owes between the watermark and a moment.

        With at_most, or a watermark of newest_only, the older ones are left out.
        """
        if is_due(upto_ms, watermark.upto_ms):
            return []  # as nearly always for an event that has just come
        owed = owed_heartbeats(
            session,
            self.rules,
            after_ms=watermark.upto_ms,
            upto_ms=upto_ms,
            at_most=1 if watermark.newest_only else at_most,
        )
        if owed:
            self.counts.heartbeats += len(owed)
        return owed

    def let_go(self, forgotten: Forgotten) -> None:
        """Take an ended session off the wheel that is remembered no longer."""
        session = forgotten.session
        if forgotten.crowded_out:
            self.crowded.note(session.device_id)
        self.wheel.discard(session)

    # What time does.

    def fire(self, after: Watermark, upto_ms: int, records: OutputBatch, limit: int) -> Watermark:
        """Add every heartbeat and timeout due after a watermark and at or before upto_ms.

        Stops early once records holds limit of them: between two moments or, at a moment with
        more sessions than limit, between two key groups. Returns how far time has come.
        """
        next_group = after.next_group
        fire_slot, count = self._fire_slot, records.count
        for time_ms, sessions, slots in self.wheel.turn(after.upto_ms, upto_ms):
            if count() >= limit:
                return Watermark(time_ms - 1)
            if next_group or sessions > limit:
                next_group = self._fire_in_pieces(time_ms, slots, next_group, records, limit)
                if next_group:
                    return Watermark(time_ms - 1, next_group=next_group)
                self._tidy(time_ms, slots)
                continue
            for ring, slot in slots:
                if fire_slot(time_ms, ring, slot, records):
                    self._tidy(time_ms, [(ring, slot)])
        return Watermark(upto_ms)

    def _fire_in_pieces(
        self, time_ms: int, slots: Slots, next_group: int, records: OutputBatch, limit: int
    ) -> int:
        """Fire the key groups of a moment from next_group on; return the one to go on with, or 0.

        More than limit sessions may begin in one millisecond, as with timestamps of whole seconds.
        """
        if self._pieces is None or self._pieces.time_ms != time_ms:
            self._pieces = Pieces(time_ms, slots, self.keys)
        for group in sorted(self._pieces.by_group):
            if group < next_group:
                continue
            if records.count() >= limit:
                return group
            for ring, sessions in self._pieces.by_group[group]:
                self._fire_slot(time_ms, ring, sessions, records)
        self._pieces = None
        return 0

    def _fire_slot(
        self, time_ms: int, ring: Ring | Silence, slot: list[Session], records: OutputBatch
    ) -> bool:
        """Fire what is due at a moment; say whether there are ended sessions to tidy away."""
        if isinstance(ring, Silence):
            self._expire(slot, records, time_ms)
            return True
        # Inlined from rules.owed_heartbeats and rules.is_due, because a call for each heartbeat
        # would double what it costs; a test holds both equal, over all ages around each limit.
        carries = self.carries and self.rules.carry_in_heartbeats
        context: Context = UNSET
        max_session_ms, heartbeat_ms = self.rules.max_session_ms, ring.interval_ms
        silent = ring.timeouts or ring.quiet or time_ms <= ring.sent_ms
        beats_until_ms = 0 if silent else max_session_ms
        heartbeats = records.of("heartbeats")
        add_key, add_value = heartbeats.keys.append, heartbeats.values.append
        before = len(heartbeats.keys)
        ended = expired = False
        # A slot was last touched an interval ago, so nothing of it is in the processor's caches. To
        # read it first, in a loop that does nothing else, lets memory answer for several sessions
        # at a time.
        parts = list(map(_parts, slot))
        for session, (device_id, session_id, started_ms) in zip(slot, parts, strict=True):
            if session.ended_ms:
                ended = True
                continue
            age_ms = time_ms - started_ms
            if 0 < age_ms < beats_until_ms:
                if carries:
                    context = (
                        Raw(session.context)
                        if isinstance(session, CarryingSession) and session.context
                        else UNSET
                    )
                add_key(device_id)
                add_value(
                    encode_output(
                        Heartbeat(
                            device_id,
                            session_id,
                            session.platform,
                            started_ms,
                            time_ms,
                            age_ms // heartbeat_ms,
                            context,
                        )
                    )
                )
            elif age_ms >= max_session_ms:
                expired = True
        beats = len(heartbeats.keys) - before
        if beats:
            heartbeats.due_ms.append((time_ms, beats))
            self.counts.heartbeats += beats
        if expired:
            self._expire(slot, records, time_ms)
        return ended or (expired and ring.timeouts)

    def _tidy(self, time_ms: int, slots: Slots) -> None:
        """Take the ended sessions that need not be remembered any longer out of their slots."""
        for ring, slot in slots:
            kept = [
                session
                for session in slot
                if not session.ended_ms or not (ring.timeouts or self._forget(session, time_ms))
            ]
            ring.keep(time_ms, kept)

    def _expire(self, slot: list[Session], records: OutputBatch, now_ms: int) -> None:
        """End the sessions of a slot whose time is up; their heartbeats have been fired."""
        for session in list(slot):  # an end may take an earlier one of the device off the slot
            due_ms, reason = self.due_end(session)
            if not session.ended_ms and is_due(due_ms, now_ms):
                for event in self.end(session, reason, Watermark(due_ms), due_ms):
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
        if self.listens:
            first_ms = 0
        for number, group in self.groups.items():
            after = watermark.of(number)
            until_ms = max(upto_ms, after.upto_ms)
            sessions, latest_ms = group.active.values(), until_ms - first_ms
            for session in [s for s in sessions if is_due(s.started_ms, latest_ms)]:
                due_ms, reason = self.due_end(session)
                if is_due(due_ms, until_ms):
                    records += self.end(session, reason, after, due_ms)
                elif not timeouts_only:
                    records += self.owed(session, after, until_ms)
        self.wheel.silence.pass_over(upto_ms)
        return records

    def hear_anew(self, hearing_ms: int) -> None:
        """Let silence begin anew at the end of an outage; what was due before it has ended."""
        active = chain.from_iterable(group.active.values() for group in self.groups.values())
        self.wheel.silence.hear(hearing_ms, active)

    def end_overdue(self, watermark: Watermark) -> list[OutputEvent]:
        """End the sessions that are over the maximum at a watermark, a millisecond after it.

        For a maximum that has become shorter: all that was due by the watermark has been sent.
        """
        records: list[OutputEvent] = []
        for number, group in self.groups.items():
            sent = watermark.of(number)
            for session in list(group.active.values()):
                if is_due(timeout_ms(session, self.rules), sent.upto_ms):
                    records += self.end(session, "timed_out", sent, watermark.upto_ms + 1)
        return records

    def _forget(self, session: Session, now_ms: int) -> bool:
        """Drop an ended session that need not be remembered any longer; say whether it was."""
        if not is_due(drop_ms(session, self.rules), now_ms):
            return False
        self.group(session.device_id).forget(session)
        return True

    # What is stored and restored.

    def put(self, session: Session, group: KeyGroup | None = None) -> None:
        """Add a session, active or ended, to the group of its device, which may be known."""
        forgotten = (group or self.group(session.device_id)).put(session)
        if forgotten is not None:
            self.let_go(forgotten)
        self.wheel.put(session)
        if self.listens:
            self.wheel.silence.put([session])
        if not session.ended_ms:
            self.platforms[self.counts.platforms[session.platform]] += 1
        if self._pieces is not None:
            due_ms = session.started_ms + self.rules.heartbeat_ms
            due_ms = min(due_ms, self.due_end(session)[0])
            if is_due(due_ms, self._pieces.time_ms):
                self._pieces = None  # opened late, it may be due at the moment that is being fired

    def load(self, group: int, sessions: list[Session]) -> None:
        """Add the stored sessions of a group: `put` for many, at a third of the cost."""
        active = self.groups[group].load(sessions)
        self.wheel.add(sessions)
        if self.listens:
            self.wheel.silence.put(sessions)
        names = self.counts.platforms
        for platform, count in Counter([names[session.platform] for session in active]).items():
            self.platforms[platform] += count

    def remembered(self, group: int, watermark: Watermark) -> list[Session]:
        """Return the sessions of a group, without those that need not be remembered any longer."""
        upto_ms = watermark.of(group).upto_ms
        return [
            session
            for session in self.sessions(group)
            if not session.ended_ms or not is_due(drop_ms(session, self.rules), upto_ms)
        ]

    def sessions(self, group: int) -> list[Session]:
        """Return the sessions of a group, active and ended."""
        return self.groups[group].sessions()
