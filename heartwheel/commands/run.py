"""`heartwheel run`: the dataflow, until it is stopped."""

import os
from typing import Annotated

import typer

from dataflows.settings_sources import load_settings
from heartwheel.cluster import cluster_of
from heartwheel.commands.shared import ConfigOption


def run_command(
    config: ConfigOption = None,
    process_id: Annotated[
        int | None,
        typer.Option(
            "--process-id",
            "-i",
            envvar="BYTEWAX_PROCESS_ID",
            help="Number of this process, from 0.",
        ),
    ] = None,
    addresses: Annotated[
        str | None,
        typer.Option(
            "--addresses",
            "-a",
            envvar="BYTEWAX_ADDRESSES",
            help="host:port of every process of the cluster, separated by semicolons.",
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            "--workers-per-process",
            "-w",
            envvar="BYTEWAX_WORKERS_PER_PROCESS",
            min=1,
            help="Worker threads of this process; more processes scale better.",
        ),
    ] = 1,
    new_store: Annotated[  # noqa: FBT002  # typer's way
        bool,
        typer.Option(
            "--new-store",
            help="Write to an output topic that another store has written; a new store sends the "
            "output of all input again.",
        ),
    ] = False,
    progress_topic: Annotated[
        str | None,
        typer.Option(
            "--progress-topic",
            help="Topic to which the progress lines of the log are sent as well.",
        ),
    ] = None,
) -> None:
    """Run the dataflow until SIGTERM or SIGINT; resume from the last snapshot if there is one."""
    from heartwheel.process import run

    given = {"HEARTWHEEL_NEW_STORE": "true"} if new_store else {}
    if progress_topic is not None:
        given["HEARTWHEEL_PROGRESS_TOPIC"] = progress_topic
    settings = load_settings({**os.environ, **given}, config)
    run(settings, cluster_of(process_id, addresses, workers))
