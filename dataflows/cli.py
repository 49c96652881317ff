"""The heartwheel command."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from dataflows.cluster import Cluster
from dataflows.logs import say_failure
from dataflows.recording.commands import record_command, replay_command
from dataflows.run import run
from dataflows.settings import load_settings
from dataflows.store.commands import store_app
from dataflows.top import top_command
from session_logic.errors import ConfigError, HeartwheelError

app = typer.Typer(
    help="Device sessions and heartbeats from Kafka to Kafka.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
app.add_typer(store_app, name="store")

ConfigOption = Annotated[
    str | None, typer.Option(help="TOML file with settings; HEARTWHEEL_* variables win over it.")
]


app.command("record")(record_command)
app.command("replay")(replay_command)
app.command("top")(top_command)


@app.callback()
def _root() -> None:
    """Device sessions and heartbeats from Kafka to Kafka."""


@app.command("run")
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
            help="host:port of every process of the cluster, with semicolons between.",
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            "--workers-per-process",
            "-w",
            envvar="BYTEWAX_WORKERS_PER_PROCESS",
            min=1,
            help="Threads of this process; processes scale better.",
        ),
    ] = 1,
) -> None:
    """Run the dataflow until SIGTERM or SIGINT; resume from the last snapshot if there is one."""
    settings = load_settings(os.environ, config)
    run(settings, cluster_of(process_id, addresses, workers))


@app.command("demo")
def demo_command(
    seconds: Annotated[
        float | None, typer.Option(help="End after this many seconds; without it, at Ctrl-C.")
    ] = None,
) -> None:
    """Show the whole job on a built-in broker with a small simulated fleet."""
    from dataflows.demo import demo

    raise typer.Exit(demo(seconds))


@app.command("schemas")
def schemas_command(
    folder: Annotated[Path, typer.Argument(help="Where to write the JSON Schema files.")],
) -> None:
    """Write the contract: JSON Schema for input and for output, and AsyncAPI for all of it."""
    from dataflows.schemas import write_schemas

    write_schemas(folder)


def cluster_of(process_id: int | None, addresses: str | None, workers: int) -> Cluster:
    """Return the cluster that options and BYTEWAX_* variables describe, as Bytewax reads them.

    In a StatefulSet the number is taken from the pod's name, the addresses from a host file.
    """
    pod, name = os.environ.get("BYTEWAX_POD_NAME"), os.environ.get("BYTEWAX_STATEFULSET_NAME")
    if process_id is None and pod and name:
        number = pod.removeprefix(f"{name}-")
        if not number.isdecimal():
            msg = f"BYTEWAX_POD_NAME is {pod!r}: it must be {name}- and a number"
            raise ConfigError(msg)
        process_id = int(number)
    hostfile = os.environ.get("BYTEWAX_HOSTFILE_PATH")
    if process_id is not None and addresses is None and hostfile:
        addresses = ";".join(_lines(hostfile))
    hosts = tuple(host.strip() for host in (addresses or "").split(";") if host.strip())
    if process_id is None and hosts:
        msg = "--addresses (or BYTEWAX_ADDRESSES) is given without --process-id: give both"
        raise ConfigError(msg)
    wrong = [host for host in hosts if not host.rpartition(":")[2].isdecimal()]
    if wrong:
        msg = f"address {wrong[0]!r} is not host:port; correct --addresses or its variable"
        raise ConfigError(msg)
    if process_id is not None and not 0 <= process_id < len(hosts):
        msg = (
            f"process {process_id} has no address among {len(hosts)}: give --addresses (or "
            "BYTEWAX_ADDRESSES, or BYTEWAX_HOSTFILE_PATH) with one for every process"
        )
        raise ConfigError(msg)
    return Cluster(process_id, hosts, workers)


def _lines(hostfile: str) -> list[str]:
    try:
        return Path(hostfile).read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        msg = (
            f"BYTEWAX_HOSTFILE_PATH: the file {hostfile} cannot be read: {error}; it must have a "
            "line host:port for every process"
        )
        raise ConfigError(msg) from None


def main() -> None:
    """Run the command; an expected error is one line and exit code 1 (2 for settings)."""
    try:
        app()
    except HeartwheelError as error:
        say_failure(str(error))
        sys.exit(2 if isinstance(error, ConfigError) else 1)


if __name__ == "__main__":
    main()
