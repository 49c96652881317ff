"""A replay: the dataflow over a recorded input, without a broker and as fast as it goes."""

import gc
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from heapq import merge
from itertools import accumulate, groupby, islice
from operator import attrgetter, itemgetter
from threading import Event
from types import FrameType
from typing import TYPE_CHECKING, Any

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.run import cli_main

from dataflows.avro.registry import SchemaId, SchemaText, UnknownSchemaError
from dataflows.avro.topics import new_schemas, readers
from dataflows.clock import system_time
from dataflows.logs import hide_backtraces
from dataflows.memory import GC_THRESHOLDS
from dataflows.messages import DeadLetter, Message, PartitionBatch, RecordId
from dataflows.run_state import RunState
from dataflows.sessions import build_flow
from dataflows.settings import Settings
from dataflows.settings_file import read_inputs
from dataflows.settings_sources import load_settings, variable_of, with_names
from heartwheel.kafka.headers import REASON, Origin, header_texts
from heartwheel.recording.format import WITHOUT_TOPICS, Line, RecordingError
from heartwheel.recording.reader import Recording
from session_logic.clock import PartitionProgress
from session_logic.errors import ConfigError
from session_logic.events import OF_A_MOMENT
from session_logic.output import OutputBatch

if TYPE_CHECKING:  # it needs the extra
    from dataflows.avro.schemas import Schemas

BATCH_MESSAGES = 2_000
END_MS = 1 << 62  # later than any timestamp
_DUE = system_time(0)
_NEVER = datetime(9999, 1, 1, tzinfo=UTC)


class FrozenClock:
    """A clock that stays at one moment: what is later never comes."""

    def __init__(self, now_ms: int) -> None:
        """Stay at this moment."""
        self._now_ms = now_ms
        self.asked = False  # whether anything asked to be woken for what is already due

    def now_ms(self) -> int:
        """Return the moment."""
        return self._now_ms

    def at_ms(self, time_ms: int) -> datetime:
        """Return a past moment for what is due, and one that never comes for what is not."""
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
    names = recording.partitions(recording.input_topics)
    return merge(*(in_time_order(recording, name) for name in names), key=itemgetter(0))


def rejected_of_a_moment(recording: Recording) -> set[RecordId]:
    """Return the input that the recorded run rejected because of the moment that it was.

    A replay has another moment, so it skips these records.
    """
    dead_letters = (
        read_dead_letter(line)
        for name in recording.partitions([recording.settings["dead_letter_topic"]])
        for _, lines in recording.read(name)
        for line in lines
    )
    return {origin.record for origin, reason in dead_letters if reason in OF_A_MOMENT}


def read_dead_letter(line: Line) -> tuple[Origin, str]:
    """Return where a recorded dead letter is from, and why it was rejected.

    A record of another program is from where it is itself, and has no reason.
    """
    headers = header_texts(line.header_bytes())
    origin = Origin.of(headers)
    if origin is None:
        return Origin(RecordId(line.topic, line.partition, line.offset), line.timestamp_ms), ""
    return origin, headers.get(REASON, "")


class _Tape(StatefulSourcePartition[PartitionBatch, int]):
    """All recorded input as one partition; ends when no lane has anything left to do.

    An epoch is a batch. The progress in a batch is the least timestamp from that batch on: time
    never passes a record that is still to come. Therefore the output does not depend on how far
    one topic is read before another.
    """

    def __init__(
        self, recording: Recording, settings: Settings, clock: FrozenClock, until_ms: int | None
    ) -> None:
        self._input = recorded_input(recording)
        self._until_ms = until_ms
        self._skipped = rejected_of_a_moment(recording)
        self._platforms = settings.input_topics
        self._clock = clock
        self._at_end = False
        # What ends the replay. Raised in a step, its one line would have a trace of Bytewax around.
        self.failure: BaseException | None = None

    def next_batch(self) -> list[PartitionBatch]:
        if self.failure is not None:
            raise StopIteration
        try:
            batch = list(islice(self._input, BATCH_MESSAGES))
        except RecordingError as error:
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
        # Between two calls every lane that asked is woken, and asks again if it has more to do.
        self._clock.asked = False
        return []

    def _polled(self, batch: list[tuple[int, Line]]) -> list[PartitionBatch]:
        """Return a batch as polls in the order of time, in whichever partitions a device is."""
        skipped, platforms = self._skipped, self._platforms
        lines = [
            line for _, line in batch if (line.topic, line.partition, line.offset) not in skipped
        ]
        polls = [
            PartitionBatch(
                topic, partition, platforms.get(topic, ""), list(map(_message, some)), None
            )
            for (topic, partition), some in groupby(lines, attrgetter("topic", "partition"))
        ]
        report = PartitionProgress("recording", 1, batch[0][0])
        return [*polls, PartitionBatch("", 0, "", [], report)]

    def next_awake(self) -> datetime | None:
        return _DUE

    def snapshot(self) -> int:
        return 0


def _message(line: Line) -> Message:
    created = line.timestamp_type == "create"
    return (
        line.offset,
        line.timestamp_ms,
        line.key_bytes(),
        line.value_bytes(),
        created,
        line.header_bytes(),
    )


class RecordingSource(FixedPartitionedSource[PartitionBatch, int]):
    """Reads the input of a recording."""

    def __init__(
        self, recording: Recording, settings: Settings, clock: FrozenClock, until_ms: int | None
    ) -> None:
        """Read this recording; then time goes to until_ms, or without it to the clock's moment."""
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
    """Gives the whole output to a function."""

    def __init__(self, take: Callable[[OutputBatch | DeadLetter], None]) -> None:
        """Give all output to this function."""
        self._take = take

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Collector:
        """Build the part of a worker."""
        return _Collector(self._take)


def replay_settings(recording: Recording, overrides: dict[str, str]) -> Settings:
    """Return the settings of the recorded run, with some replaced by their names in TOML.

    Raises ConfigError for a wrong one. A replay has no outage, so catch_up does not matter. It has
    one output, with the heartbeats between the other records, whatever topics the run had.
    """
    values: dict[str, Any] = recording.settings
    for name in WITHOUT_TOPICS:
        values.pop(name)
        if name in overrides:
            raise ConfigError(f"--set {name}: a replay has one output; leave it out")
    inputs = read_inputs(values.pop("inputs"), f" in {recording.path}")
    topics = ",".join(f"{k}={v}" for k, v in values.pop("input_topics").items())
    if topics:
        values["input_topics"] = topics
    texts = {name: _text(value) for name, value in values.items()} | {"tick_ms": "1"} | overrides
    variables = {variable_of(name): text for name, text in texts.items()}
    try:
        return load_settings(variables | {variable_of("catch_up"): "all"}, inputs=inputs)
    except ConfigError as error:
        place = {"inputs": f"inputs in {recording.path}"}
        msg = with_names(str(error), lambda key: place.get(key, f"--set {key}"))
        raise ConfigError(msg) from None


def _text(value: Any) -> str:
    """Return the value of a setting as a variable has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def recorded_schemas(recording: Recording, settings: Settings) -> "Schemas | None":
    """Return the schemas that a recording has, None without topics in Avro."""
    if not settings.avro_topics:
        return None

    def ask(schema_id: SchemaId) -> SchemaText:
        raise UnknownSchemaError(f"{recording.path} does not have schema {schema_id}")

    schemas = new_schemas(settings, ask, f"recording {recording.path}", Event())
    schemas.add(
        {
            int(name) if name.isdecimal() else name: text
            for name, text in recording.manifest.schemas.items()
        }
    )
    return schemas


def replay(
    recording: Recording,
    settings: Settings,
    take: Callable[[OutputBatch | DeadLetter], None],
    until_ms: int | None = None,
) -> None:
    """Run the dataflow over the recorded input.

    Calls take with the output of each lane in order: all that is due by until_ms, or without it
    by the moment up to which the recording is complete. Raises RecordingError if the file is
    damaged, what take raises, and KeyboardInterrupt at SIGINT, each when the dataflow has ended.
    """
    hide_backtraces()
    clock = FrozenClock(recording.manifest.complete_ms)
    source = RecordingSource(recording, settings, clock, until_ms)
    tape = source.tape

    def take_until_failure(item: OutputBatch | DeadLetter) -> None:
        if tape.failure is None:
            try:
                take(item)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is raised below
                tape.failure = error

    reads = readers(settings, recorded_schemas(recording, settings))
    sink = CollectorSink(take_until_failure)
    flow = build_flow(source, sink, settings, RunState(clock), reads)
    thresholds = gc.get_threshold()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        with _interrupting(tape):
            cli_main(flow, epoch_interval=timedelta(0))  # type: ignore[no-untyped-call]
    finally:
        gc.set_threshold(*thresholds)
    if tape.failure is not None:
        raise tape.failure


@contextmanager
def _interrupting(tape: _Tape) -> Iterator[None]:
    """Let SIGINT end a tape; a second one ends the process at once."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        tape.failure = tape.failure or KeyboardInterrupt()
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
