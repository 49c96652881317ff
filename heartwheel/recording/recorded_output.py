"""The output and the dead letters that a recording has, named as a replay names its own."""

from collections.abc import Iterator
from heapq import merge
from itertools import chain, islice

from heartwheel.kafka.headers import MARK
from heartwheel.recording.format import Line, part_name
from heartwheel.recording.lane_order import in_lane_order
from heartwheel.recording.reader import Recording
from heartwheel.recording.recorded import (
    ComparedDeadLetter,
    Item,
    Named,
    Recorded,
    dead_letter_name,
)
from heartwheel.recording.replay import read_dead_letter
from session_logic.events import OF_A_MOMENT, Kind

BATCH = 1_000  # records that are read of one partition before those of another


def recorded_output(recording: Recording) -> Iterator[Named]:
    """Yield (device, record) of all recorded output and dead letters, roughly by time.

    The records of a device are in order, with the heartbeats of another topic between the others.
    Summaries and rows of the table are in the order of their topics.
    """
    settings = recording.settings
    streams = [
        _dead_letters(recording, name)
        for name in recording.partitions([settings["dead_letter_topic"]])
    ]
    lanes = len(recording.partitions([settings["output_topic"]]))
    streams += [_lane(recording, lane) for lane in range(lanes)]
    kinds: tuple[tuple[Kind, str], ...] = (("summaries", "summary_topic"), ("table", "table_topic"))
    for kind, setting in kinds:
        names = recording.partitions([settings[setting]])
        streams += [_records(recording, name, kind) for name in names]
    batches = merge(*map(_batches, streams), key=_sent_ms)
    return chain.from_iterable(batches)


def _batches(stream: Iterator[Named]) -> Iterator[list[Named]]:
    while batch := list(islice(stream, BATCH)):
        yield batch


def _sent_ms(batch: list[Named]) -> int:
    return batch[0][1].sent_ms


def _lane(recording: Recording, lane: int) -> Iterator[Named]:
    settings = recording.settings
    output = _records(recording, part_name(settings["output_topic"], lane))
    if not settings["heartbeat_topic"]:
        return output
    beats = _records(recording, part_name(settings["heartbeat_topic"], lane), "heartbeats")
    return in_lane_order(output, beats, recording.from_ms() or 0)


def _records(recording: Recording, name: str, kind: Kind | None = None) -> Iterator[Named]:
    for _, lines in recording.read(name):
        for line in lines:
            yield _name(line), _recorded(line, line.value_bytes() or b"", kind)


def _dead_letters(recording: Recording, name: str) -> Iterator[Named]:
    for _, lines in recording.read(name):
        for line in lines:
            if any(header.name == MARK for header in line.headers):
                continue  # a dead letter was requeued; what was sent then is in the input
            origin, reason = read_dead_letter(line)
            if reason not in OF_A_MOMENT:
                letter = ComparedDeadLetter(
                    origin.time_ms, reason, line.key_bytes(), line.value_bytes()
                )
                yield dead_letter_name(origin.record), _recorded(line, letter)


def _recorded(line: Line, item: Item, kind: Kind | None = None) -> Recorded:
    return Recorded(item, line.partition, line.offset, line.timestamp_ms, kind)


def _name(line: Line) -> str:
    return line.key if line.key is not None else repr(line.key_base64)
