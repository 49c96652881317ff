"""A record that a run has sent, as it is compared with what a replay makes."""

import msgspec
from msgspec import Struct

from dataflows.messages import RecordId
from session_logic.codec import decode_output
from session_logic.events import Kind, OutputEvent

# In one turn a run sends to one topic after the other, at the longest for so many ms.
TURN_MS = 50


class ComparedDeadLetter(Struct, frozen=True):
    """A dead letter, as far as it is compared; time_ms is that of the input record."""

    time_ms: int
    reason: str
    key: bytes | None
    value: bytes | None


Item = bytes | ComparedDeadLetter
Event = OutputEvent | ComparedDeadLetter | None


class Recorded(Struct, frozen=True, gc=False):
    """An item, where it is in its topic, and when it was sent by the clock of the run.

    kind says which topic apart it is from, if it is from one.
    """

    item: Item
    partition: int
    offset: int
    sent_ms: int
    kind: Kind | None = None

    def in_turn_of(self, other: "Recorded") -> bool:
        """Say whether both were sent at once."""
        limit_ms = 0 if self.kind == other.kind else TURN_MS
        return abs(self.sent_ms - other.sent_ms) <= limit_ms

    def may_follow(self, other: "Recorded") -> bool:
        """Say whether nothing of the same topic was sent between the other and this."""
        return self.kind != other.kind or self.offset == other.offset + 1


# A record with its device, or with the name of a dead letter.
Named = tuple[str, Recorded]


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
