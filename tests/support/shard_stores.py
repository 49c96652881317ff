"""The stores of shards, as a run under load leaves them."""

import pickle
from pathlib import Path

from bytewax.recovery import init_db_dir
from msgspec.structs import replace

from dataflows.messages import PartitionBatch
from dataflows.settings import Settings
from dataflows.shard import Shard
from heartwheel.store.identity import Layout, bind, identify
from session_logic.clock import PartitionProgress
from tests.support.flow import SETTINGS, T, history, message, run
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


def make_shard(
    folder: Path,
    number: int,
    shards: int = 4,
    topic: str = TOPIC,
    *,
    killed: bool = True,
    settings: Settings = SETTINGS,
    parts: int = 1,
) -> Path:
    """Make the store of a shard; of one that was killed a record and a dead letter a lane wait."""
    folder.mkdir(parents=True)
    init_db_dir(folder, parts)
    shard = Shard(number, shards)
    settings = replace(settings, lanes=LANES, route="partition", shard=str(shard))
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
        records = (["d"], [b"record"]) if killed else ([], [])
        put(folder, "sink", f"lane-{lane:03}", 2, 10 + lane, *records)
        if killed:
            letters.append(("t", lane, (5, T, None, b"x", False, None), "not_json", ""))
    put(folder, "sink", "rejected", 3, {0: 10 + number, 1: 30 - number}, letters)
    bind(folder, identify(folder), topic, Layout("partition", shard))
    return folder


def make_hashed(folder: Path) -> Path:
    """Make the store of a run by route hash that was stopped, with four partitions read."""
    folder.mkdir(parents=True)
    init_db_dir(folder, 2)
    run(history(40), folder, [], settings=replace(SETTINGS, lanes=LANES))
    for part in range(2):
        name = folder / f"part-{part}.sqlite3"
        execute(name, "DELETE FROM snaps WHERE step_id = 'heartwheel.source'")
    for number in range(LANES):
        put(folder, "source", f"t/{number}", 2, 100 + number if number < 4 else -2, "id", "cluster")
    put(folder, "sink", "rejected", 3, {0: 10}, [])
    bind(folder, identify(folder), TOPIC, Layout())
    return folder
