"""The heartwheel command."""

import os
import sys
from contextlib import suppress
from errno import EBADF, EDQUOT, EFBIG, ENOSPC
from typing import Annotated

import typer
from confluent_kafka import KafkaException

from dataflows.errors import find_shortage, make_room
from dataflows.logs import report_fatal
from dataflows.settings_sources import TRACEBACK_VARIABLE
from dataflows.version import program_version
from heartwheel.commands.config import config_app
from heartwheel.commands.dead_letters import dead_letters_app
from heartwheel.commands.demo import demo_command
from heartwheel.commands.events import events_app
from heartwheel.commands.load import load_command
from heartwheel.commands.record import record_command
from heartwheel.commands.replay import replay_command
from heartwheel.commands.run import run_command
from heartwheel.commands.schemas import schemas_command
from heartwheel.commands.session import session_app
from heartwheel.commands.sessions import sessions_app
from heartwheel.commands.store import store_app
from heartwheel.commands.top import top_command
from heartwheel.commands.topics import topics_app
from heartwheel.standard_streams import prepare, written_out
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
app.add_typer(events_app, name="events", rich_help_panel=TEST)
app.add_typer(dead_letters_app, name="dead-letters", rich_help_panel=OPERATE)
app.add_typer(store_app, name="store", rich_help_panel=OPERATE)
app.add_typer(session_app, name="session", rich_help_panel=OPERATE)
app.add_typer(sessions_app, name="sessions", rich_help_panel=OPERATE)


def _show_version(value: bool) -> None:  # noqa: FBT001  # typer's way
    if value:
        print(program_version())
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


app.command("run", rich_help_panel=RUN)(run_command)
app.command("demo", rich_help_panel=RUN)(demo_command)
app.command("top", rich_help_panel=OPERATE)(top_command)
app.command("load", rich_help_panel=TEST)(load_command)
app.command("record", rich_help_panel=TEST)(record_command)
app.command("replay", rich_help_panel=TEST)(replay_command)
app.command("schemas", rich_help_panel=TEST)(schemas_command)


def main() -> None:
    """Run the command; an error is one line, and exit code 1, or 2 for settings and arguments."""
    prepare()
    try:
        with written_out():
            app()
    except BrokenPipeError:  # whoever reads has seen enough
        sys.exit(1)
    except Exception as error:  # noqa: BLE001  # whatever it is, an operator gets one line
        told = find_shortage(error) or error
        known = isinstance(told, HeartwheelError)
        with suppress(OSError), written_out():
            report_fatal(str(told) if known else _unexpected(error))
        sys.exit(2 if isinstance(told, ConfigError) else 1)


def _unexpected(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == EBADF:
        return "standard output is closed; leave it open, or send it to /dev/null"
    if isinstance(error, OSError) and error.errno in {ENOSPC, EDQUOT, EFBIG}:
        what = error.filename or "standard output, or a file,"
        return f"{what} cannot be written ({error.strerror}); {make_room()}"
    what = error.args[0].str() if isinstance(error, KafkaException) else str(error)
    return (
        f"unexpected {type(error).__name__}: {' '.join(what.split())}; for the place in the code "
        f"run `heartwheel --traceback ...` or set {TRACEBACK_VARIABLE}=1"
    )


if __name__ == "__main__":
    main()
