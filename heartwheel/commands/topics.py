"""`heartwheel topics`: create and check the topics that the settings name."""

import os
from collections.abc import Collection, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from msgspec.structs import replace

from dataflows.settings import Settings
from dataflows.settings_sources import load_settings
from dataflows.text import printable
from heartwheel.commands.shared import ConfigOption, duration_ms
from heartwheel.text import duration_text

if TYPE_CHECKING:
    from heartwheel.kafka.topics import TopicSpec, TopicState

topics_app = typer.Typer(
    help="Create and check the topics that the settings name.", no_args_is_help=True
)

# So many devices that are in several partitions are told by name.
MAX_NAMED = 10
# How long a new topic keeps records, and one that is there must keep them.
NEW_RETENTION, LEAST_RETENTION = "7d", "1d"
TimestampsText = Literal["append", "create"]
ReplicationOption = Annotated[
    int | None,
    typer.Option(
        help="Replicas of a partition.", show_default="3, or as many as there are brokers", min=1
    ),
]
MinIsrOption = Annotated[
    int | None,
    typer.Option(
        help="Replicas that must have a record before it counts as written.",
        show_default="one fewer than replicas",
        min=1,
    ),
]


@topics_app.command("create")
def create_command(
    config: ConfigOption = None,
    input_partitions: Annotated[
        int | None,
        typer.Option(
            help="Partitions of an input topic.",
            show_default="as many as lanes; of one that exists, any number",
            min=1,
        ),
    ] = None,
    retention: Annotated[
        str | None,
        typer.Option(
            help="How long records are kept: 12h, 7d, forever.",
            show_default=f"{NEW_RETENTION}; of a topic that exists, at least {LEAST_RETENTION}",
        ),
    ] = None,
    timestamps: Annotated[
        TimestampsText | None,
        typer.Option(
            help="Which clock timestamps an input event: the broker's on append (LogAppendTime) "
            "or the producer's on create (CreateTime).",
            show_default="append; of a topic that exists, either",
        ),
    ] = None,
    replication: ReplicationOption = None,
    min_isr: MinIsrOption = None,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let Kafka check, but create nothing.")
    ] = False,
) -> None:
    """Create the topics that are missing; those that exist are checked, and not changed.

    Only partitions that one lacks are added, if it has never been written to.

    The output topic, and those of heartbeats, summaries and the table, get one partition for each
    lane, the dead-letter topic one in all. Running it
    again is safe. Exit code 1, with a line for each fault, if a topic is not as asked for.
    """
    from heartwheel.kafka.topics import TopicOptions, Topics, faults, notes

    settings = load_settings(os.environ, config)
    topics = Topics(settings)
    asked = TopicOptions(
        retention_ms=duration_ms("--retention", retention or LEAST_RETENTION),
        timestamps=timestamps,
        input_partitions=input_partitions,
        replicas=replication,
        min_isr=min_isr,
    )
    new = replace(
        asked,
        retention_ms=duration_ms("--retention", retention or NEW_RETENTION),
        timestamps=timestamps or "append",
        input_partitions=input_partitions or settings.lanes,
    )
    wrong = False
    for wish, need in zip(topics.specs(new), topics.specs(asked), strict=True):
        state = topics.state(wish.name)
        if state is None and topics.create(wish, dry_run=dry_run):
            created = "would be created" if dry_run else "created"
            print(f"{wish.name}: {created}: {_wish(wish)}")
            continue
        if state is not None and topics.add_partitions(wish, state, dry_run=dry_run):
            added = "would be added" if dry_run else "added"
            print(f"{wish.name}: partitions {added}: it had {state.partitions}, and no record")
            state = replace(state, partitions=wish.partitions)
        state = state or topics.state(wish.name)
        lines = list(faults(need, state))
        wrong = wrong or bool(lines)
        for line in lines:
            print(f"{wish.name}: {line}")
        if not lines and state is not None:
            print(f"{wish.name}: exists: {_facts(state)}")
        for line in notes(need, state):
            print(f"{wish.name}: {line}")
    raise typer.Exit(int(wrong))


@topics_app.command("check")
def check_command(
    config: ConfigOption = None,
    input_partitions: Annotated[
        int | None,
        typer.Option(
            help="Partitions that an input topic must have.", show_default="any number", min=1
        ),
    ] = None,
    retention: Annotated[
        str, typer.Option(help="How long records must be kept, at least: 12h, 7d, forever.")
    ] = LEAST_RETENTION,
    timestamps: Annotated[
        TimestampsText | None,
        typer.Option(help="How input must be timestamped; see create.", show_default="either"),
    ] = None,
    replication: ReplicationOption = None,
    min_isr: MinIsrOption = None,
    *,
    devices: Annotated[
        bool,
        typer.Option("--devices", help="Read some input, and find devices in several partitions."),
    ] = False,
    records: Annotated[
        int,
        typer.Option(help="With --devices: records of each input topic, the newest.", min=1),
    ] = 100_000,
) -> None:
    """Check that the topics exist and that a run can use them.

    One line for each topic, one for each fault, and exit code 1 if there is any. A NOTE is no
    fault: a topic that was written to may have more partitions than there are lanes. Checked are
    partitions, retention, timestamps, replicas (also those in sync now), compaction, and the size
    of records. With --devices also whether all events of a device are in partitions of one number.
    """
    from heartwheel.kafka.topics import TopicOptions, Topics, faults, notes

    settings = load_settings(os.environ, config)
    topics = Topics(settings)
    options = TopicOptions(
        retention_ms=duration_ms("--retention", retention),
        timestamps=timestamps,
        input_partitions=input_partitions,
        replicas=replication,
        min_isr=min_isr,
    )
    said: list[str] = []
    wrong: list[str] = []
    there = set()
    for spec in topics.specs(options):
        state = topics.state(spec.name)
        if state is not None:
            there.add(spec.name)
            print(f"{spec.name}: {_facts(state)}")
        said += [f"{spec.name}: {line}" for line in notes(spec, state)]
        wrong += [f"{spec.name}: {line}" for line in faults(spec, state)]
    if devices:
        wrong += _split_devices(settings, there, records)
    for line in said:
        print(f"NOTE {line}")
    for line in wrong:
        print(f"FAULT {line}")
    raise typer.Exit(int(bool(wrong)))


def _split_devices(settings: Settings, there: Collection[str], records: int) -> Iterator[str]:
    """Say what was read of each input topic, and yield a line for what is wrong with devices."""
    from heartwheel.events.device_places import DevicePlaces
    from heartwheel.kafka.newest import NewestRecords

    names = [name for name in settings.all_input_topics if name in there]
    newest, places = NewestRecords(settings, names), DevicePlaces(settings)
    try:
        for name in names:
            count, events = places.note(name, newest.sample(name, records))
            print(f"{name}: {count:,} records looked at, {events:,} of them of a device")
    finally:
        newest.close()
    split = places.split()
    print(f"{len(split):,} of {len(places):,} devices are in partitions of several numbers")
    if not split:
        return
    yield (
        "devices are in several partitions, so their events have no order, and by "
        "HEARTWHEEL_ROUTE=partition they are in several lanes: let all senders use the device id "
        "as key and one partitioner (docs/shards.md)"
    )
    for device, where in islice(split.items(), MAX_NAMED):
        yield f"{printable(device)}: {', '.join(f'{topic}/{number}' for topic, number in where)}"


def _facts(state: "TopicState") -> str:
    return _line(
        state.partitions, state.replicas, state.min_isr, state.retention_ms, state.timestamps
    )


def _wish(spec: "TopicSpec") -> str:
    return _line(
        spec.partitions or 1,
        spec.replicas,
        spec.min_isr,
        spec.retention_ms,
        spec.timestamps or "append",
    )


def _line(
    partitions: int, replicas: int, min_isr: int, retention_ms: int, timestamps: TimestampsText
) -> str:
    clock = (
        "LogAppendTime, the broker's clock"
        if timestamps == "append"
        else "CreateTime, the producer's"
    )
    return (
        f"partitions {partitions}, replicas {replicas} (in sync at least {min_isr}), kept "
        f"{duration_text(retention_ms)}, timestamped by {clock}"
    )
