"""Three brokers that lead the partitions of a simulation, and go away one after the other.

As in Kafka with three replicas: while a broker is away, its partitions have no leader, and nothing
is appended to them. Then each of the others leads some. A new leader may not know yet how far the
log was committed: it gives what is behind only once it has heard from the other replicas.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable

from msgspec import Struct

from tests.support.fake_kafka import Log, Record, Where

BROKERS = 3


class _Move(Struct):
    """A partition whose leader has gone: when it has one again, and when that one knows all."""

    elected_ms: int
    settled_ms: int
    elected: bool = False


class Brokers:
    """Who leads which partition of a log, and what senders hold back meanwhile."""

    def __init__(self, log: Log, seed: int, send: Callable[[Where, Record], None]) -> None:
        """Move leaders in some histories only; send takes what was held back."""
        self._log = log
        self._random = random.Random(f"brokers {seed}")
        self._send = send
        self._chance = self._random.choice([0, 0, 0.02, 0.05])
        self._leaders: defaultdict[Where, int] = defaultdict(
            lambda: self._random.randrange(BROKERS)
        )
        self._moves: dict[Where, _Move] = {}
        self._held: list[tuple[Where, Record]] = []
        log.after_ask = self._move_at_once
        self.counts: Counter[str] = Counter()

    def choose_idle_ms(self) -> int:
        """Return for how long lanes wait for a partition without a leader; 0 for ever."""
        return self._random.choice([0, 0, 500, 3_000])

    def trouble(self, now_ms: int) -> None:
        """Let a broker go away, if it is time for that."""
        if self._random.random() >= self._chance:
            return
        choose, broker = self._random.choice, self._random.randrange(BROKERS)
        elected_ms = now_ms + choose([0, 50, 300, 1_500, 4_000, 12_000])
        settled_ms = elected_ms + choose([0, 50, 300, 1_500, 4_000])
        for topic, partitions in self._log.topics.items():
            for number in range(len(partitions)):
                where = topic, number
                if self._leaders[where] == broker and where not in self._moves:
                    self._log.lose_leader(where)
                    self._moves[where] = _Move(elected_ms, settled_ms)
                    self._leaders[where] = (broker + choose([1, 2])) % BROKERS
                    self.counts["leaders moved"] += 1

    def _move_at_once(self, where: Where) -> None:
        """Let a leader take over before the next request."""
        if self._random.random() < self._chance and where not in self._moves:
            self._log.elect(where, self._random.choice([1, 3, 10]))
            self._moves[where] = _Move(0, 0, elected=True)
            self.counts["leaders moved"] += 1

    def go_on(self, now_ms: int) -> None:
        """Let those partitions have a leader whose time has come."""
        for where, move in list(self._moves.items()):
            if now_ms >= move.elected_ms and not move.elected:
                move.elected = True
                if where in self._log.leaderless:  # nobody has waited for it meanwhile
                    self._log.elect(where, self._random.choice([0, 0, 1, 3]))
            if now_ms >= move.settled_ms:
                self._log.settle(where)
                del self._moves[where]
        self._send_held()

    def settle(self) -> None:
        """Let all be well."""
        for topic, partitions in self._log.topics.items():
            for number in range(len(partitions)):
                self._log.settle((topic, number))
        self._moves.clear()
        self._send_held()

    def hold(self, where: Where, record: Record) -> bool:
        """Say whether a sender must hold a record back, because its partition has no leader."""
        if where not in self._log.leaderless:
            return False
        self._held.append((where, record))
        return True

    def _send_held(self) -> None:
        held, self._held = self._held, []
        for where, record in held:
            self._send(where, record)
