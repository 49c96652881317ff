"""The comparison of a replay with what the recorded run sent, device by device and in order."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import chain, islice, pairwise

import msgspec
from msgspec import Struct

from dataflows.messages import DeadLetter
from heartwheel.kafka.dead_letters import MARK
from heartwheel.recording.file import Line, Recording
from heartwheel.recording.replay import BY_CLOCK, Position, read_letter
from session_logic.codec import decode_output
from session_logic.events import Heartbeat, OutputEvent, SessionEnd
from session_logic.output import OutputBatch

# How the recorded run may differ from its replay; everything else is a difference.
EXCUSES = ("raced", "skipped", "unreached", "earlier")
# How far to look for the counterpart of a record that differs, and how many rows of it to keep.
LOOK_AHEAD = 50
ROWS = 8
# An outage is looked for in stretches of this part of a heartbeat interval.
STRETCHES = 8
HEARTBEAT = '{"type":"Heartbeat"'


class Letter(Struct, frozen=True):
    """A dead letter, as far as it is compared; time_ms is that of the input record."""

    time_ms: int
    reason: str
    key: bytes | None
    value: bytes | None


Item = bytes | Letter
Event = OutputEvent | Letter | None
# In both, what was replayed comes first and what was recorded second.
REPLAYED, RECORDED = 0, 1
Queues = tuple[deque[Item], deque[Item]]
Row = tuple[Item | None, Item | None]


class Difference(Struct):
    """Where replay and recording of a device part: the first rows, and how many there are."""

    name: str
    rows: list[Row] = []
    count: int = 0

    def add(self, row: Row) -> None:
        """Count a row."""
        self.count += 1
        if len(self.rows) < ROWS:
            self.rows.append(row)


class Reach(Struct):
    """How far the recorded run has come: its lanes' time, its last output, and its silences.

    beating holds the stretches of time (timestamp // stretch_ms) in which the wheel has sent
    heartbeats; one sent with another record of its device does not count.
    """

    stretch_ms: int
    reached_ms: int = -1
    written_ms: int = 0
    beating: set[int] = msgspec.field(default_factory=set)

    def caused(self, line: Line, other: Line | None) -> bool:
        """Say whether a record was sent with one beside it, by what that is about."""
        return (
            other is not None
            and other.key == line.key
            and abs(other.timestamp_ms - line.timestamp_ms) < self.stretch_ms
        )

    def was_silent(self, due_ms: int, heartbeat_ms: int) -> bool:
        """Say whether no heartbeat was sent in the interval after due_ms, as in an outage."""
        first = due_ms // self.stretch_ms + 2
        last = (due_ms + heartbeat_ms) // self.stretch_ms - 1
        return self.beating.isdisjoint(range(first, last + 1))


def read_reach(recording: Recording) -> Reach:
    """Return how far the recorded run has come."""
    reach = Reach(max(1, recording.settings["heartbeat_ms"] // STRETCHES))
    for name in recording.partitions([recording.settings["output_topic"]]):
        beat = None
        reach.written_ms = max(reach.written_ms, recording.manifest.partitions[name].latest_ms)
        lines = (line for _, some in recording.read(name) for line in some)
        before: Line | None = None
        for line, after in pairwise(chain(lines, [None])):
            assert line is not None
            caused = reach.caused(line, before) or reach.caused(line, after)
            if not caused and (line.value or "").startswith(HEARTBEAT):
                reach.beating.add(line.timestamp_ms // reach.stretch_ms)
                beat = line
            before = line
        if beat is not None and isinstance(event := _decode(beat.value_bytes() or b""), Heartbeat):
            reach.reached_ms = max(reach.reached_ms, event.time_ms)
    if not reach.beating:
        # Without any output there is nothing that could excuse its absence.
        reach.reached_ms = reach.written_ms or recording.manifest.complete_ms
    return reach


def _name(line: Line) -> str:
    return line.key if line.key is not None else repr(line.key_base64)


def _decode(item: Item) -> Event:
    if isinstance(item, Letter):
        return item
    try:
        return decode_output(item)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None  # a record of another program


def letter_name(position: Position) -> str:
    """Return the name under which the dead letter of an input record is compared."""
    return "dead letter of {}/{} offset {}".format(*position)


def recorded_output(recording: Recording) -> Iterator[tuple[str, Item]]:
    """Yield (device, record) of the recorded output and dead letters, about by time."""
    settings = recording.settings
    letters = settings["dead_letter_topic"]
    names = recording.partitions([settings["output_topic"], letters])
    chunks = merge(*map(recording.read, names), key=lambda read: read[0].least_ms)
    for _, lines in chunks:
        for line in lines:
            if line.topic != letters:
                yield _name(line), line.value_bytes() or b""
                continue
            if any(header.name == MARK for header in line.headers):
                continue  # says that a letter was sent again; what was sent is in the input
            position, time_ms, reason = read_letter(line)
            if reason != BY_CLOCK:
                letter = Letter(time_ms, reason, line.key_bytes(), line.value_bytes())
                yield letter_name(position), letter


class Comparison:
    """Takes the replay's output and reads the recorded output at the same pace.

    Only what has no counterpart yet is held in memory. counts has an entry for what is equal,
    for each of EXCUSES and for differences.
    """

    def __init__(self, recording: Recording, reach: Reach, last_ms: int) -> None:
        """Compare with this recording; what was due in its last_ms may be missing there."""
        self._recorded = recorded_output(recording)
        self._heartbeat_ms: int = recording.settings["heartbeat_ms"]
        self._latest: bool = recording.settings["catch_up"] == "latest"
        self._from_ms = recording.from_ms() or 0
        self._reach = reach
        self._expected_ms = reach.reached_ms - last_ms
        self._waiting: dict[str, Queues] = {}
        self._raced_ms: dict[str, int] = {}
        self._parted: set[str] = set()
        self.counts: Counter[str] = Counter()

    def take(self, item: OutputBatch | DeadLetter) -> None:
        """Take in output of the replay."""
        items: list[tuple[str, Item]] = []
        if isinstance(item, OutputBatch):
            items += zip(item.keys, item.values, strict=True)
        elif item.reason != BY_CLOCK:
            offset, time_ms, key, value = item.message
            name = letter_name((item.topic, item.partition, offset))
            items.append((name, Letter(time_ms, item.reason, key, value)))
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
                if name not in self._parted:
                    self._settle(name, *queues)
            if not queues[0] and not queues[1]:
                del waiting[name]
        self.counts["equal"] += equal

    def _settle(self, name: str, replayed: deque[Item], recorded: deque[Item]) -> None:
        """Take away what is equal or excused at the heads of both queues."""
        while replayed and recorded:
            want, got = replayed[0], recorded[0]
            if want == got or _decode(want) == _decode(got):
                kind, done = "equal", (True, True)
            elif (excuse := self._excuse(name, _decode(want), _decode(got))) is not None:
                kind, done = excuse
            else:
                self._parted.add(name)
                return
            self.counts[kind] += 1
            if done[0]:
                replayed.popleft()
            if done[1]:
                recorded.popleft()

    def _excuse(self, name: str, want: Event, got: Event) -> tuple[str, tuple[bool, bool]] | None:
        """Say why two records may differ, and which of them is done with."""
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
        if isinstance(got, Heartbeat):
            again = got.time_ms <= self._raced_ms.get(name, -1)
            self._raced_ms[name] = got.time_ms
            return not again
        return isinstance(got, SessionEnd) and got.reason == "timed_out"

    def _is_skipped(self, want: Heartbeat, got: OutputEvent) -> bool:
        """Say whether an outage, in which only the newest heartbeat counts, hid this one."""
        later = isinstance(got, SessionEnd) or got.time_ms > want.time_ms
        silent = self._reach.was_silent(want.time_ms, self._heartbeat_ms)
        return self._latest and later and silent

    def _is_earlier(self, event: Event) -> bool:
        """Say whether a record is of a time for which the recording may lack the input."""
        if event is None:
            return False
        begun_ms = event.time_ms if isinstance(event, Letter) else event.started_ms
        return begun_ms < self._from_ms

    def _is_unreached(self, event: Event) -> bool:
        """Say whether the recorded run may not have got to this before its end."""
        return event is not None and event.time_ms > self._expected_ms

    def finish(self) -> list[Difference]:
        """Read the rest of the recording; return every difference, the earliest first."""
        self._add(RECORDED, self._recorded)
        found = [self._part(name, *queues) for name, queues in self._waiting.items()]
        found = [difference for difference in found if difference.count]
        self.counts["differences"] = sum(difference.count for difference in found)
        return sorted(found, key=_first_ms)

    def _part(self, name: str, replayed: deque[Item], recorded: deque[Item]) -> Difference:
        """Return what is different about a device, found by going on after each difference."""
        difference = Difference(name)
        while replayed or recorded:
            self._settle(name, replayed, recorded)
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
    """Take away the heads of two queues, or only that one whose counterpart is missing."""
    if replayed[0] in islice(recorded, LOOK_AHEAD):
        return None, recorded.popleft()
    if recorded[0] in islice(replayed, LOOK_AHEAD):
        return replayed.popleft(), None
    return replayed.popleft(), recorded.popleft()


def _first_ms(difference: Difference) -> int:
    events = [_decode(item) for item in difference.rows[0] if item is not None]
    return min((event.time_ms for event in events if event is not None), default=-1)
