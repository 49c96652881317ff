"""`heartwheel store reshard`: the stores of a run by other shards, another route or other lanes."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from dataflows.settings import Settings, are_lanes
from dataflows.settings_sources import load_settings
from dataflows.settings_table import LANES_ALLOWED
from heartwheel.commands.shared import ConfigOption
from heartwheel.kafka.partitioners import PARTITIONERS, PartitionerName
from session_logic.errors import ConfigError
from session_logic.keys import Route, key_group_of, lane_of
from session_logic.rules import Rules

if TYPE_CHECKING:
    from heartwheel.store.rerouting import NewLanes, Positions

SourcesArgument = Annotated[
    list[Path], typer.Argument(help="Recovery directories of all shards, which are stopped.")
]
RouteOption = Annotated[
    Route | None,
    typer.Option(help="What decides the lane of a device from now on.", show_default="as before"),
]
LanesOption = Annotated[
    int | None,
    typer.Option(
        help="New number of lanes; by route partition as many as each input topic has partitions.",
        show_default="as before",
        min=1,
    ),
]
PartitionerOption = Annotated[
    PartitionerName | None,
    typer.Option(
        help="How senders choose the partition of a device: murmur2 as Java clients do, consistent "
        "as librdkafka does. Needed for other lanes by route partition."
    ),
]
RecordsOption = Annotated[
    int,
    typer.Option(
        help="With --partitioner: compare so many of the newest records of each topic with it.",
        min=1,
    ),
]


def reshard_command(
    sources: SourcesArgument,
    to: Annotated[
        Path,
        typer.Option(help="Directory to create, with one for each new shard: 0, 1 and so on."),
    ],
    shards: Annotated[int, typer.Option(help="New number of shards, up to that of the lanes.")],
    config: ConfigOption = None,
    route: RouteOption = None,
    lanes: LanesOption = None,
    partitioner: PartitionerOption = None,
    records: RecordsOption = 100_000,
) -> None:
    """Make the stores of all shards into those of another number of shards, route or lanes.

    Where only the number of shards changes, the topics stay, and no Kafka is needed. By another
    route, or with other lanes, the new stores write to another output topic.
    """
    from heartwheel.store.rerouting import reroute_stores
    from heartwheel.store.resharding import reshard_stores

    rules = load_settings(os.environ, config).rules()
    if route is None and lanes is None and partitioner is None:
        for made in reshard_stores(sources, to, shards, rules):
            print(made)
        print(
            f"Next: start each new shard, HEARTWHEEL_SHARD=0/{shards} with HEARTWHEEL_RECOVERY_DIR="
            f"{to / '0'} and so on, all else as before. Keep the old stores until they all run."
        )
        return
    before = _before(sources[0], rules)
    new_route = route or "partition"
    if lanes is not None and not are_lanes(lanes, new_route):
        msg = f"--lanes is {lanes}: give {LANES_ALLOWED.replace('HEARTWHEEL_ROUTE=', '--route ')}"
        raise ConfigError(msg)
    by_lanes = {
        "HEARTWHEEL_ROUTE": new_route,
        "HEARTWHEEL_LANES": str(lanes or before.lanes),
        "HEARTWHEEL_SHARD": "",
    }
    settings = load_settings({**os.environ, **by_lanes}, config)
    wanted = _wanted(settings, shards, partitioner)

    def verify(positions: "Positions") -> None:
        if partitioner is not None:
            _verify(settings, partitioner, before, records, positions)

    for made in reroute_stores(sources, to, wanted, rules, verify):
        print(made)
    _tell_next(settings, to, shards)


class _Before(Struct):
    """What a store is that others are made of; made_ms is 0 where it was made of none itself."""

    route: Route
    lanes: int
    made_ms: int


def _before(source: Path, rules: Rules) -> _Before:
    from heartwheel.store.contents import Contents
    from heartwheel.store.identity import made_ms
    from heartwheel.store.recovery_files import Recovery

    with Recovery(source) as recovery:
        contents = Contents(recovery, rules)
        return _Before(contents.layout.route, contents.lanes, made_ms(recovery))


def _wanted(settings: Settings, shards: int, partitioner: PartitionerName | None) -> "NewLanes":
    from heartwheel.store.rerouting import NewLanes

    lanes, topics = settings.lanes, frozenset(settings.all_input_topics)
    if settings.route == "hash":
        if partitioner is not None:
            raise ConfigError("--partitioner: by route hash it tells nothing, so leave it out")
        return NewLanes("hash", lanes, shards, partial(_by_hash, lanes=lanes), topics)
    if partitioner is None:
        msg = "--partitioner is missing: by route partition it tells the lane of each device"
        raise ConfigError(msg)
    place = PARTITIONERS[partitioner]
    return NewLanes("partition", lanes, shards, lambda name: place(name.encode(), lanes), topics)


def _by_hash(device_id: str, lanes: int) -> int:
    return lane_of(key_group_of(device_id), lanes)


def _verify(
    settings: Settings,
    partitioner: PartitionerName,
    before: _Before,
    records: int,
    positions: "Positions",
) -> None:
    """Say with how many devices of the input the partitioner agrees; raises where it does not."""
    from heartwheel.events.sent_places import Senders, SentPlaces

    lanes = before.lanes if before.route == "partition" else settings.lanes
    senders = Senders(partitioner, settings.lanes, lanes, before.made_ms)
    places = SentPlaces(settings, senders)
    places.check(records, {part: position.offset for part, position in positions.items()})
    print(f"{len(places.devices):,} devices of the input are where {partitioner} puts them")


def _tell_next(settings: Settings, to: Path, shards: int) -> None:
    lanes = settings.lanes
    each = f", HEARTWHEEL_SHARD=0/{shards}" if shards > 1 else ""
    print(
        f"Next: create a new output topic with {lanes} partitions, then start with "
        f"HEARTWHEEL_ROUTE={settings.route}, HEARTWHEEL_LANES={lanes}, HEARTWHEEL_OUTPUT_TOPIC set "
        f"to it{each} and HEARTWHEEL_RECOVERY_DIR={to / '0'}{', and so on' if each else ''}. "
        "Consumers switch to it once they have read the old topic to its end."
    )
