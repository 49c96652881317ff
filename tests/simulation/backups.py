"""Random histories in which a run goes on from a backup, which is older than what it has done."""

import random
from collections import Counter
from copy import deepcopy

from msgspec import Struct

from dataflows.messages import DEAD_LETTER_KEY
from tests.simulation.flow import Simulation
from tests.simulation.history import Heard


class Backup(Struct):
    """A copy of the recovery store, and how many facts each lane had stored at least."""

    made_ms: int
    snaps: dict[tuple[str, str], dict[int, bytes]]
    front: int
    kept: dict[int, int]
    outages: set[int]


class BackedUp(Simulation):
    """One history with backups, where nothing else sets the store back.

    None is from before an outage: that it was one is in the store alone.
    """

    def __init__(self, seed: int) -> None:
        self._backups: list[Backup] = []
        self._choose_backup = random.Random(f"backups {seed}")
        super().__init__(seed)
        # A backup from before other topics or rules were set makes other records.
        self._plain = not (self._topics_change or self._rules_change or self.apart)

    def pass_time(self) -> None:
        """Let some time pass, and make a backup of what there is by then."""
        super().pass_time()
        database = self.world.database
        is_whole = DEAD_LETTER_KEY in database.load("sink") and database.load("sessions")
        if self._plain and is_whole and self._choose_backup.random() < 0.1:
            kept = {lane: order.kept for lane, order in self._history.orders.items()}
            snaps = deepcopy(dict(database.snaps))
            outages = self._outages()
            self._backups.append(Backup(self.world.now_ms, snaps, database.front, kept, outages))

    def _outages(self) -> set[int]:
        """Return the numbers of the outages that lanes have noted."""
        return {
            number for order in self._history.orders.values() for number in order.decided(Heard)
        }

    def _start(self, *, stopped: bool = False) -> None:
        if self._losses.counts:  # topics may not fit to earlier offsets any more
            self._backups.clear()
        outages = self._outages()
        self._backups = [one for one in self._backups if one.outages >= outages]
        if self._backups and not self._finishing and self._choose_backup.random() < 0.5:
            self._put_back(self._choose_backup.choice(self._backups))
        super()._start(stopped=stopped)

    def _put_back(self, backup: Backup) -> None:
        database = self.world.database
        database.snaps.clear()
        database.snaps.update(deepcopy(backup.snaps))
        database.front = backup.front
        for lane, order in self._history.orders.items():
            order.put_back(backup.kept.get(lane, 0))
        # What a run has stored in the meantime is gone, and so are the backups of it.
        self._backups = [one for one in self._backups if one.made_ms <= backup.made_ms]
        self.counts["backups put back"] += 1
        self.counts["seconds put back"] += (self.world.now_ms - backup.made_ms) // 1_000


def simulate(count: int, first: int = 0) -> Counter[str]:
    """Run so many histories; an error names the seed."""
    counts: Counter[str] = Counter()
    for seed in range(first, first + count):
        history = BackedUp(seed)
        try:
            history.run(100)
        except Exception as error:
            error.add_note(f"seed={seed} {history.world.settings.rules()}")
            raise
        counts += history.counts
    return counts
