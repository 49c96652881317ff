"""The stores of new shards, made of others: each is read back, compared and counted."""

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from dataflows.messages import DEAD_LETTER_KEY
from dataflows.shard import Shard
from heartwheel.store.contents import Contents
from heartwheel.store.recovery_files import Recovery
from heartwheel.store.sinks import read_sink
from heartwheel.store.sources import is_read
from heartwheel.store.stored_sessions import stored_lanes
from heartwheel.store.values import Kept
from session_logic.errors import SnapshotError
from session_logic.rules import Rules


class NewShard(Struct, frozen=True):
    """What a new store has, by count."""

    folder: Path
    shard: Shard
    lanes: int
    sessions: int
    offsets: int
    records: int
    letters: int

    def __str__(self) -> str:
        """Return it in one line."""
        return (
            f"{self.folder}: shard {self.shard}, {self.lanes} lanes, {self.sessions} sessions, "
            f"{self.offsets} input offsets; {self.records} records and {self.letters} dead letters "
            "wait for Kafka"
        )


class NewShards(Struct, frozen=True):
    """How the store of each of so many shards is made in a directory, and is compared.

    difference tells the first one of a new store to what it was made of.
    """

    count: int
    rules: Rules
    make: Callable[[Path, Shard], None]
    difference: Callable[[Contents, Shard], str | None]

    def make_in(self, folder: Path, target: Path) -> list[NewShard]:
        """Make them in folder, which will be target; raises SnapshotError for a difference."""
        made = []
        for number in range(self.count):
            shard, place = Shard(number, self.count), folder / str(number)
            place.mkdir()
            self.make(place, shard)
            made.append(self._read_back(place, shard, target / str(number)))
        return made

    def _read_back(self, place: Path, shard: Shard, target: Path) -> NewShard:
        with Recovery(place, alone=True) as recovery:
            contents = Contents(recovery, self.rules)
            fault = next(contents.faults(), None) or self.difference(contents, shard)
            if fault is not None:
                msg = (
                    f"the new store of shard {shard} is wrong, and nothing was made: {fault}; keep "
                    "the old ones and report this"
                )
                raise SnapshotError(msg)
            return _count_in(contents, shard, target)


def _count_in(contents: Contents, shard: Shard, folder: Path) -> NewShard:
    sinks = {entry.key: read_sink(entry).waiting for entry in contents.step("sink")}
    letters = sinks.pop(DEAD_LETTER_KEY, 0)
    return NewShard(
        folder,
        shard,
        len(contents.own_lanes),
        sum(table.active for lane in stored_lanes(contents) for table in lane.tables()),
        sum(map(is_read, contents.step("source"))),
        sum(sinks.values()),
        letters,
    )


def differing_value(kept: list[Kept], contents: Contents) -> str | None:
    """Say which value a new store has not as it was to have it, if there is one; rows are none."""
    wanted = {(step, key): value for step, key, value in kept}
    found = {
        (step, entry.key): entry.value()
        for step in ("source", "sessions", "sink")
        for entry in contents.step(step)
    }
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            return f"{' '.join(name)} differs"
    return None
