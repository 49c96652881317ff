"""`heartwheel sessions`: the active sessions of a store, as a file."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from dataflows.settings_sources import load_settings
from heartwheel.commands.new_file import new_file
from heartwheel.commands.shared import ConfigOption, first
from heartwheel.sessions.writers import WRITERS, Format
from heartwheel.text import moment_text
from session_logic.errors import ConfigError

if TYPE_CHECKING:
    from heartwheel.sessions.choice import Choice
    from heartwheel.sessions.shown import ShownSession
    from heartwheel.store.stored_sessions import StoredLane

# How many sessions are written at a time.
PIECE = 1_000


sessions_app = typer.Typer(
    help="Take the active sessions out of a recovery store.", no_args_is_help=True
)


@sessions_app.command("export")
def export_command(
    folder: Annotated[
        Path | None,
        typer.Argument(help="Recovery directory; the default is that of the settings."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to make.", show_default="standard output"),
    ] = None,
    form: Annotated[
        Format, typer.Option("--format", help="Parquet needs the extra `heartwheel[parquet]`.")
    ] = "csv",
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Only sessions with this, written as platform=pc or as context.NAME=VALUE; can "
            "be given repeatedly."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="At most this number.", min=1, show_default="all")
    ] = None,
    config: ConfigOption = None,
    *,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file if it exists.")
    ] = False,
) -> None:
    """Write the active sessions of a store, running or stopped, as of its last snapshot.

    They are the sessions that a start would go on with. What moment that is, and how many there
    are, is told on standard error. The store is not changed.
    """
    from heartwheel.sessions.choice import Choice
    from heartwheel.store.contents import Contents
    from heartwheel.store.recovery_files import Recovery
    from heartwheel.store.stored_sessions import stored_lanes

    settings = load_settings(os.environ, config)
    folder = folder or settings.recovery_path()
    wanted = Choice.of(map(_pair, where or []))
    count = 0
    with Recovery(folder) as recovery, _opened(output, overwrite=overwrite) as file:
        lanes = stored_lanes(Contents(recovery, settings.rules()))
        _say(f"{folder} as of {_moment(lanes)}, epoch {recovery.resume_epoch - 1}")
        writer = WRITERS[form](file)
        sessions = first(_sessions(lanes, wanted), limit)
        while piece := list(islice(sessions, PIECE)):
            writer.write(piece)
            count += len(piece)
        writer.finish()
    _say(f"{count} sessions written to {output or 'standard output'}")


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign:
        raise ConfigError(f"--where {text}: write it as platform=pc or as context.NAME=VALUE")
    return name, value


def _sessions(lanes: "list[StoredLane]", wanted: "Choice") -> "Iterator[ShownSession]":
    """Yield the active sessions of stored lanes that are wanted, key group by key group."""
    from heartwheel.sessions.shown import show

    for lane in lanes:
        watermark_ms, as_of_ms = lane.watermark_ms, max(0, lane.watermark_ms)
        for table in lane.tables():
            for group in table.groups.values():
                for session in filter(wanted.takes, group.active.values()):
                    yield show(session, lane.number, table, watermark_ms, as_of_ms)


def _moment(lanes: "list[StoredLane]") -> str:
    """Say of which moment stored lanes are."""
    if not lanes:
        return "a time before it has anything"
    moments_ms = [lane.watermark_ms for lane in lanes]
    first, last = (
        "its beginning" if time_ms < 0 else moment_text(time_ms)
        for time_ms in (min(moments_ms), max(moments_ms))
    )
    return first if first == last else f"{first} (the slowest lane) to {last}"


@contextmanager
def _opened(path: Path | None, *, overwrite: bool) -> Iterator[BinaryIO]:
    """Yield a file to write to, which appears at a path when it is complete, or standard output."""
    if path is not None:
        with new_file(path, overwrite=overwrite) as file:
            yield file
        return
    yield sys.stdout.buffer
    sys.stdout.buffer.flush()


def _say(line: str) -> None:
    print(f"heartwheel: {line}", file=sys.stderr)
