"""Recordings that tests write or change, without a Kafka."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

from msgspec.structs import replace

from dataflows.messages import DeadLetter
from dataflows.settings import Settings
from heartwheel.recording.format import Line, Preface, format_of, stored_settings
from heartwheel.recording.reader import Recording
from heartwheel.recording.replay import replay, replay_settings
from heartwheel.recording.writer import Writer
from session_logic.codec import decode_output
from session_logic.events import OutputEvent
from session_logic.keys import key_group_of, lane_of
from session_logic.output import OutputBatch

BEGIN_MS = 1_700_000_000_000
FOLDER = Path(__file__).parents[1] / "recordings"
NAMES = sorted(path.name.removesuffix(".jsonl.zst") for path in FOLDER.glob("*.jsonl.zst"))


def path_of(name: str) -> Path:
    """Return the file of a recording of the suite."""
    return FOLDER / f"{name}.jsonl.zst"


def preface(settings: Settings, partitions: int = 2) -> Preface:
    """Return the preface of a recording from the beginning of every topic."""
    counts = dict.fromkeys(settings.all_input_topics, partitions)
    counts |= dict.fromkeys(settings.lane_topics, settings.lanes)
    counts |= {settings.dead_letter_topic: 1}
    starts = {f"{topic}/{n}": 0 for topic, count in counts.items() for n in range(count)}
    return Preface(format_of(settings), "0", stored_settings(settings), starts)


def write(path: Path, head: Preface, lines: Iterable[Line], complete_ms: int) -> Recording:
    """Write a recording; its offsets are counted from 0."""
    path.unlink(missing_ok=True)
    writer = Writer(path, lambda: head, head.settings)
    offsets: Counter[tuple[str, int]] = Counter()
    for line in lines:
        where = line.topic, line.partition
        writer.add(replace(line, offset=offsets[where]))
        offsets[where] += 1
    writer.finish(complete_ms)
    return Recording(path)


def lines_of(recording: Recording) -> list[Line]:
    """Return every record, partition by partition."""
    return [
        line
        for name in recording.manifest.partitions
        for _, lines in recording.read(name)
        for line in lines
    ]


def is_output(recording: Recording, line: Line) -> bool:
    """Say whether a record is one of the output topic, or a heartbeat of another one."""
    settings = recording.settings
    return line.topic in (settings["output_topic"], settings["heartbeat_topic"])


def of_topic(recording: Recording, setting: str) -> list[Line]:
    """Return the records of the topic that a setting names."""
    topic = recording.settings[setting]
    return [line for line in lines_of(recording) if line.topic == topic]


def event_of(line: Line) -> OutputEvent:
    """Return the record of an output line."""
    return decode_output(line.value_bytes() or b"")


def rewrite(recording: Recording, path: Path, lines: Iterable[Line]) -> Recording:
    """Write a recording with other records."""
    return write(path, recording.manifest.preface, lines, recording.manifest.complete_ms)


def event_line(device: str, kind: str, session: str, time_ms: int) -> Line:
    """Return an input record, of the console topic for devices that begin with c."""
    topic = "console-events" if device.startswith("c") else "pc-events"
    value = f'{{"type":"Game{kind}","device_id":"{device}","session_id":"{session}"}}'
    return Line(topic, crc32(device.encode()) % 2, 0, time_ms, key=device, value=value)


def recorded_run(
    path: Path, settings: Settings, lines: list[Line], complete_ms: int, delay_ms: int = 3
) -> Recording:
    """Write a recording of input and of what a run without races or outages makes of it."""
    head = preface(settings)
    only_input = write(path, head, lines, complete_ms)
    output: list[Line] = []

    def take(item: OutputBatch | DeadLetter) -> None:
        assert isinstance(item, OutputBatch)
        for key, value in zip(item.keys, item.values, strict=True):
            lane = lane_of(key_group_of(key), settings.lanes)
            at_ms = decode_output(value).time_ms + delay_ms
            output.append(
                Line(settings.output_topic, lane, 0, at_ms, key=key, value=value.decode())
            )

    replay(only_input, replay_settings(only_input, {}), take)
    output.sort(key=lambda line: line.timestamp_ms)
    return write(path, head, [*lines, *output], complete_ms)
