"""In what a run may differ from its replay, and what in the recording proves that it is so.

A run decides by its own clock when to send; a replay has only the timestamps of the input, and
its time never passes a record that is still to come. So the two may differ in these ways, none of
which is a fault of the program:

- raced: the run sent a heartbeat, a timeout or the end of a silent session before it read an end
  with an earlier timestamp.
  Proof: it is the next of its session, or at the longest that a session may last.
- missed: the run read a start so late that its session got only the newest of the heartbeats that
  were due. Proof: they follow the SessionActive at once, are as many as it may be, and were due.
- put_off: an outage kept a session from going silent, of which the replay knows nothing.
  Proof: the wheel of its lane sent nothing for a while before that end, and the session went on.
- skipped: the run left out a heartbeat because of an outage under catch_up=latest. Proof: the lane
  sent none in the interval after it, and a later one of the session is there, sent too late.
- unreached: due after the run's last heartbeat, so the recording may end before it. A topic for
  heartbeats may end before the other: then one is missing before a record that is there.
- earlier: the session began before the recording, which may lack its start.
"""

from collections import deque
from enum import Enum, auto
from itertools import islice

from msgspec import UNSET, Struct

from heartwheel.recording.progress import RecordedProgress
from heartwheel.recording.reader import Recording
from heartwheel.recording.recorded import ComparedDeadLetter, Event, Recorded, decode_record
from session_logic.events import Context, Heartbeat, OutputEvent, SessionActive, SessionEnd
from session_logic.rules import MAX_MISSED_HEARTBEATS

ACCEPTED = ("raced", "missed", "put_off", "skipped", "unreached", "earlier")
ACTIVE = b'{"type":"SessionActive"'


class Verdict(Struct, frozen=True):
    """Why two records may differ, and which of them that settles."""

    kind: str
    replayed: bool
    recorded: bool


class Undecided(Enum):
    """What else there is to say of two records."""

    DIFFERENT = auto()
    READ_ON = auto()  # what follows in the recording decides


class Acceptance:
    """Says whether what a device has next may differ from what the replay has next."""

    def __init__(self, recording: Recording, progress: RecordedProgress, last_ms: int) -> None:
        """Judge this recording; what was due in its last last_ms may be missing there."""
        self._heartbeat_ms: int = recording.settings["heartbeat_ms"]
        self._max_session_ms: int = recording.settings["max_session_ms"]
        self._apart = bool(recording.settings["heartbeat_topic"])
        self._latest: bool = recording.settings["catch_up"] == "latest"
        self._from_ms = recording.from_ms() or 0
        self._progress = progress
        self._expected_ms = progress.reached_ms - last_ms
        # By device: its session that was opened late, and its last heartbeat that has raced.
        self._opened: dict[str, tuple[SessionActive, Recorded]] = {}
        self._raced: dict[str, Recorded] = {}
        self._last: dict[str, Recorded] = {}  # of each device

    def note(self, name: str, sent: Recorded) -> bool:
        """Take note of a record that is equal; say whether it is as it should be, too.

        An end is not before a heartbeat that was sent with it.
        """
        if not isinstance(sent.item, bytes):
            return True
        if sent.item.startswith(ACTIVE):
            self._note_start(name, sent)
        elif sent.kind is not None:
            self._opened.pop(name, None)  # a heartbeat of its session, and none is the next now
        raced = self._raced.get(name)
        if raced is not None and raced.in_turn_of(sent):
            event = decode_record(sent.item)
            if isinstance(event, SessionEnd) and self._last_beat_ms(name, event) > event.time_ms:
                return False
        if self._latest:
            self._last[name] = sent
        return True

    def _note_start(self, name: str, sent: Recorded) -> None:
        """Remember a start that the run read late: heartbeats of its session had been due."""
        event = decode_record(sent.item)
        self._opened.pop(name, None)
        if isinstance(event, SessionActive):
            due_ms = event.started_ms + 2 * self._heartbeat_ms
            if due_ms <= sent.sent_ms:
                self._opened[name] = event, sent

    def judge(
        self, name: str, want: Event, recorded: deque[Recorded], *, complete: bool
    ) -> Verdict | Undecided:
        """Say whether a replayed record may differ from the first of the recorded ones.

        Unless they are complete, more of them may follow.
        """
        got = decode_record(recorded[0].item)
        if self.is_earlier(got) or self.is_earlier(want):
            return Verdict("earlier", self.is_earlier(want), self.is_earlier(got))
        if not _are_of_one_session(want, got):
            return Undecided.DIFFERENT
        if isinstance(got, SessionEnd):
            return (
                self._later_end(name, want, got, recorded[0].partition)
                if isinstance(want, SessionEnd)
                else self._cut_off(want, recorded, complete=complete)
            )
        if isinstance(got, Heartbeat) and self._is_on_beat(got):
            if isinstance(want, Heartbeat):
                return self._left_out(name, want.sequence, recorded, complete=complete)
            if isinstance(want, SessionEnd) and want.reason != "timed_out":
                return self._raced_beat(name, want, got, recorded, complete=complete)
        return Undecided.DIFFERENT

    def _cut_off(
        self, want: Event, recorded: deque[Recorded], *, complete: bool
    ) -> Verdict | Undecided:
        """Say whether a heartbeat is missing in its own topic because the recording ends there."""
        if not (self._apart and isinstance(want, Heartbeat) and self.is_unreached(want)):
            return Undecided.DIFFERENT
        if not complete:
            return Undecided.READ_ON
        if any(sent.kind == "heartbeats" for sent in recorded):
            return Undecided.DIFFERENT
        return Verdict("unreached", replayed=True, recorded=False)

    def _is_on_beat(self, event: Heartbeat) -> bool:
        age_ms = event.time_ms - event.started_ms
        return age_ms == event.sequence * self._heartbeat_ms < self._max_session_ms

    def _raced_beat(
        self,
        name: str,
        want: SessionEnd,
        got: Heartbeat,
        recorded: deque[Recorded],
        *,
        complete: bool,
    ) -> Verdict | Undecided:
        """Say whether a heartbeat was due after the end but sent before that was read."""
        following = self._last_sequence(name, want) + 1
        if got.sequence < following or not _is_part(got.context, want.context):
            return Undecided.DIFFERENT
        if following < got.sequence:
            found = self._left_out(name, following, recorded, complete=complete)
            if isinstance(found, Undecided):
                return found
        self._last[name] = self._raced[name] = recorded[0]
        return Verdict("raced", replayed=False, recorded=True)

    def _later_end(
        self, name: str, want: SessionEnd, got: SessionEnd, lane: int
    ) -> Verdict | Undecided:
        """Say whether a session may have ended later than in the replay."""
        last_ms = got.time_ms if got.last_seen_ms is UNSET else got.last_seen_ms
        if got.time_ms <= want.time_ms or got.duration_ms != last_ms - got.started_ms:
            return Undecided.DIFFERENT
        if want.reason == "went_silent":
            whole = _is_part(want.context, got.context) and self._may_go_on(want, lane)
            put_off = Verdict("put_off", replayed=True, recorded=True)
            return put_off if whole else Undecided.DIFFERENT
        if want.reason == "timed_out" or not _is_part(got.context, want.context):
            return Undecided.DIFFERENT
        return self._raced_end(name, want, got)

    def _may_go_on(self, silent: SessionEnd, lane: int) -> bool:
        """Say whether an outage may have kept a session from going silent."""
        assert isinstance(silent.last_seen_ms, int)
        return self._progress.had_gap(lane, silent.last_seen_ms, silent.time_ms)

    def is_put_off(self, name: str, event: Event) -> bool:
        """Say whether a session that the run has not ended went on after it was silent."""
        if not isinstance(event, SessionEnd) or event.reason != "went_silent":
            return False
        raced = self._raced.get(name)
        if raced is None or self._last_beat_ms(name, event) <= event.time_ms:
            return False
        return self._may_go_on(event, raced.partition)

    def _raced_end(self, name: str, want: SessionEnd, got: SessionEnd) -> Verdict | Undecided:
        """Say whether a session ended later than at the time of what ended it.

        It timed out first, or its end has the time of the last heartbeat that had been sent.
        """
        raced = Verdict("raced", replayed=True, recorded=True)
        if got.reason == "went_silent":
            return raced
        last_ms = self._last_beat_ms(name, want)
        timeout_ms = want.started_ms + self._max_session_ms
        timed_out = got.time_ms == timeout_ms <= last_ms + self._heartbeat_ms
        same = (got.reason, got.context) == (want.reason, want.context)
        # Of a heartbeat in a topic of its own the end may be all that a killed run has sent.
        unsent = self._apart and (got.time_ms - got.started_ms) % max(1, self._heartbeat_ms) == 0
        put_off = same and (got.time_ms == last_ms or unsent)
        is_so = timed_out if got.reason == "timed_out" else put_off
        return raced if is_so else Undecided.DIFFERENT

    def _last_beat_ms(self, name: str, end: SessionEnd) -> int:
        """Return the time of a session's last heartbeat, of those that have raced as well."""
        sequence = self._last_sequence(name, end)
        return end.started_ms + sequence * self._heartbeat_ms

    def _last_sequence(self, name: str, end: SessionEnd) -> int:
        """Return the sequence of the last heartbeat of a session, as far as it was compared."""
        raced = decode_record(self._raced[name].item) if name in self._raced else None
        if isinstance(raced, Heartbeat) and _session(raced) == _session(end):
            return raced.sequence
        return (end.time_ms - end.started_ms) // max(1, self._heartbeat_ms)

    def _left_out(
        self, name: str, sequence: int, recorded: deque[Recorded], *, complete: bool
    ) -> Verdict | Undecided:
        """Say whether a heartbeat need not be there before the first of the recorded ones."""
        first = recorded[0]
        got = decode_record(first.item)
        assert isinstance(got, Heartbeat)
        if sequence >= got.sequence:
            return Undecided.DIFFERENT
        together = 0
        if self._was_opened_with(name, got, first):
            if len(recorded) <= MAX_MISSED_HEARTBEATS and not complete:
                return Undecided.READ_ON
            together = self._sent_together(name, recorded)
            if self._are_newest(together, first):
                return Verdict("missed", replayed=True, recorded=False)
        if together > 1 or not self._latest:
            return Undecided.DIFFERENT
        if len(recorded) == 1 and not complete:
            return Undecided.READ_ON
        due_ms = got.started_ms + sequence * self._heartbeat_ms
        skipped = self._is_skipped(name, due_ms, got.time_ms, recorded)
        return Verdict("skipped", replayed=True, recorded=False) if skipped else Undecided.DIFFERENT

    def _was_opened_with(self, name: str, got: Heartbeat, first: Recorded) -> bool:
        """Say whether a heartbeat that had been due was sent at once with a late start."""
        if name not in self._opened:
            return False
        active, opened = self._opened[name]
        together = _session(active) == _session(got) and first.may_follow(opened)
        return together and got.time_ms <= opened.sent_ms

    def _are_newest(self, together: int, first: Recorded) -> bool:
        """Say whether a late start has as many heartbeats with it as it may have."""
        if together == 1 and self._latest:
            return self._progress.was_resuming(first.partition, first.sent_ms, self._heartbeat_ms)
        return together == MAX_MISSED_HEARTBEATS

    def _sent_together(self, name: str, recorded: deque[Recorded]) -> int:
        """Return how many heartbeats that had been due were sent at once with a late start."""
        active, opened = self._opened[name]
        together, following, before = 0, 0, opened
        for sent in islice(recorded, MAX_MISSED_HEARTBEATS + 1):
            event = decode_record(sent.item)
            if not isinstance(event, Heartbeat) or _session(event) != _session(active):
                break
            in_order = event.sequence == following or not together
            if not in_order or not sent.may_follow(before) or event.time_ms > opened.sent_ms:
                break
            together, following, before = together + 1, event.sequence + 1, sent
        return together

    def _is_skipped(self, name: str, due_ms: int, next_ms: int, recorded: deque[Recorded]) -> bool:
        """Say whether a heartbeat was not sent because of an outage.

        It lies between what came before and what followed; they were not sent at once. A session
        that ended in the outage has its newest heartbeat together with its end.
        """
        first = recorded[0]
        lane, sent_ms = first.partition, first.sent_ms
        last = self._last.get(name)
        at_once = last is not None and first.may_follow(last) and first.in_turn_of(last)
        ends = len(recorded) > 1 and _is_end_after(first, recorded[1])
        if (at_once or ends) and self._progress.was_resuming(lane, sent_ms, self._heartbeat_ms):
            return True
        return (ends or not at_once) and (
            self._progress.sent_before_ms(lane, due_ms) < sent_ms
            and self._progress.was_late(lane, next_ms, sent_ms)
            and self._progress.was_silent(lane, due_ms, self._heartbeat_ms)
        )

    def is_earlier(self, event: Event) -> bool:
        """Say whether a record is from a time for which the recording may lack the input."""
        if event is None:
            return False
        begun_ms = event.time_ms if isinstance(event, ComparedDeadLetter) else event.started_ms
        return begun_ms < self._from_ms

    def is_unreached(self, event: Event) -> bool:
        """Say whether the recording may end before the run sent this."""
        return event is not None and event.time_ms > self._expected_ms


def _is_part(context: Context, whole: Context) -> bool:
    """Say whether the fields of a context are the first ones of another."""
    if context is UNSET or whole is UNSET:
        return context is UNSET
    return bytes(whole).startswith(bytes(context)[:-1])


def _is_end_after(beat: Recorded, after: Recorded) -> bool:
    """Say whether a heartbeat was sent together with the end of its session."""
    at_once = after.may_follow(beat) and after.in_turn_of(beat)
    return at_once and isinstance(decode_record(after.item), SessionEnd)


def _are_of_one_session(one: Event, other: Event) -> bool:
    if not isinstance(one, OutputEvent) or not isinstance(other, OutputEvent):
        return False
    return _session(one) == _session(other)


def _session(event: OutputEvent) -> tuple[str, int, str]:
    return event.session_id, event.started_ms, event.platform
