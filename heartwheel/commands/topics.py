"""`heartwheel topics`: make and check the topics that the settings name."""

import os
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dataflows.settings_sources import load_settings
from heartwheel.commands.shared import ConfigOption, duration_ms, duration_text

if TYPE_CHECKING:
    from heartwheel.kafka.topics import Found, Wanted

topics_app = typer.Typer(
    help="Make and check the topics that the settings name.", no_args_is_help=True
)

StampText = Literal["append", "create"]
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
        typer.Option(help="Partitions of an input topic.", show_default="as many as lanes", min=1),
    ] = None,
    retention: Annotated[
        str, typer.Option(help="How long records are kept: 12h, 7d, forever.")
    ] = "7d",
    timestamps: Annotated[
        StampText,
        typer.Option(
            help="Whose clock says when an input event was: the broker's on append "
            "(LogAppendTime), or the producer's on create (CreateTime)."
        ),
    ] = "append",
    replication: ReplicationOption = None,
    min_isr: MinIsrOption = None,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let Kafka check, but make nothing.")
    ] = False,
) -> None:
    """Make the topics that are missing; those that exist are checked and never changed.

    The output topic gets a partition for each lane, the dead-letter topic one. May be run again
    and again. Exit code 1, with a line for each fault, if a topic is not as asked for.
    """
    from heartwheel.kafka.topics import Goal, Topics, faults

    settings = load_settings(os.environ, config)
    topics = Topics(settings)
    goal = Goal(
        duration_ms("--retention", retention),
        timestamps,
        input_partitions or settings.lanes,
        replication,
        min_isr,
    )
    wrong = False
    for wanted in topics.wanted(goal):
        found = topics.found(wanted.name)
        if found is None and topics.create(wanted, dry_run=dry_run):
            made = "would be created" if dry_run else "created"
            print(f"{wanted.name}: {made}: {_wish(wanted)}")
            continue
        found = found or topics.found(wanted.name)
        lines = list(faults(wanted, found))
        wrong = wrong or bool(lines)
        for line in lines:
            print(f"{wanted.name}: {line}")
        if not lines and found is not None:
            print(f"{wanted.name}: exists: {_facts(found)}")
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
        str, typer.Option(help="How long records must be kept at least: 12h, 7d, forever.")
    ] = "1d",
    timestamps: Annotated[
        StampText | None,
        typer.Option(help="How input must be stamped; see create.", show_default="either"),
    ] = None,
    replication: ReplicationOption = None,
    min_isr: MinIsrOption = None,
) -> None:
    """Check that the topics are there and fit to run with.

    One line for each topic, one for each fault, and exit code 1 if there is any: partitions,
    retention, time stamps, replicas (of now, too), compaction, and the size of records.
    """
    from heartwheel.kafka.topics import Goal, Topics, faults

    topics = Topics(load_settings(os.environ, config))
    goal = Goal(
        duration_ms("--retention", retention), timestamps, input_partitions, replication, min_isr
    )
    wrong: list[str] = []
    for wanted in topics.wanted(goal):
        found = topics.found(wanted.name)
        if found is not None:
            print(f"{wanted.name}: {_facts(found)}")
        wrong += [f"{wanted.name}: {line}" for line in faults(wanted, found)]
    for line in wrong:
        print(f"FAULT {line}")
    raise typer.Exit(int(bool(wrong)))


def _facts(found: "Found") -> str:
    return _line(found.partitions, found.replicas, found.min_isr, found.retention_ms, found.stamp)


def _wish(wanted: "Wanted") -> str:
    return _line(
        wanted.partitions or 1,
        wanted.replicas,
        wanted.min_isr,
        wanted.retention_ms,
        wanted.stamp or "append",
    )


def _line(partitions: int, replicas: int, min_isr: int, retention_ms: int, stamp: StampText) -> str:
    clock = (
        "LogAppendTime, the broker's clock" if stamp == "append" else "CreateTime, the producer's"
    )
    return (
        f"partitions {partitions}, replicas {replicas} (in sync at least {min_isr}), kept "
        f"{duration_text(retention_ms)}, stamped by {clock}"
    )
