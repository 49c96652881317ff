"""The commands record and replay."""

import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from dataflows.commands.shared import moment_ms
from dataflows.settings import load_settings
from session_logic.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from dataflows.recording.comparison import Difference, Item
    from dataflows.recording.file import Recording
    from dataflows.recording.recorder import Recorder

LINE_S = 2.0  # between the plain lines that are shown without a terminal

FileArgument = Annotated[Path, typer.Argument(help="The recording.", show_default=False)]


def record_command(
    file: FileArgument,
    config: Annotated[str | None, typer.Option(help="TOML file with settings, as for run.")] = None,
    from_time: Annotated[
        str | None,
        typer.Option("--from", help="Begin then: 15m (ago), ISO 8601, or milliseconds since 1970."),
    ] = None,
    from_offset: Annotated[
        list[str] | None, typer.Option(help="Begin a partition at TOPIC/PARTITION=OFFSET.")
    ] = None,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until Ctrl-C, not only to the ends as of now.")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(help="Go on for this many seconds.", min=0)
    ] = None,
) -> None:
    """Record the topics of the settings into FILE; the same command goes on after a crash."""
    from dataflows.recording.recorder import Begin, Recorder

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
    print(f"{file}: {total} records, complete to {_iso(manifest.complete_ms)}")


def _record(recorder: "Recorder", *, follow: bool, stop_s: float | None) -> None:
    """Read to the ends; with follow they are fixed by a signal, or when stop_s has come."""
    from rich.progress import Progress

    asked = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    if recorder.resumed:
        print(f"{recorder.resumed} records are there already; going on after them", flush=True)
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


def replay_command(
    file: FileArgument,
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Compare with the recorded output; 1 if it differs.")
    ] = False,
    show: Annotated[int, typer.Option(help="How many devices that differ to show.", min=0)] = 5,
    last_ms: Annotated[
        int, typer.Option(help="What was due this long before the end may be missing.", min=0)
    ] = 1_000,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting in place of the recorded one: heartbeat_ms=2000."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write the output there, by line.")] = None,
    to_broker: Annotated[
        str | None, typer.Option(help="host:port of a Kafka to send the recorded input to.")
    ] = None,
    speed: Annotated[
        float, typer.Option(help="How many times as fast as recorded; 0 for no waits.", min=0)
    ] = 1.0,
    append: Annotated[bool, typer.Option("--append", help="The topics need not be empty.")] = False,
) -> None:
    """Run the dataflow over the input in FILE, or send that input to a broker again."""
    from dataflows.recording.file import Recording

    recording = Recording(file)
    if to_broker is not None:
        _play(recording, to_broker, speed, append=append)
    elif check:
        raise typer.Exit(_check(recording, _changes(change), show, last_ms))
    else:
        _replay(recording, _changes(change), output)


def _play(recording: "Recording", address: str, speed: float, *, append: bool) -> None:
    from msgspec.structs import replace
    from rich.progress import Progress

    from dataflows.recording.player import Player
    from dataflows.recording.replay import replay_settings

    kafka = load_settings(os.environ)
    settings = replace(
        replay_settings(recording, {}),
        bootstrap_servers=address,
        kafka=kafka.kafka,
        producer=kafka.producer,
    )
    player = Player(recording, settings)
    player.check(append=append)
    with Progress(disable=not _console().is_terminal) as progress:
        task = progress.add_task("playing", total=_input_records(recording))
        sent = player.play(speed, lambda sent: progress.update(task, completed=sent))
    print(f"{sent} records sent to {address}")


def _replay(recording: "Recording", changes: dict[str, str], output: Path | None) -> None:
    from dataflows.items import DeadLetter
    from dataflows.recording.replay import replay, replay_settings
    from session_logic.events import Records

    counts = {"records": 0, "dead letters": 0}
    begin_s = time.monotonic()
    with open(output or os.devnull, "wb") as lines:

        def take(item: Records | DeadLetter) -> None:
            if isinstance(item, DeadLetter):
                counts["dead letters"] += 1
                return
            counts["records"] += len(item)
            if output is not None:
                lines.writelines(value + b"\n" for value in item.values)

        replay(recording, replay_settings(recording, changes), take)
    produced = ", ".join(f"{number} {what}" for what, number in counts.items())
    print(f"{_speed(recording, begin_s)}: {produced}")


def _check(recording: "Recording", changes: dict[str, str], show: int, last_ms: int) -> int:
    from dataflows.recording.comparison import EXCUSES, Comparison, read_reach
    from dataflows.recording.replay import replay, replay_settings

    begin_s = time.monotonic()
    reach = read_reach(recording)
    comparison = Comparison(recording, reach, last_ms)
    until_ms = reach.written_ms + last_ms
    replay(recording, replay_settings(recording, changes), comparison.take, until_ms)
    differences = comparison.finish()
    for difference in differences[:show]:
        _show(_console(), difference)
    counts = comparison.counts
    kinds = ", ".join(f"{kind} {counts[kind]}" for kind in ("equal", *EXCUSES, "differences"))
    devices = f" on {len(differences)} devices" if differences else ""
    print(f"{_speed(recording, begin_s)}: {kinds}{devices}")
    return 1 if differences else 0


def _show(console: "Console", difference: "Difference") -> None:
    """Show replayed and recorded side by side, or in lines where there is no terminal."""
    from rich.table import Table
    from rich.text import Text

    rows = [tuple(_text(item) for item in row) for row in difference.rows]
    title = f"{difference.name}: {difference.count} differences"
    if not console.is_terminal:
        print(title)
        for replayed, recorded in rows:
            print(f"  replayed {replayed}\n  recorded {recorded}")
        return
    table = Table(title=title, title_justify="left", show_lines=True)
    for side in ("replayed", "recorded"):
        table.add_column(side, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _text(item: "Item | None") -> str:
    if item is None:
        return "-"
    return item.decode(errors="replace") if isinstance(item, bytes) else repr(item)


def _speed(recording: "Recording", begin_s: float) -> str:
    events, seconds = _input_records(recording), time.monotonic() - begin_s
    return f"{events} events in {seconds:.2f} s ({events / seconds:.0f} events/s)"


def _input_records(recording: "Recording") -> int:
    names = recording.partitions(list(recording.settings["input_topics"]))
    return sum(recording.manifest.partitions[name].records for name in names)


def _console() -> "Console":
    from rich.console import Console

    return Console()


def _changes(texts: list[str] | None) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts or []]
    for name, sign, _ in pairs:
        if not name or not sign:
            raise ConfigError(f"--set {name}: write it as NAME=VALUE, with the name in the README")
    return {name: value for name, _, value in pairs}


def _offset(text: str) -> tuple[str, int]:
    name, _, offset = text.rpartition("=")
    if not name or not offset.isdecimal():
        raise ConfigError(f"--from-offset {text}: write it as TOPIC/PARTITION=OFFSET")
    return name, int(offset)


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")
