"""What travels between the steps of the dataflow."""

from typing import NamedTuple

from msgspec import Struct

from session_logic.clock import Progress
from session_logic.events import Fact, RejectReason

# In the order in which they came; a name may be there more than once.
Headers = list[tuple[str, bytes | None]]
# (offset, timestamp in ms, key, value, whether the sender has set the timestamp, headers)
Message = tuple[int, int, bytes | None, bytes | None, bool, Headers | None]


# Input that was rejected by the clock: by (topic, partition), its offsets with their timestamps.
RejectedByClock = dict[tuple[str, int], dict[int, int]]


class RecordId(NamedTuple):
    """Where a record is in Kafka."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        """Return it in one word."""
        return f"{self.topic}/{self.partition}/{self.offset}"


class PartitionBatch(Struct, frozen=True, gc=False):
    """Messages of one source partition in offset order, and what the partition says of itself."""

    topic: str
    partition: int
    platform: str
    messages: list[Message]
    progress: Progress | None
    stop: bool = False  # the run is asked to stop; nothing of this partition follows
    begins: bool = False  # it is read for the first time; its messages come in the next epoch


class LaneBatch(Struct, frozen=True, gc=False):
    """What a lane gets: facts in order, then the progress of a partition."""

    lane: int
    facts: list[Fact]
    progress: Progress | None = None


class DeadLetter(Struct, frozen=True, gc=False):
    """A message that is no event, byte for byte, with where it was and why it was rejected."""

    topic: str
    partition: int
    message: Message
    reason: RejectReason
    detail: str


class DeadLettersBegin(Struct, frozen=True, gc=False):
    """Has it stored where the dead letters of this store begin, before there is one."""


def lane_key(lane: int) -> str:
    """Return the Bytewax key of a lane; a stored name."""
    return f"lane-{lane:03}"


# Every worker of a run gets a part of what is restored, and a copy of the stop.
MAX_WORKERS = 32
DEAD_LETTER_KEY = "rejected"
# A new lane is written to in this many epochs before the sink sends anything of it: by then the
# first of them is stored, and with it the offset at which the lane begins.
HOLD_EPOCHS = 2
