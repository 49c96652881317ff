"""The output and the dead letters that a recording has, named as a replay names its own."""

from collections.abc import Iterator
from heapq import merge

import msgspec
from msgspec import Struct

from dataflows.messages import RecordId
from heartwheel.kafka.headers import MARK
from heartwheel.recording.format import Line
from heartwheel.recording.reader import Recording
from heartwheel.recording.replay import read_dead_letter
from session_logic.codec import decode_output
from session_logic.events import OF_A_MOMENT, OutputEvent


class ComparedDeadLetter(Struct, frozen=True):
    """A dead letter, as far as it is compared; time_ms is that of the input record."""

    time_ms: int
    reason: str
    key: bytes | None
    value: bytes | None


Item = bytes | ComparedDeadLetter
Event = OutputEvent | ComparedDeadLetter | None


class Recorded(Struct, frozen=True, gc=False):
    """An item, where it is in its topic, and when it was sent by the clock of the run."""

    item: Item
    partition: int
    offset: int
    sent_ms: int


def decode_record(item: Item) -> Event:
    """Return what an item says; None for a record of another program."""
    if isinstance(item, ComparedDeadLetter):
        return item
    try:
        return decode_output(item)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def dead_letter_name(record: RecordId) -> str:
    """Return the name under which the dead letter of an input record is compared."""
    return f"dead letter of {record.topic}/{record.partition} offset {record.offset}"


def recorded_output(recording: Recording) -> Iterator[tuple[str, Recorded]]:
    """Yield (device, record) of the recorded output and dead letters, roughly by time."""
    settings = recording.settings
    dead_letters = settings["dead_letter_topic"]
    names = recording.partitions([settings["output_topic"], dead_letters])
    chunks = merge(*map(recording.read, names), key=lambda read: read[0].least_ms)
    for _, lines in chunks:
        for line in lines:
            if line.topic != dead_letters:
                yield _name(line), _recorded(line, line.value_bytes() or b"")
                continue
            if any(header.name == MARK for header in line.headers):
                continue  # a dead letter was requeued; what was sent then is in the input
            origin, reason = read_dead_letter(line)
            if reason not in OF_A_MOMENT:
                letter = ComparedDeadLetter(
                    origin.time_ms, reason, line.key_bytes(), line.value_bytes()
                )
                yield dead_letter_name(origin.record), _recorded(line, letter)


def _recorded(line: Line, item: Item) -> Recorded:
    return Recorded(item, line.partition, line.offset, line.timestamp_ms)


def _name(line: Line) -> str:
    return line.key if line.key is not None else repr(line.key_base64)
