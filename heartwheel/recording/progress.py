"""How far a recorded run had come when its recording ends, and when its lanes were silent."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain, pairwise
from operator import itemgetter

from msgspec import Struct, field

from heartwheel.recording.format import Line
from heartwheel.recording.reader import Recording
from heartwheel.recording.recorded import decode_record
from session_logic.events import Heartbeat
from session_logic.lane_time import PAUSE_MS
from session_logic.silence import STALL_MS

# A silence is looked for in stretches of this part of a heartbeat interval.
STRETCHES = 8
# What a lane takes for an outage of its input shows: no heartbeat comes for nearly as long.
GAP_MS = STALL_MS - 200
HEARTBEAT = '{"type":"Heartbeat"'


class RecordedProgress(Struct):
    """How far a recorded run had come: the time of its lanes, its last output, and its silences.

    beating holds, for each lane, the stretches of time (moment // stretch_ms) in which its wheel
    sent heartbeats, due those in which they were due, with when the last of them was sent, and late
    the moments at which it sent some later than a stretch. A heartbeat that was sent together with
    another record of its device does not count: an end or a new start caused it, not the wheel.
    """

    stretch_ms: int
    reached_ms: int = -1
    written_ms: int = 0
    beating: defaultdict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    due: defaultdict[int, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))
    late: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    gaps: defaultdict[int, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))

    def was_silent(self, lane: int, due_ms: int, heartbeat_ms: int) -> bool:
        """Say whether there was an outage in the interval after due_ms.

        Then all lanes sent no heartbeat, or none that was due then; or the lane alone stood still,
        for as long as it takes for that to be an outage.
        """
        interval = self._interval(due_ms, heartbeat_ms)
        return (
            all(beating.isdisjoint(interval) for beating in self.beating.values())
            or all(due.keys().isdisjoint(interval) for due in self.due.values())
            or self._stood_still(self.beating[lane], interval)
        )

    def had_gap(self, lane: int, begin_ms: int, end_ms: int) -> bool:
        """Say whether the wheel of a lane sent nothing for a while, somewhere between two moments.

        A lane with few sessions has such gaps anyway.
        """
        gaps = self.gaps[lane]
        first = bisect_left(gaps, begin_ms, key=itemgetter(1))
        return first < len(gaps) and gaps[first][0] < end_ms

    def was_resuming(self, lane: int, sent_ms: int, heartbeat_ms: int) -> bool:
        """Say whether a lane made up for an outage when it sent a record: it fired nothing yet."""
        interval = self._interval(sent_ms - heartbeat_ms, heartbeat_ms)
        return all(
            beating.isdisjoint(interval) for beating in self.beating.values()
        ) or self._stood_still(self.beating[lane], interval)

    def _interval(self, begin_ms: int, for_ms: int) -> range:
        """Return the stretches that are whole within an interval."""
        first = begin_ms // self.stretch_ms + 2
        return range(first, (begin_ms + for_ms) // self.stretch_ms)

    def _stood_still(self, beating: set[int], interval: range) -> bool:
        """Say whether a lane that had sent heartbeats sent none in and about an interval."""
        if not beating.isdisjoint(interval) or min(beating, default=interval.stop) > interval.start:
            return False
        first, last, enough = interval.start, interval.stop, PAUSE_MS // self.stretch_ms
        while first - 1 not in beating and last - first < enough:
            first -= 1
        while last not in beating and last - first < enough:
            last += 1
        return last - first >= enough

    def sent_before_ms(self, lane: int, due_ms: int) -> int:
        """Return when a lane sent what was due in the interval before due_ms; 0 if nothing was."""
        until = due_ms // self.stretch_ms
        due = self.due[lane]
        return max(due.get(stretch, 0) for stretch in range(until - STRETCHES, until))

    def is_late(self, due_ms: int, sent_ms: int) -> bool:
        """Say whether a record was sent later than a lane that is live sends it."""
        return sent_ms - due_ms > self.stretch_ms

    def was_late(self, lane: int, due_ms: int, sent_ms: int) -> bool:
        """Say whether a heartbeat, or others of its lane since it was due, were sent late.

        That is how the newest heartbeats come after an outage.
        """
        if self.is_late(due_ms, sent_ms):
            return True
        late = self.late[lane]
        first = bisect_left(late, due_ms)
        return first < len(late) and late[first] <= sent_ms + self.stretch_ms


def read_progress(recording: Recording) -> RecordedProgress:
    """Return how far the recorded run had come."""
    settings = recording.settings
    output, beats = settings["output_topic"], settings["heartbeat_topic"]
    progress = RecordedProgress(max(1, settings["heartbeat_ms"] // STRETCHES))
    for name in recording.partitions([output, beats]):
        latest_ms = recording.manifest.partitions[name].latest_ms
        progress.written_ms = max(progress.written_ms, latest_ms)
    for name in recording.partitions([beats or output]):
        lane = name.rpartition("/")[2]
        others = _Others(_lines(recording, f"{output}/{lane}" if beats else ""))
        _read_partition(_lines(recording, name), others, progress)
    if not progress.beating:
        # Without any output there is nothing that could excuse its absence.
        progress.reached_ms = progress.written_ms or recording.manifest.complete_ms
    return progress


def _lines(recording: Recording, name: str) -> Iterator[Line]:
    """Return the records of a partition; without a name, none."""
    return chain.from_iterable(lines for _, lines in recording.read(name)) if name else iter(())


class _Others:
    """The records of a lane in the topic beside that for heartbeats, read at the same pace."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._next = next(lines, None)
        self._sent_ms: dict[str | None, int] = {}  # the last ones by device, the oldest first

    def has_beside(self, line: Line, stretch_ms: int) -> bool:
        """Say whether a record was sent together with a heartbeat; those come in their order."""
        first_ms, last_ms = line.timestamp_ms - stretch_ms, line.timestamp_ms + stretch_ms
        while self._next is not None and self._next.timestamp_ms < last_ms:
            self._sent_ms.pop(self._next.key, None)
            self._sent_ms[self._next.key] = self._next.timestamp_ms
            self._next = next(self._lines, None)
        while self._sent_ms and next(iter(self._sent_ms.values())) <= first_ms:
            del self._sent_ms[next(iter(self._sent_ms))]
        return line.key in self._sent_ms


def _read_partition(lines: Iterator[Line], others: _Others, progress: RecordedProgress) -> None:
    """Note when the wheel sent heartbeats to a partition, and the time of the last one."""
    last_ms = sent_ms = -1
    before: Line | None = None
    for line, after in pairwise(chain(lines, [None])):
        assert line is not None
        if sent_ms < 0:
            sent_ms = line.timestamp_ms
        if (
            (line.value or "").startswith(HEARTBEAT)
            and not _is_together(line, before, progress.stretch_ms)
            and not _is_together(line, after, progress.stretch_ms)
            and not others.has_beside(line, progress.stretch_ms)
            and (due_ms := _due_ms(line)) is not None
        ):
            if sent_ms < line.timestamp_ms - GAP_MS:
                progress.gaps[line.partition].append((sent_ms, line.timestamp_ms))
            last_ms, sent_ms = due_ms, line.timestamp_ms
            stretch = line.timestamp_ms // progress.stretch_ms
            progress.beating[line.partition].add(stretch)
            due_in = due_ms // progress.stretch_ms
            progress.due[line.partition][due_in] = line.timestamp_ms
            if progress.is_late(due_ms, line.timestamp_ms):
                progress.late[line.partition].append(line.timestamp_ms)
        before = line
    progress.reached_ms = max(progress.reached_ms, last_ms)


def _due_ms(line: Line) -> int | None:
    """Return when a heartbeat was due; None for a record of another program."""
    event = decode_record(line.value_bytes() or b"")
    return event.time_ms if isinstance(event, Heartbeat) else None


def _is_together(line: Line, other: Line | None, stretch_ms: int) -> bool:
    """Say whether a record was sent together with its neighbour of the same device."""
    return (
        other is not None
        and other.key == line.key
        and abs(other.timestamp_ms - line.timestamp_ms) < stretch_ms
    )
