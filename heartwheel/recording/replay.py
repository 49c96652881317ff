"""A replay: the dataflow over a recorded input, without a broker and as fast as it goes."""

import gc
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from heapq import merge
from itertools import accumulate, islice
from operator import itemgetter
from typing import Any

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.run import cli_main

from dataflows.clock import system_time
from dataflows.messages import DeadLetter, Message, PartitionBatch
from dataflows.run_state import RunState
from dataflows.sessions import build_flow
from dataflows.settings import PREFIX, Settings, load_settings
from heartwheel.process import GC_THRESHOLDS
from heartwheel.recording.file import Line, Recording, RecordingError
from session_logic.clock import PartitionProgress
from session_logic.output import OutputBatch

BATCH_MESSAGES = 2_000
# The recorded run decided this by its own clock, so a replay takes its word.
BY_CLOCK = "in_the_future"
END_MS = 1 << 62  # later than any timestamp
_DUE = system_time(0)
_NEVER = datetime(9999, 1, 1, tzinfo=UTC)

Position = tuple[str, int, int]  # topic, partition, offset


class StandingClock:
    """A clock that stands at one moment: what is later never comes."""

    def __init__(self, now_ms: int) -> None:
        """Stand at this moment."""
        self._now_ms = now_ms
        self.asked = False  # whether anybody has asked to be woken for something already due

    def now_ms(self) -> int:
        """Return the moment."""
        return self._now_ms

    def not_before(self, time_ms: int) -> None:
        """Stand still: a replay begins with no state."""

    def at_ms(self, time_ms: int) -> datetime:
        """Return a moment long ago for what is due, and the end of days for what is not."""
        if time_ms > self._now_ms:
            return _NEVER
        self.asked = True
        return _DUE


def in_time_order(recording: Recording, name: str) -> Iterator[tuple[int, Line]]:
    """Yield (least timestamp from here to the end, record) of a partition, in offset order."""
    chunks = [chunk for chunk in recording.manifest.chunks if chunk.partition == name]
    later_ms = list(accumulate((chunk.least_ms for chunk in chunks[:0:-1]), min, initial=END_MS))
    for (_, lines), rest_ms in zip(
        recording.read(name), later_ms[::-1][: len(chunks)], strict=True
    ):
        times = (line.timestamp_ms for line in reversed(lines))
        least_ms = list(accumulate(times, min, initial=rest_ms))
        yield from zip(least_ms[:0:-1], lines, strict=True)


def recorded_input(recording: Recording) -> Iterator[tuple[int, Line]]:
    """Yield (least timestamp from here to the end, record) of all input, by that timestamp."""
    names = recording.partitions(list(recording.settings["input_topics"]))
    return merge(*(in_time_order(recording, name) for name in names), key=itemgetter(0))


def rejected_by_clock(recording: Recording) -> set[Position]:
    """Return the input that the recorded run rejected as stamped in the future."""
    letters = (
        read_letter(line)
        for name in recording.partitions([recording.settings["dead_letter_topic"]])
        for _, lines in recording.read(name)
        for line in lines
    )
    return {position for position, _, reason in letters if reason == BY_CLOCK}


def read_letter(line: Line) -> tuple[Position, int, str]:
    """Return place and time in ms of a recorded dead letter's input, and why it was rejected."""
    headers = {header.name: header.value or "" for header in line.headers}
    topic, partition, offset, time_ms, reason = (
        headers.get(f"heartwheel.{name}", "")
        for name in ("topic", "partition", "offset", "timestamp", "reason")
    )
    try:
        return (topic, int(partition), int(offset)), int(time_ms), reason
    except ValueError:  # another program's
        return (line.topic, line.partition, line.offset), line.timestamp_ms, ""


class _Tape(StatefulSourcePartition[PartitionBatch, int]):
    """All recorded input as one partition; ends when nobody has anything left to do.

    An epoch is a batch. The report in a batch is the least timestamp from that batch on: time
    never passes a record that is still to come, so the output does not depend on how far one
    topic is read before another.
    """

    def __init__(
        self, recording: Recording, settings: Settings, clock: StandingClock, until_ms: int | None
    ) -> None:
        self._input = recorded_input(recording)
        self._until_ms = until_ms
        self._passed_over = rejected_by_clock(recording)
        self._platforms = settings.input_topics
        self._clock = clock
        self._at_end = False
        self.failure: RecordingError | None = None

    def next_batch(self) -> list[PartitionBatch]:
        try:
            batch = list(islice(self._input, BATCH_MESSAGES))
        except RecordingError as error:
            # Raised in here, it would come with a trace of Bytewax around its one line.
            self.failure = error
            raise StopIteration from None
        if batch:
            return self._polled(batch)
        if not self._at_end:
            self._at_end = True
            return [
                PartitionBatch("", 0, "", [], PartitionProgress("recording", 1, self._until_ms))
            ]
        if not self._clock.asked:
            raise StopIteration
        # Between two calls every lane that has asked is woken, and asks again if it must.
        self._clock.asked = False
        return []

    def _polled(self, batch: list[tuple[int, Line]]) -> list[PartitionBatch]:
        messages: defaultdict[tuple[str, int], list[Message]] = defaultdict(list)
        for _, line in batch:
            if (line.topic, line.partition, line.offset) not in self._passed_over:
                messages[line.topic, line.partition].append(
                    (line.offset, line.timestamp_ms, line.key_bytes(), line.value_bytes())
                )
        report = PartitionProgress("recording", 1, batch[0][0])
        polls = [
            PartitionBatch(topic, partition, self._platforms[topic], some, None)
            for (topic, partition), some in messages.items()
        ]
        return [*polls, PartitionBatch("", 0, "", [], report)]

    def next_awake(self) -> datetime | None:
        return _DUE

    def snapshot(self) -> int:
        return 0


class RecordingSource(FixedPartitionedSource[PartitionBatch, int]):
    """Reads the input of a recording."""

    def __init__(
        self, recording: Recording, settings: Settings, clock: StandingClock, until_ms: int | None
    ) -> None:
        """Read this recording, then let time go to until_ms or to the clock's, the flow's."""
        self.tape = _Tape(recording, settings, clock, until_ms)

    def list_parts(self) -> list[str]:
        """Return the only part."""
        return ["recording"]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _Tape:
        """Return the only part."""
        return self.tape


class _Collector(StatelessSinkPartition[tuple[str, OutputBatch | DeadLetter]]):
    def __init__(self, take: Callable[[OutputBatch | DeadLetter], None]) -> None:
        self._take = take

    def write_batch(self, items: list[tuple[str, OutputBatch | DeadLetter]]) -> None:
        for _, item in items:
            self._take(item)


class CollectorSink(DynamicSink[tuple[str, OutputBatch | DeadLetter]]):
    """Gives everything that comes out to a function."""

    def __init__(self, take: Callable[[OutputBatch | DeadLetter], None]) -> None:
        """Give to this function."""
        self._take = take

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Collector:
        """Build the part of a worker."""
        return _Collector(self._take)


def replay_settings(recording: Recording, overrides: dict[str, str]) -> Settings:
    """Return the settings of the recorded run with some replaced, by their names in TOML.

    Raises ConfigError for a wrong one. A replay has no outage, so catch_up is not asked.
    """
    values: dict[str, Any] = recording.settings | {
        "input_topics": ",".join(f"{k}={v}" for k, v in recording.settings["input_topics"].items())
    }
    texts = {name: str(value) for name, value in values.items()} | {"tick_ms": "1"} | overrides
    variables = {f"{PREFIX}{name.upper()}": text for name, text in texts.items()}
    return load_settings(variables | {f"{PREFIX}CATCH_UP": "all"})


def replay(
    recording: Recording,
    settings: Settings,
    take: Callable[[OutputBatch | DeadLetter], None],
    until_ms: int | None = None,
) -> None:
    """Run the dataflow over the recorded input.

    Gives take the output of each lane in order, all that is due by until_ms or, without, by the
    moment to which the recording is complete. Raises RecordingError if the file is damaged.
    """
    clock = StandingClock(recording.manifest.complete_ms)
    source = RecordingSource(recording, settings, clock, until_ms)
    flow = build_flow(source, CollectorSink(take), settings, RunState(clock))
    thresholds = gc.get_threshold()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        cli_main(flow, epoch_interval=timedelta(0))  # type: ignore[no-untyped-call]
    finally:
        gc.set_threshold(*thresholds)
    if source.tape.failure is not None:
        raise source.tape.failure
