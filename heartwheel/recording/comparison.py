"""The comparison of a replay with what the recorded run sent, device by device and in order.

A run decides by its own clock when to send; a replay has only the timestamps of the input. So
the two may differ in four ways that are no fault of the program, and each is counted by itself:

- raced: the run sent a heartbeat or a timeout before it read an end with an earlier timestamp.
- skipped: the run did not send a heartbeat because of an outage under catch_up=latest.
- unreached: due after the run's last heartbeat, so the recording may end before it.
- earlier: the session began before the recording, which may lack its start.

Everything else is a difference. The replay's output is not held in memory: the recording is read
at the same pace, and only what has no counterpart yet waits.
"""

from collections import Counter, deque
from collections.abc import Iterable
from itertools import islice

import msgspec
from msgspec import UNSET, Struct

from dataflows.messages import DeadLetter, RecordId
from heartwheel.recording.progress import RecordedProgress
from heartwheel.recording.reader import Recording
from heartwheel.recording.recorded_output import (
    ComparedDeadLetter,
    Item,
    dead_letter_name,
    recorded_output,
)
from heartwheel.recording.replay import BY_CLOCK
from session_logic.codec import decode_output
from session_logic.events import Context, Heartbeat, OutputEvent, SessionEnd
from session_logic.output import OutputBatch

ACCEPTED = ("raced", "skipped", "unreached", "earlier")
# How far to look for the counterpart of a record that differs, and how many rows of it to keep.
LOOK_AHEAD = 50
ROWS = 8
Event = OutputEvent | ComparedDeadLetter | None
# In queues and rows, what was replayed comes first and what was recorded second.
REPLAYED, RECORDED = 0, 1
Queues = tuple[deque[Item], deque[Item]]
Row = tuple[Item | None, Item | None]


class Difference(Struct):
    """Where replay and recording of a device differ: the first rows, and how many there are."""

    name: str
    rows: list[Row] = []
    count: int = 0

    def add(self, row: Row) -> None:
        """Count a row."""
        self.count += 1
        if len(self.rows) < ROWS:
            self.rows.append(row)


def _decode(item: Item) -> Event:
    if isinstance(item, ComparedDeadLetter):
        return item
    try:
        return decode_output(item)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None  # a record of another program


class Comparison:
    """Takes the replay's output and reads the recorded output at the same pace.

    counts has an entry for what is equal, for each of ACCEPTED, and for differences.
    """

    def __init__(self, recording: Recording, progress: RecordedProgress, last_ms: int) -> None:
        """Compare with this recording; what was due in its last last_ms may be missing there."""
        self._recorded = recorded_output(recording)
        self._heartbeat_ms: int = recording.settings["heartbeat_ms"]
        self._latest: bool = recording.settings["catch_up"] == "latest"
        self._from_ms = recording.from_ms() or 0
        self._progress = progress
        self._expected_ms = progress.reached_ms - last_ms
        self._waiting: dict[str, Queues] = {}
        self._raced_ms: dict[str, int] = {}
        self._differing: set[str] = set()
        self.counts: Counter[str] = Counter()

    def take(self, item: OutputBatch | DeadLetter) -> None:
        """Compare some output of the replay."""
        items: list[tuple[str, Item]] = []
        if isinstance(item, OutputBatch):
            items += zip(item.keys, item.values, strict=True)
        elif item.reason != BY_CLOCK:
            offset, time_ms, key, value, *_ = item.message
            name = dead_letter_name(RecordId(item.topic, item.partition, offset))
            items.append((name, ComparedDeadLetter(time_ms, item.reason, key, value)))
        self._add(REPLAYED, items)
        self._add(RECORDED, islice(self._recorded, len(items)))

    def _add(self, side: int, items: Iterable[tuple[str, Item]]) -> None:
        waiting, equal = self._waiting, 0
        for name, item in items:
            queues = waiting.get(name)
            if queues is None:
                queues = waiting[name] = (deque(), deque())
                queues[side].append(item)
                continue
            other = queues[1 - side]
            if other and other[0] == item and not queues[side]:
                equal += 1
                other.popleft()
            else:
                queues[side].append(item)
                if name not in self._differing:
                    self._match(name, *queues)
            if not queues[0] and not queues[1]:
                del waiting[name]
        self.counts["equal"] += equal

    def _match(self, name: str, replayed: deque[Item], recorded: deque[Item]) -> None:
        """Remove what is equal or accepted from the heads of both queues."""
        while replayed and recorded:
            want, got = replayed[0], recorded[0]
            if want == got or _decode(want) == _decode(got):
                kind, done = "equal", (True, True)
            elif (accepted := self._accepted(name, _decode(want), _decode(got))) is not None:
                kind, done = accepted
            else:
                self._differing.add(name)
                return
            self.counts[kind] += 1
            if done[0]:
                replayed.popleft()
            if done[1]:
                recorded.popleft()

    def _accepted(self, name: str, want: Event, got: Event) -> tuple[str, tuple[bool, bool]] | None:
        """Return why two records may differ, and which of them to remove, if they may."""
        if self._is_earlier(got) or self._is_earlier(want):
            return "earlier", (self._is_earlier(want), self._is_earlier(got))
        if not isinstance(want, OutputEvent) or not isinstance(got, OutputEvent):
            return None
        if (want.session_id, want.started_ms) != (got.session_id, got.started_ms):
            return None
        if isinstance(want, SessionEnd) and self._has_raced(name, want, got):
            return "raced", (isinstance(got, SessionEnd), True)
        if isinstance(want, Heartbeat) and self._is_skipped(want, got):
            return "skipped", (True, False)
        return None

    def _has_raced(self, name: str, want: SessionEnd, got: OutputEvent) -> bool:
        """Say whether a heartbeat or timeout was due after the end but sent before it was read."""
        if want.reason == "timed_out" or got.time_ms <= want.time_ms:
            return False
        if want.platform != got.platform or not _is_part(got.context, want.context):
            return False
        age_ms = got.time_ms - got.started_ms
        if isinstance(got, Heartbeat):
            due = age_ms == got.sequence * self._heartbeat_ms
            again = got.time_ms <= self._raced_ms.get(name, -1)
            self._raced_ms[name] = got.time_ms
            return due and not again
        if not isinstance(got, SessionEnd) or got.duration_ms != age_ms:
            return False
        # An end is not before a heartbeat that is out: it has the time of the last one.
        put_off = got.reason == want.reason and got.time_ms == self._raced_ms.get(name)
        return (put_off and got.context == want.context) or got.reason == "timed_out"

    def _is_skipped(self, want: Heartbeat, got: OutputEvent) -> bool:
        """Say whether a heartbeat was not sent because of an outage."""
        later = isinstance(got, SessionEnd) or got.time_ms > want.time_ms
        silent = self._progress.was_silent(want.time_ms, self._heartbeat_ms)
        return self._latest and later and silent

    def _is_earlier(self, event: Event) -> bool:
        """Say whether a record is from a time for which the recording may lack the input."""
        if event is None:
            return False
        begun_ms = event.time_ms if isinstance(event, ComparedDeadLetter) else event.started_ms
        return begun_ms < self._from_ms

    def _is_unreached(self, event: Event) -> bool:
        """Say whether the recording may end before the run sent this."""
        return event is not None and event.time_ms > self._expected_ms

    def finish(self) -> list[Difference]:
        """Read the rest of the recording; return every difference, the earliest first."""
        self._add(RECORDED, self._recorded)
        found = [self._difference(name, *queues) for name, queues in self._waiting.items()]
        found = [difference for difference in found if difference.count]
        self.counts["differences"] = sum(difference.count for difference in found)
        return sorted(found, key=_first_ms)

    def _difference(self, name: str, replayed: deque[Item], recorded: deque[Item]) -> Difference:
        """Return all differences of a device, not only the first."""
        difference = Difference(name)
        while replayed or recorded:
            self._match(name, replayed, recorded)
            if replayed and recorded:
                difference.add(_unequal(replayed, recorded))
                continue
            for queue in (replayed, recorded):
                while queue:
                    item = queue.popleft()
                    event = _decode(item)
                    if self._is_earlier(event):
                        self.counts["earlier"] += 1
                    elif queue is replayed and self._is_unreached(event):
                        self.counts["unreached"] += 1
                    else:
                        difference.add((item, None) if queue is replayed else (None, item))
        return difference


def _unequal(replayed: deque[Item], recorded: deque[Item]) -> Row:
    """Remove the heads of both queues, or only the one whose counterpart is missing."""
    if replayed[0] in islice(recorded, LOOK_AHEAD):
        return None, recorded.popleft()
    if recorded[0] in islice(replayed, LOOK_AHEAD):
        return replayed.popleft(), None
    return replayed.popleft(), recorded.popleft()


def _is_part(context: Context, whole: Context) -> bool:
    """Say whether the fields of a context are the first ones of another."""
    if context is UNSET or whole is UNSET:
        return context is UNSET
    return bytes(whole).startswith(bytes(context)[:-1])


def _first_ms(difference: Difference) -> int:
    events = [_decode(item) for item in difference.rows[0] if item is not None]
    return min((event.time_ms for event in events if event is not None), default=-1)
