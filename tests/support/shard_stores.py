"""The stores of shards that were killed under load."""

import pickle
from pathlib import Path

from bytewax.recovery import init_db_dir
from msgspec.structs import replace

from dataflows.messages import PartitionBatch
from dataflows.shard import Shard
from heartwheel.store.identity import Layout, bind, identify
from session_logic.clock import PartitionProgress
from tests.support.flow import SETTINGS, T, message, run
from tests.support.stores import execute

LANES = 8
TOPIC = "session-events"


def put(folder: Path, step: str, key: str, *state: object) -> None:
    """Put a value into a store."""
    execute(
        folder / "part-0.sqlite3",
        f"INSERT INTO snaps VALUES (CURRENT_TIMESTAMP, 'heartwheel.{step}', ?, 1, ?)",
        key,
        pickle.dumps(state),
    )


def make_shard(folder: Path, number: int, shards: int = 4, topic: str = TOPIC) -> Path:
    """Make the store of a shard that was killed: a record and a dead letter of each lane wait."""
    folder.mkdir(parents=True)
    init_db_dir(folder, 1)
    shard = Shard(number, shards)
    settings = replace(SETTINGS, lanes=LANES, route="partition", shard=str(shard))
    polls = [
        PartitionBatch(
            "t",
            lane,
            "pc",
            [message(offset, "End" if offset % 5 == 4 else "Start", f"d{lane}-{offset % 7}", "s")],
            PartitionProgress(f"t/{lane}", 1, T + 1_000 * offset),
        )
        for offset in range(20)
        for lane in shard.of(LANES)
    ]
    run(polls, folder, [], settings=settings)
    execute(folder / "part-0.sqlite3", "DELETE FROM snaps WHERE step_id = 'heartwheel.source'")
    letters = []
    for lane in shard.of(LANES):
        put(folder, "source", f"t/{lane}", 2, 100 + lane, "topic", "cluster")
        put(folder, "sink", f"lane-{lane:03}", 2, 10 + lane, ["d"], [b"record"])
        letters.append(("t", lane, (5, T, None, b"x", False, None), "not_json", ""))
    put(folder, "sink", "rejected", 3, {0: 10 + number, 1: 30 - number}, letters)
    bind(folder, identify(folder), topic, Layout("partition", shard))
    return folder
