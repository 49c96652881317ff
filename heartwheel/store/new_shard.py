"""What is in the store of a shard that was just made of others."""

from pathlib import Path

from msgspec import Struct

from dataflows.messages import DEAD_LETTER_KEY
from dataflows.shard import Shard
from heartwheel.store.contents import Contents
from heartwheel.store.sinks import read_sink
from heartwheel.store.sources import is_read
from heartwheel.store.stored_sessions import stored_lanes


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


def count_in(contents: Contents, shard: Shard, folder: Path) -> NewShard:
    """Count what a new store has, which will be in this folder."""
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
