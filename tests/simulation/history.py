"""What happened in a simulation, as far as the judge must know: runs, orders and outages."""

from bisect import bisect_right
from collections import Counter, defaultdict
from operator import itemgetter
from typing import TypeGuard

from msgspec import Struct, field

from dataflows.formats import DeadLetterState
from dataflows.messages import RecordId
from session_logic.events import Fact, Watermark
from session_logic.lane_time import NEVER_MS
from session_logic.restoring import StoredRules
from session_logic.rules import Rules
from tests.support.fake_kafka import Reading, Where


class Past(Struct):
    """A run that is over; readings by input partition, and what its clock told at which moments."""

    began_ms: int
    ended_ms: int
    readings: dict[Where, Reading]
    told_ms: list[tuple[int, int]]
    rules: Rules
    idle_ms: int = 0
    partitions: range | None = None  # of each input topic, if it is a shard's

    def clock_ms(self, at_ms: int) -> int:
        """Return the latest time that the clock of the run had told by a moment."""
        told = bisect_right(self.told_ms, at_ms, key=itemgetter(0))
        return self.told_ms[told - 1][1] if told else NEVER_MS

    def may_leave(self, where: Where, by_ms: int) -> bool:
        """Say whether lanes may have gone on without a partition that has had no leader.

        They may once that has been known for the idle time, until they have heard of it again.
        """
        times = self.readings[where].leaderless_ms[where]
        return self.idle_ms > 0 and any(ms + self.idle_ms < by_ms for ms, *_ in times)

    def given_ms(self, record: RecordId) -> int | None:
        """Return the time by the clock at which a source was given a record; None if it was not."""
        where = record[:2]
        reading = self.readings.get(where)
        at_ms = None if reading is None else reading.given_ms.get((where, record.offset))
        return None if at_ms is None else self.clock_ms(at_ms)

    def given_clock_ms(self, record: RecordId) -> int | None:
        """Return what the clock told then; where it was set in that moment, before it was."""
        reading = self.readings.get(record[:2])
        return None if reading is None else reading.given_clock_ms.get((record[:2], record.offset))


class Skip(Struct):
    """A time of a lane that it made up for at once: after after_ms, up to and with upto_ms.

    It was back by itself at back_ms, which is later when a source was still behind.
    """

    after_ms: int
    upto_ms: int
    back_ms: int


class Change(Struct):
    """The rules that a lane goes by from then on, and how far its time has come.

    before_ms is how far it had come before; that is later where the lane was set back, because a
    clock had been ahead.
    """

    rules: Rules
    watermark_ms: int
    before_ms: int

    @property
    def sets_back(self) -> bool:
        """Whether time begins again before what it had come to."""
        return self.before_ms > self.watermark_ms

    def is_to(self, rules: Rules | StoredRules | None) -> bool:
        """Say whether the change is to these rules."""
        return rules is not None and _values(self.rules) == _values(rules)


class Heard(Struct):
    """That silence counts from a moment on, for all devices of a lane, because of an outage.

    watermark is how far time had come then. One that came while rows were missing has waited, as
    facts do. number tells it from all others.
    """

    number: int
    since_ms: int
    watermark: Watermark
    waited: bool = False


class Ended(Struct):
    """That a session has ended for silence, as a crashed run has written, and that as a fact."""

    number: int
    fact: Fact


Event = RecordId | Change | Heard | Ended


def is_record(event: Event) -> TypeGuard[RecordId]:
    """Say whether an event is a fact, by where it is in Kafka."""
    return isinstance(event, RecordId)


class Undone(Struct):
    """What a lane took in after the first kept events of its order, before a crash."""

    kept: int
    events: list[Event]


class Order(Struct):
    """The order in which a lane took in its facts, by where they were in Kafka, and other rules.

    A crash takes back what was after the last snapshot; the next run takes that in again, in the
    same order where it is of one partition.
    """

    taken: list[Event] = []
    undone: list[Undone] = []
    kept: int = 0  # how many of those taken are stored

    def records(self) -> list[RecordId]:
        """Return where the facts are."""
        return [event for event in self.taken if is_record(event)]

    def change(self) -> Change:
        """Return the last change of rules; the first one is the beginning."""
        changes = [event for event in self.taken if isinstance(event, Change)]
        assert changes, "what is stored is of no run's rules"
        return changes[-1]

    def decided(self, *kinds: type[Heard | Ended]) -> list[int]:
        """Return the numbers of where silence began anew, and of which ends were learned of."""
        return [
            event.number
            for event in self.taken
            if isinstance(event, Heard | Ended) and isinstance(event, kinds or (Heard, Ended))
        ]

    def resume(
        self, offsets: dict[Where, int], rules: StoredRules | None, decided: list[int]
    ) -> None:
        """Keep what is before the offsets that are stored, and the change to the stored rules.

        Of what was decided, these numbers are stored.
        """

        before, later = self.taken[: self.kept], self.taken[self.kept :]

        def shows(event: Event) -> bool:
            if isinstance(event, Heard | Ended):
                return event.number in decided
            if isinstance(event, Change):
                return event.is_to(rules)
            return event.offset < offsets.get(event[:2], 0)

        # What comes before something stored is stored; of a change that may be all that shows it.
        last = max((n for n, event in enumerate(later) if shows(event)), default=-1)

        def is_stored(n: int, event: Event) -> bool:
            return n <= last if isinstance(event, Change) else shows(event)

        kept = before + [event for n, event in enumerate(later) if is_stored(n, event)]
        # An end that came between facts that had waited is not stored where these wait again.
        early = [event for event in later[:last] if isinstance(event, Ended) and not shows(event)]
        self.taken = [event for event in self.taken if event not in early]
        assert self.taken[: len(kept)] == kept, "a snapshot has later facts without earlier ones"
        self.kept = len(kept)
        if self.kept < len(self.taken):
            self.undone.append(Undone(self.kept, self.taken[self.kept :]))
        self.taken = kept

    def put_back(self, kept: int) -> None:
        """Have an earlier store, which has so many of those taken at least."""
        self.undone = [
            one if one.kept <= kept else Undone(kept, self.taken[kept : one.kept] + one.events)
            for one in self.undone
        ]
        self.kept = min(self.kept, kept)


class History(Struct):
    """All of it, by lane where it is of a lane."""

    pasts: list[Past] = []
    orders: defaultdict[int, Order] = field(default_factory=lambda: defaultdict(Order))
    skips: defaultdict[int, list[Skip]] = field(default_factory=lambda: defaultdict(list))
    doubled_letters: Counter[RecordId] = field(default_factory=Counter)
    # Until when sessions could not be heard of, which are not silent for that.
    unheard_until_ms: dict[str, int] = {}
    # What the store had of the dead letters when their topic last lost some.
    letters_at_loss: DeadLetterState | None = None


def _values(rules: Rules | StoredRules) -> list[object]:
    """Return what rules are told apart by."""
    times_ms = rules.heartbeat_ms, rules.max_session_ms, rules.deduplication_window_ms
    return [*times_ms, *rules.sent_ms]
