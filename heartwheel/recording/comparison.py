"""The comparison of a replay with what the recorded run sent, device by device and in order.

What may differ is counted by its kind (see heartwheel.recording.acceptance); everything else is a
difference. The replay's output is not held in memory: the recording is read at the same pace, and
only what has no counterpart yet waits.

Summaries and the table follow from the starts and the ends that were recorded. They are compared
with those, and so are what the replay would have made, but for what may differ.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from itertools import islice

from msgspec import Struct, field

from dataflows.messages import DeadLetter, RecordId
from heartwheel.recording.acceptance import Acceptance, Undecided, Verdict
from heartwheel.recording.active_table import ActiveTable
from heartwheel.recording.difference import Difference, Row
from heartwheel.recording.progress import RecordedProgress
from heartwheel.recording.reader import Recording
from heartwheel.recording.recorded import (
    ComparedDeadLetter,
    Event,
    Item,
    Named,
    Recorded,
    dead_letter_name,
    decode_record,
)
from heartwheel.recording.recorded_output import recorded_output
from heartwheel.recording.summaries import Summaries
from session_logic.events import OF_A_MOMENT, Heartbeat, OutputEvent, SessionEnd
from session_logic.output import OutputBatch

# How far to look for the counterpart of a record that differs.
LOOK_AHEAD = 50
EQUAL = Verdict("equal", replayed=True, recorded=True)


class _Queues(Struct):
    """What of a device has no counterpart yet."""

    replayed: deque[Item] = field(default_factory=deque)
    recorded: deque[Recorded] = field(default_factory=deque)


class Comparison:
    """Takes the replay's output and reads the recorded output at the same pace.

    counts has an entry for what is equal, for each of ACCEPTED, and for differences.
    """

    def __init__(self, recording: Recording, progress: RecordedProgress, last_ms: int) -> None:
        """Compare with this recording; what was due in its last last_ms may be missing there."""
        settings, from_ms = recording.settings, recording.from_ms() or 0
        cut_ms = progress.written_ms - last_ms
        self._summaries = Summaries(from_ms, cut_ms) if settings["summary_topic"] else None
        self._table = (
            ActiveTable(settings["max_session_ms"], from_ms, cut_ms)
            if settings["table_topic"]
            else None
        )
        self._recorded = self._of_devices(recorded_output(recording))
        self._acceptance = Acceptance(recording, progress, last_ms)
        self._waiting: dict[str, _Queues] = {}
        self._differing: set[str] = set()
        self.counts: Counter[str] = Counter()

    def take(self, item: OutputBatch | DeadLetter) -> None:
        """Compare some output of the replay."""
        items: list[tuple[str, Item]] = []
        if isinstance(item, OutputBatch):
            items += zip(item.keys, item.values, strict=True)
        elif item.reason not in OF_A_MOMENT:
            offset, time_ms, key, value, *_ = item.message
            name = dead_letter_name(RecordId(item.topic, item.partition, offset))
            items.append((name, ComparedDeadLetter(time_ms, item.reason, key, value)))
        for name, replayed in items:
            queues = self._queues(name)
            queues.replayed.append(replayed)
            if queues.recorded:
                self._match(name, queues)
        self._read(islice(self._recorded, len(items)))

    def _of_devices(self, items: Iterator[Named]) -> Iterator[Named]:
        """Yield what is compared with the replay; give the rest to those that compare it."""
        for name, recorded in items:
            if recorded.kind == "summaries" and self._summaries is not None:
                self._summaries.note(name, recorded)
            elif recorded.kind == "table" and self._table is not None:
                self._table.note(name, recorded)
            else:
                if recorded.kind is None and (self._summaries or self._table):
                    self._note_event(decode_record(recorded.item), recorded.sent_ms)
                yield name, recorded

    def _note_event(self, event: Event, sent_ms: int) -> None:
        """Let summaries and table know of a start or an end that was recorded."""
        if not isinstance(event, OutputEvent) or isinstance(event, Heartbeat):
            return
        if self._summaries is not None and isinstance(event, SessionEnd):
            self._summaries.note_end(event, sent_ms)
        if self._table is not None:
            self._table.note_event(event, sent_ms)

    def _note_unreached(self, event: Event) -> None:
        """Count a record that the run had not sent; it may have sent what comes with it."""
        self.counts["unreached"] += 1
        if self._summaries is not None and isinstance(event, SessionEnd):
            self._summaries.note_unreached(event)
        if self._table is not None and isinstance(event, OutputEvent):
            self._table.note_unreached(event)

    def _read(self, items: Iterable[tuple[str, Recorded]]) -> None:
        for name, recorded in items:
            queues = self._queues(name)
            queues.recorded.append(recorded)
            if queues.replayed:
                self._match(name, queues)

    def _queues(self, name: str) -> _Queues:
        queues = self._waiting.get(name)
        if queues is None:
            queues = self._waiting[name] = _Queues()
        return queues

    def _match(self, name: str, queues: _Queues) -> None:
        """Remove what is equal or accepted from the heads of both queues of a device."""
        if name in self._differing:
            return
        if self._settle(name, queues, complete=False) is Undecided.DIFFERENT:
            self._differing.add(name)
        elif not queues.replayed and not queues.recorded:
            del self._waiting[name]

    def _settle(self, name: str, queues: _Queues, *, complete: bool) -> Undecided | None:
        """Remove what is equal or accepted; return what is said of the heads if both are left."""
        replayed, recorded = queues.replayed, queues.recorded
        while replayed and recorded:
            verdict = self._compare(name, replayed[0], recorded, complete=complete)
            if isinstance(verdict, Undecided):
                return verdict
            self.counts[verdict.kind] += 1
            if verdict.replayed:
                replayed.popleft()
            if verdict.recorded:
                recorded.popleft()
        return None

    def _compare(
        self, name: str, replayed: Item, recorded: deque[Recorded], *, complete: bool
    ) -> Verdict | Undecided:
        """Say whether two records are equal, or may differ."""
        first = recorded[0]
        if replayed != first.item:
            want = decode_record(replayed)
            if want != decode_record(first.item):
                return self._acceptance.judge(name, want, recorded, complete=complete)
        return EQUAL if self._acceptance.note(name, first) else Undecided.DIFFERENT

    def finish(self) -> list[Difference]:
        """Read the rest of the recording; return every difference.

        Those from the replay come first, the earliest of them before the others.
        """
        self._read(self._recorded)
        found = [self._difference(name, queues) for name, queues in self._waiting.items()]
        found = sorted((one for one in found if one.count), key=_first_ms)
        for apart in (self._summaries, self._table):
            if apart is not None:
                found += apart.differences()
                self.counts.update(apart.counts)
        self.counts["differences"] = sum(difference.count for difference in found)
        return found

    def _difference(self, name: str, queues: _Queues) -> Difference:
        """Return all differences of a device, not only the first."""
        difference = Difference(name)
        replayed, recorded = queues.replayed, queues.recorded
        while self._settle(name, queues, complete=True) is not None:
            difference.add(_unequal(replayed, recorded))
        for item in replayed:
            event = decode_record(item)
            if self._acceptance.is_earlier(event):
                self.counts["earlier"] += 1
            elif self._acceptance.is_unreached(event):
                self._note_unreached(event)
            elif self._acceptance.is_put_off(name, event):
                self.counts["put_off"] += 1
            else:
                difference.add((item, None))
        for sent in recorded:
            if self._acceptance.is_earlier(decode_record(sent.item)):
                self.counts["earlier"] += 1
            else:
                difference.add((None, sent.item))
        return difference


def _unequal(replayed: deque[Item], recorded: deque[Recorded]) -> Row:
    """Remove the heads of both queues, or only the one whose counterpart is missing."""
    if any(replayed[0] == sent.item for sent in islice(recorded, LOOK_AHEAD)):
        return None, recorded.popleft().item
    if recorded[0].item in islice(replayed, LOOK_AHEAD):
        return replayed.popleft(), None
    return replayed.popleft(), recorded.popleft().item


def _first_ms(difference: Difference) -> int:
    events = [decode_record(item) for item in difference.rows[0] if item is not None]
    return min((event.time_ms for event in events if event is not None), default=-1)
