"""What the recovery store holds, apart from the lanes' own state: plain tuples with a version.

Bytewax pickles these values, so they are tuples of plain types and no classes. An old version can
be read for ever; a newer one than this program knows is refused. The state of a lane is described
in session_logic.restoring, and what a row's bytes hold in session_logic.codec.
"""

from typing import Any, NamedTuple, cast
from zlib import crc32

from dataflows.messages import DeadLetter
from session_logic.errors import RESTORE_COPY, SnapshotError, check_version
from session_logic.events import Kind
from session_logic.journal import BaseRow, JournalRow, Row

# Version 1 was the next offset alone, an int.
SOURCE_VERSION = 2
# (version, next offset, id of the topic, id of the cluster)
SourceState = tuple[int, int, str, str]


class Position(NamedTuple):
    """The next offset of an input partition; the ids of topic and cluster, "" if not known."""

    offset: int
    topic_id: str = ""
    cluster_id: str = ""


def source_state(position: Position) -> SourceState:
    """Return a position as it is stored."""
    return SOURCE_VERSION, *position


def read_position(part: str, stored: object) -> Position:
    """Return the position that is stored for an input partition.

    Raises SnapshotError if it cannot be read.
    """
    if isinstance(stored, int):
        return Position(stored)
    try:
        version, *rest = cast("tuple[Any, ...]", stored)
        check_version(f"recovery store, source {part}", version, SOURCE_VERSION)
        offset, topic_id, cluster_id = rest
        return Position(int(offset), str(topic_id), str(cluster_id))
    except (TypeError, ValueError) as error:
        raise _unreadable(f"source {part}", error) from None


# Version 1 had no checksum.
ROW_VERSION = 2
# (version, "base", lane, group, through, blob, checksum)
# (version, "journal", lane, slot, segment, entries, checksum)
StoredRow = tuple[int, str, int, int, int, object] | tuple[int, str, int, int, int, object, int]

# Version 1 had no records: it waited for every acknowledgement.
SINK_VERSION = 2
# Written only as long as there are strays, so that earlier programs read the others.
STRAYS_VERSION = 3
# Written only where some records go to topics of their own.
APART_VERSION = 4
# (topic, offset after the last acknowledged record, keys and values of those not acknowledged,
# the offset before which a record may be of somebody else)
StoredApart = tuple[str, int, list[str], list[bytes], int]
# The same with the version in place of the topic, in version 2 without the last offset; in version
# 4 then each topic with records of its own, by their kind.
OutboxState = (
    tuple[int, int, list[str], list[bytes]]
    | tuple[int, int, list[str], list[bytes], int]
    | tuple[int, int, list[str], list[bytes], int, dict[Kind, StoredApart]]
)


class StoredOutbox(NamedTuple):
    """What is known of the partition of a topic; topic is "" for the output topic."""

    topic: str
    end_offset: int
    keys: list[str]
    values: list[bytes]
    strays_before: int
    apart: dict[Kind, "StoredOutbox"]

    @property
    def bytes(self) -> int:
        """How many bytes the values on their way have."""
        return sum(map(len, self.values)) + sum(box.bytes for box in self.apart.values())

    @property
    def waiting(self) -> int:
        """How many records are on their way."""
        return len(self.keys) + sum(box.waiting for box in self.apart.values())


# Version 1 had no end offsets; 1 and 2 waited for every acknowledgement.
DEAD_LETTER_VERSION = 3
# topic, partition, message (as in dataflows.messages), reason, detail
StoredLetter = tuple[str, int, tuple[object, ...], str, str]
# (version, the end offset of each partition, the letters that are not acknowledged)
DeadLetterState = tuple[int, dict[int, int], list[StoredLetter]]


def to_stored(row: Row) -> StoredRow:
    """Return a row of the store as it is stored."""
    if isinstance(row, BaseRow):
        base = row.lane, row.group, row.through, row.blob
        return (ROW_VERSION, "base", *base, _checksum(row))
    journal = row.lane, row.slot, row.segment, row.entries
    return (ROW_VERSION, "journal", *journal, _checksum(row))


def read_row(name: str, stored: StoredRow) -> Row:
    """Return the row that is stored under a name.

    Raises SnapshotError if it cannot be read, or is not what was stored under that name.
    """
    try:
        version, kind, *rest = cast("tuple[Any, ...]", stored)
        check_version(f"recovery store, row {name}", version, ROW_VERSION)
        checksum = rest.pop() if version > 1 else None
        row: Row = {"base": BaseRow, "journal": JournalRow}[kind](*rest)
        is_as_stored = checksum is None or (checksum, name) == (_checksum(row), row.row)
    except (TypeError, ValueError, LookupError) as error:
        raise _unreadable(f"row {name}", error) from None
    if not is_as_stored:
        raise _unreadable(f"row {name}", "it is not as it was stored")
    return row


def _checksum(row: Row) -> int:
    """Return the CRC-32 of the name, lane and segment of a row, and of all that it holds.

    So a bit that the disk has changed is found, and a row in the place of another one.
    """
    pieces: tuple[bytes, ...]
    if isinstance(row, BaseRow):
        segment, pieces = row.through, (row.blob,)
    else:
        segment, pieces = row.segment, row.entries
    checksum = crc32(f"{row.row} {row.lane} {segment}".encode())
    for piece in pieces:
        checksum = crc32(piece, checksum)
    return checksum


def outbox_state(outbox: StoredOutbox) -> OutboxState:
    """Return an outbox as it is stored: in the earliest version that can hold it."""
    _, end_offset, keys, values, strays_before, apart = outbox
    if apart:
        topics: dict[Kind, StoredApart] = {kind: box[:5] for kind, box in apart.items()}
        return APART_VERSION, end_offset, keys, values, strays_before, topics
    if strays_before > end_offset:
        return STRAYS_VERSION, end_offset, keys, values, strays_before
    return SINK_VERSION, end_offset, keys, values


def read_outbox(lane: int, stored: tuple[object, ...]) -> StoredOutbox:
    """Return what is stored of a lane's outbox; raises SnapshotError if it cannot be read."""
    try:
        version, end_offset, *rest = cast("tuple[Any, ...]", stored)
        check_version(f"recovery store, sink of lane {lane}", version, APART_VERSION)
        topics = rest.pop() if version >= APART_VERSION else {}
        apart = {kind: _outbox(*box) for kind, box in topics.items()}
        keys, values, *strays_before = rest if version > 1 else ([], [])
        return _outbox("", end_offset, keys, values, int(*strays_before))._replace(apart=apart)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise _unreadable(f"sink of lane {lane}", error) from None


def _outbox(
    topic: str, end_offset: int, keys: list[str], values: list[bytes], strays_before: int
) -> StoredOutbox:
    return StoredOutbox(topic, int(end_offset), list(keys), list(values), int(strays_before), {})


def read_dead_letters(stored: tuple[object, ...]) -> dict[int, int]:
    """Return the end offset of each dead-letter partition; raises SnapshotError if it cannot."""
    try:
        version, ends, *_ = cast("tuple[Any, ...]", stored)
        check_version("recovery store, dead letters", version, DEAD_LETTER_VERSION)
        return dict(ends) if version > 1 else {}
    except (TypeError, ValueError) as error:
        raise _unreadable("dead letters", error) from None


def to_stored_letter(letter: DeadLetter) -> StoredLetter:
    """Return a dead letter as it is stored."""
    return letter.topic, letter.partition, letter.message, letter.reason, letter.detail


def read_waiting_letters(stored: tuple[object, ...]) -> list[DeadLetter]:
    """Return the dead letters that were not acknowledged; raises SnapshotError if it cannot."""
    try:
        _, _, *waiting = cast("tuple[Any, ...]", stored)
        return [DeadLetter(*letter) for letters in waiting for letter in letters]
    except (TypeError, ValueError) as error:
        raise _unreadable("dead letters", error) from None


def _unreadable(what: str, error: Exception | str) -> SnapshotError:
    return SnapshotError(f"recovery store, {what} cannot be read ({error}); {RESTORE_COPY}")
