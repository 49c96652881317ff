"""`heartwheel record`: topics into a file."""

import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from dataflows.settings_sources import load_settings
from dataflows.text import whole_number
from heartwheel.commands.shared import ConfigOption, moment_ms
from session_logic.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from heartwheel.recording.recorder import Recorder

LINE_S = 2.0  # between the plain lines that are shown without a terminal

FileArgument = Annotated[Path, typer.Argument(help="The recording.", show_default=False)]


def record_command(
    file: FileArgument,
    config: ConfigOption = None,
    from_time: Annotated[
        str | None,
        typer.Option(
            "--from", help="Begin at this time: 15m (ago), ISO 8601, or milliseconds since 1970."
        ),
    ] = None,
    from_offset: Annotated[
        list[str] | None, typer.Option(help="Begin a partition at TOPIC/PARTITION=OFFSET.")
    ] = None,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", help="Record until Ctrl-C, not only up to the current ends.")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(help="Record for this many seconds.", min=0)
    ] = None,
) -> None:
    """Record the topics of the settings into FILE; after a crash the same command resumes."""
    from heartwheel.recording.recorder import Begin, Recorder

    settings = load_settings(os.environ, config)
    begin = Begin(
        None if from_time is None else moment_ms("--from", from_time),
        dict(map(_offset, from_offset or [])),
    )
    recorder = Recorder(file, settings, begin)
    try:
        stop_s = time.monotonic() + seconds if seconds is not None else None
        _record(recorder, follow=follow or stop_s is not None, stop_s=stop_s)
        manifest = recorder.finish()
    finally:
        recorder.close()
    for name, extent in manifest.partitions.items():
        span = f", offsets {extent.first} to {extent.last}" if extent.records else ""
        print(f"{name}: {extent.records} records{span}")
    total = sum(extent.records for extent in manifest.partitions.values())
    print(f"{file}: {total} records, complete up to {_iso(manifest.complete_ms)}")


def _record(recorder: "Recorder", *, follow: bool, stop_s: float | None) -> None:
    """Read to the ends; with follow, a signal or the moment stop_s fixes them."""
    from rich.progress import Progress

    asked = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    if recorder.resumed:
        print(
            f"{recorder.resumed} records are already in the file; resuming after them", flush=True
        )
    total = None if follow else recorder.fix_ends()
    if follow:
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGTERM, stop)
    recorder.start()
    done, last_line = False, time.monotonic()
    with Progress(disable=not _console().is_terminal) as progress:
        task = progress.add_task("recording", total=total)
        while not done:
            done = recorder.step()
            if follow and (asked or (stop_s is not None and time.monotonic() >= stop_s)):
                follow = False
                total = recorder.recorded + recorder.fix_ends()
            progress.update(task, completed=recorder.recorded, total=total)
            if progress.disable and time.monotonic() - last_line >= LINE_S:
                last_line = time.monotonic()
                of = "" if total is None else f" of {total}"
                print(f"{recorder.recorded}{of} records", flush=True)


def _console() -> "Console":
    from rich.console import Console

    return Console()


def _offset(text: str) -> tuple[str, int]:
    name, _, number = text.rpartition("=")
    offset = whole_number(number)
    if not name or offset is None:
        raise ConfigError(f"--from-offset {text}: write it as TOPIC/PARTITION=OFFSET")
    return name, offset


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")
