"""The heartwheel command."""

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from confluent_kafka import KafkaException

from dataflows.logs import say_failure
from dataflows.settings import TRACEBACK_VARIABLE, load_settings
from heartwheel.cluster import Cluster
from heartwheel.commands.config import config_app
from heartwheel.commands.dead_letters import letters_app
from heartwheel.commands.load import load_command
from heartwheel.commands.record import record_command
from heartwheel.commands.replay import replay_command
from heartwheel.commands.shared import ConfigOption
from heartwheel.commands.store import store_app
from heartwheel.commands.top import top_command
from heartwheel.commands.topics import topics_app
from heartwheel.process import run
from session_logic.errors import ConfigError, HeartwheelError

EXIT_CODES = "Exit codes: 0 done, 1 failed or a fault found, 2 wrong settings or arguments."
RUN, OPERATE, TEST = "Run", "Look after it", "Try and test"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(config_app, name="config", rich_help_panel=OPERATE)
app.add_typer(topics_app, name="topics", rich_help_panel=OPERATE)
app.add_typer(letters_app, name="dead-letters", rich_help_panel=OPERATE)
app.add_typer(store_app, name="store", rich_help_panel=OPERATE)


def _show_version(value: bool) -> None:  # noqa: FBT001  # typer's way
    if value:
        print(version("heartwheel"))
        raise typer.Exit


@app.callback(epilog=EXIT_CODES)
def _root(
    *,
    show_traceback: Annotated[
        bool,
        typer.Option("--traceback", help="With an error, show where in the code it comes from."),
    ] = False,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Device sessions and heartbeats from Kafka to Kafka.

    Settings come from a TOML file (`--config`) and from `HEARTWHEEL_*` variables, which win;
    `heartwheel config show` lists them all. Begin with `heartwheel topics create`, then
    `heartwheel run`; `heartwheel demo` needs no Kafka.
    """
    if show_traceback:
        os.environ[TRACEBACK_VARIABLE] = "1"


@app.command("run", rich_help_panel=RUN)
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


@app.command("demo", rich_help_panel=RUN)
def demo_command(
    seconds: Annotated[
        float | None, typer.Option(help="End after this many seconds; without it, at Ctrl-C.")
    ] = None,
) -> None:
    """Show the whole job on a built-in broker with a small simulated fleet."""
    from heartwheel.commands.demo import demo

    raise typer.Exit(demo(seconds))


@app.command("schemas", rich_help_panel=TEST)
def schemas_command(
    folder: Annotated[Path, typer.Argument(help="Where to write the JSON Schema files.")],
) -> None:
    """Write the contract: JSON Schema for input and for output, and AsyncAPI for all of it."""
    from heartwheel.contract import write_schemas

    write_schemas(folder)


app.command("top", rich_help_panel=OPERATE)(top_command)
app.command("load", rich_help_panel=TEST)(load_command)
app.command("record", rich_help_panel=TEST)(record_command)
app.command("replay", rich_help_panel=TEST)(replay_command)


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
    """Run the command; an error is one line, and exit code 1, or 2 for settings and arguments."""
    try:
        app()
    except Exception as error:  # noqa: BLE001  # whatever it is, an operator gets one line
        known = isinstance(error, HeartwheelError)
        say_failure(str(error) if known else _unexpected(error))
        sys.exit(2 if isinstance(error, ConfigError) else 1)


def _unexpected(error: Exception) -> str:
    what = error.args[0].str() if isinstance(error, KafkaException) else str(error)
    return (
        f"unexpected {type(error).__name__}: {' '.join(what.split())}; for the place in the code "
        f"run `heartwheel --traceback ...` or set {TRACEBACK_VARIABLE}=1"
    )


if __name__ == "__main__":
    main()
