"""Whether an input partition is read to its end, and for how long that may be believed.

The lanes let time pass by the wall clock only while every partition is read to its end. Else a
heartbeat could be sent although the end of its session, timestamped earlier, waits in Kafka.

What is guaranteed: a partition is at its end as of a moment only if everything has been taken that
was in the log when Kafka answered a fetch that was sent after the last event that made the known
ends doubtful, and that answer was there by that moment. It is a matter of offsets: how old
timestamps are, or by how much the clocks of brokers differ, changes nothing.

Each answer tells the high watermark of the partition, and librdkafka keeps the newest. It is looked
at only when a poll has brought something of the partition, because an old one proves nothing:
librdkafka takes in the watermark of an answer before its records, so the one that is kept is at
least as new as what has just come. If the position has come to it, that is the end, until more
comes (REACHED). If not, watermark and moment are the partition's goal: once everything up to it is
taken, the partition is read to its end as of that moment (PASSED). So a partition that always has
more still has an end, and each later goal moves its moment on.

librdkafka announces an end when an answer has no records. That announcement tells the position
behind transaction markers, which are never delivered, and is compared like all that comes. It comes
at the last stable offset, so an open transaction, which holds up what is behind it, is no end.

A leader that has just taken over has every record that was committed, but may tell an earlier high
watermark than the one before it, until it has heard from the other replicas. So a watermark below
the highest that is known is no end and no goal, and a known end does not hold meanwhile. A start
asks for the end of what was read before, and Kafka tells it only when the leader knows it: an
earlier run may have acted on what is there. What is left is what was committed after the newest
answer of the leader before: until the new one has heard from the others, nothing tells of it.

As long as fetches are answered, no news means that an end still holds, but for one case: what
comes behind a transaction that is open is in the log, and is held up without news. So a known end
is compared with the newest watermark again and again. An idle fetch is answered after
`fetch.wait.max.ms`, so that watermark is no older than this. Three events break the rest:
- a pause of the process: records may have waited for longer than the lanes were told,
- a lost connection: fetches are not answered,
- a silent broker: a connection may hang without an error. A broker answers an idle fetch after
  `fetch.wait.max.ms`; the statistics of librdkafka tell for how long nothing has come.

After each of them every known end and goal is invalidated, and partitions with a known end are
fetched again from the first record that has not come. librdkafka then drops what it holds of them,
so whatever comes next is of a new answer. A partition without a known end is not fetched again,
because that drops records that are here already, and a backlog would never be read while
connections fail. But what comes to it may be older than the invalidation (STALE). When it has come
to an end, that does not count, and the partition is fetched again.

The lanes believe in an end for `END_VALID_MS` after its moment. The consumer renews it for all
partitions at once, as of the oldest moment among them: now for one at its end with nothing waiting,
the last goal for one with more to read, the invalidation for one whose report is still to come.

What would break it: a watermark that is looked at before a new answer has come; an end or a goal
from before an invalidation that counts; to fetch again before all records of the last poll are in
their queues, because then records come twice; a PAUSE_MS that is not well below END_VALID_MS. A log
that was cut, and ends before the highest watermark, holds time up for TAKE_OVER_MS.
"""

from enum import Enum, auto

from msgspec import Struct
from msgspec.json import Decoder

from session_logic.clock import END_VALID_MS

# After a pause of the process of more than this, known ends are invalid.
PAUSE_MS = END_VALID_MS // 2
# A broker that has left out so many answers is silent.
MISSED_ANSWERS = 3


class Signal(Enum):
    """What happens to a partition."""

    __hash__ = object.__hash__  # by name it would be most of the time of a transition

    RECORDS = auto()  # records have come
    END = auto()  # it has come to the end of the newest answer
    CAUGHT_UP = auto()  # it has come to its goal, the end of an earlier answer
    INVALIDATED = auto()  # a known end may not hold any more
    REFETCHED = auto()  # it is being fetched again


class EndOfInput(Enum):
    """What is known of the end of a partition."""

    __hash__ = object.__hash__

    UNKNOWN = auto()  # nothing; the next end counts
    STALE = auto()  # nothing; the next end may be from before an invalidation
    REFETCH = auto()  # nothing, until the partition is fetched again
    REACHED = auto()  # it was come to, and nothing has come since
    PASSED = auto()  # it was come to, and there is more

    @property
    def valid(self) -> bool:
        """Whether an end has been come to since the last invalidation."""
        return self is EndOfInput.REACHED or self is EndOfInput.PASSED

    def after(self, signal: Signal) -> "EndOfInput":
        """Return the next state; only what is in REFETCH may be fetched again."""
        return TRANSITIONS[self][signal]


TRANSITIONS: dict[EndOfInput, dict[Signal, EndOfInput]] = {
    EndOfInput.UNKNOWN: {
        Signal.RECORDS: EndOfInput.UNKNOWN,
        Signal.END: EndOfInput.REACHED,
        Signal.CAUGHT_UP: EndOfInput.PASSED,
        Signal.INVALIDATED: EndOfInput.STALE,
    },
    EndOfInput.STALE: {
        Signal.RECORDS: EndOfInput.STALE,
        Signal.END: EndOfInput.REFETCH,
        Signal.CAUGHT_UP: EndOfInput.REFETCH,
        Signal.INVALIDATED: EndOfInput.STALE,
    },
    EndOfInput.REFETCH: {
        Signal.RECORDS: EndOfInput.REFETCH,
        Signal.END: EndOfInput.REFETCH,
        Signal.CAUGHT_UP: EndOfInput.REFETCH,
        Signal.INVALIDATED: EndOfInput.REFETCH,
        Signal.REFETCHED: EndOfInput.UNKNOWN,
    },
    EndOfInput.REACHED: {
        Signal.RECORDS: EndOfInput.PASSED,
        Signal.END: EndOfInput.REACHED,
        Signal.CAUGHT_UP: EndOfInput.REACHED,
        Signal.INVALIDATED: EndOfInput.REFETCH,
    },
    EndOfInput.PASSED: {
        Signal.RECORDS: EndOfInput.PASSED,
        Signal.END: EndOfInput.REACHED,
        Signal.CAUGHT_UP: EndOfInput.PASSED,
        Signal.INVALIDATED: EndOfInput.REFETCH,
    },
}


class BrokerContact:
    """Tells when the known ends become doubtful: after a pause, a lost connection, a silence."""

    def __init__(self) -> None:
        self._polled_ms = 0
        self._away = self._lost = False
        self._silence_ms = self._max_silence_ms = 0
        self._silent = self._connected = False
        self.leaderless: set[tuple[str, int]] = set()

    def expect_answers(self, every_ms: int) -> None:
        """Expect an answer to an idle fetch at least this often."""
        self._max_silence_ms = MISSED_ANSWERS * every_ms

    def held_until_pause(self, now_ms: int) -> int | None:
        """Take in a poll, and return the time up to which the known ends held.

        None if the process was not paused before it, because then they still hold.
        """
        before_ms, self._polled_ms = self._polled_ms, now_ms
        if before_ms and now_ms - before_ms > PAUSE_MS:
            return before_ms - self._silence_ms
        return None

    def note_statistics(self, statistics: str) -> None:
        """Take in what librdkafka says of its brokers."""
        decoded = _DECODER.decode(statistics)
        self._silence_ms = silence_ms(decoded)
        self._connected = are_connected(decoded)
        self.leaderless = leaderless(decoded)

    def note_answer(self) -> None:
        """Take in that a broker has answered."""
        self._away = False

    @property
    def is_answered(self) -> bool:
        """Whether all brokers that are read from are connected, and none is silent."""
        return self._connected and self._silence_ms <= self._max_silence_ms

    def note_error(self) -> None:
        """Take in that a broker cannot be reached; of a row of errors the first one counts."""
        self._lost |= not self._away
        self._away = True

    def held_until_loss(self) -> int | None:
        """Return the time up to which the known ends held.

        None if no contact was lost since this was last asked, because then they still hold.
        """
        silent = self._silence_ms > self._max_silence_ms
        lost = self._lost or (silent and not self._silent)
        self._silent, self._lost = silent, False
        return self._polled_ms - self._silence_ms if lost else None


class _Broker(Struct):
    rxidle: int
    toppars: dict[str, object]
    state: str = ""


class _Partition(Struct):
    leader: int = 0


class _Topic(Struct):
    partitions: dict[str, _Partition]


class Statistics(Struct):
    """What librdkafka tells of brokers and topics, as far as it matters here."""

    brokers: dict[str, _Broker] = {}
    topics: dict[str, _Topic] = {}


_DECODER = Decoder(Statistics)


def silence_ms(statistics: Statistics) -> int:
    """Return the longest time in ms that a broker which is read from has sent nothing.

    A new connection, on which nothing has come yet, counts as 0.
    """
    brokers = statistics.brokers.values()
    return max([0, *(broker.rxidle // 1000 for broker in brokers if broker.toppars)])


def are_connected(statistics: Statistics) -> bool:
    """Say whether there is a connection to each broker that is read from, and at least one."""
    read_from = [broker for broker in statistics.brokers.values() if broker.toppars]
    return bool(read_from) and all(broker.state == "UP" for broker in read_from)


def leaderless(statistics: Statistics) -> set[tuple[str, int]]:
    """Return the partitions of which Kafka has said that they have no leader."""
    return {
        (name, int(number))
        for name, topic in statistics.topics.items()
        for number, partition in topic.partitions.items()
        if partition.leader < 0 <= int(number)
    }
