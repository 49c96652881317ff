"""`heartwheel replay`: a recording through the dataflow, or to a broker."""

import os
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dataflows.settings_sources import load_settings, variable_of
from heartwheel.commands.new_file import new_file
from session_logic.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from heartwheel.recording.difference import Difference
    from heartwheel.recording.reader import Recording
    from heartwheel.recording.recorded import Item

FileArgument = Annotated[Path, typer.Argument(help="The recording.", show_default=False)]


def replay_command(
    file: FileArgument,
    *,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Compare with the recorded output; exit code 1 if it differs."
        ),
    ] = False,
    show: Annotated[
        int, typer.Option(help="How many of the devices that differ to show.", min=0)
    ] = 5,
    last_ms: Annotated[
        int, typer.Option(help="What was due in the last ms before the end may be missing.", min=0)
    ] = 1_000,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="Replace a recorded setting: heartbeat_ms=2000."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the output to this file, one record per line.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace that file if it exists.")
    ] = False,
    to_broker: Annotated[
        str | None, typer.Option(help="Send the recorded input to the Kafka at host:port instead.")
    ] = None,
    speed: Annotated[
        float,
        typer.Option(
            help="With --to-broker: 2 is twice as fast as recorded; 0: without waiting.", min=0
        ),
    ] = 1.0,
    append: Annotated[
        bool,
        typer.Option("--append", help="With --to-broker: send also to topics that are not empty."),
    ] = False,
) -> None:
    """Run the dataflow over the input in FILE, or send that input to a broker again."""
    from heartwheel.recording.reader import Recording

    if to_broker is not None and not to_broker.strip():
        raise ConfigError("--to-broker names no broker: write it as host:port")
    if to_broker is not None and (check or change or output is not None):
        raise ConfigError(
            "--to-broker sends the input as it was recorded: leave out --check, --set and --output"
        )
    if check and output is not None:
        raise ConfigError("--output is for a replay alone: leave out --check")
    if output is not None and output.resolve() == file.resolve():
        raise ConfigError(f"--output {output} is the recording: name another file")
    recording = Recording(file)
    if to_broker is not None:
        _play(recording, to_broker, speed, append=append)
    elif check:
        raise typer.Exit(_check(recording, _changes(change), show, last_ms))
    else:
        _replay(recording, _changes(change), output, overwrite=overwrite)


def _play(recording: "Recording", address: str, speed: float, *, append: bool) -> None:
    from msgspec.structs import replace
    from rich.progress import Progress

    from heartwheel.recording.player import Player
    from heartwheel.recording.replay import replay_settings

    kafka = load_settings(os.environ)
    settings = replace(
        replay_settings(recording, {}),
        bootstrap_servers=address,
        kafka=kafka.kafka,
        producer=kafka.producer,
    )
    player = Player(recording, settings)
    try:
        player.check(append=append)
    except ConfigError as error:
        named = str(error).replace(variable_of("bootstrap_servers"), "--to-broker")
        raise ConfigError(named) from None
    with Progress(disable=not _console().is_terminal) as progress:
        task = progress.add_task("playing", total=_input_records(recording))
        sent = player.play(speed, lambda sent: progress.update(task, completed=sent))
    print(f"{sent} records sent to {address}")


def _replay(
    recording: "Recording", changes: dict[str, str], output: Path | None, *, overwrite: bool
) -> None:
    from dataflows.messages import DeadLetter
    from heartwheel.recording.replay import replay, replay_settings
    from session_logic.output import OutputBatch

    settings = replay_settings(recording, changes)
    counts = {"records": 0, "dead letters": 0}
    begin_s = time.monotonic()
    with nullcontext() if output is None else new_file(output, overwrite=overwrite) as lines:

        def take(item: OutputBatch | DeadLetter) -> None:
            if isinstance(item, DeadLetter):
                counts["dead letters"] += 1
                return
            counts["records"] += len(item)
            if lines is not None:
                lines.writelines(value + b"\n" for value in item.values)

        replay(recording, settings, take)
    produced = ", ".join(f"{number} {what}" for what, number in counts.items())
    print(f"{_speed(recording, begin_s)}: {produced}")


def _check(recording: "Recording", changes: dict[str, str], show: int, last_ms: int) -> int:
    from heartwheel.recording.acceptance import ACCEPTED
    from heartwheel.recording.comparison import Comparison
    from heartwheel.recording.progress import read_progress
    from heartwheel.recording.replay import replay, replay_settings

    begin_s = time.monotonic()
    progress = read_progress(recording)
    comparison = Comparison(recording, progress, last_ms)
    until_ms = progress.written_ms + last_ms
    replay(recording, replay_settings(recording, changes), comparison.take, until_ms)
    differences = comparison.finish()
    for difference in differences[:show]:
        _show(_console(), difference)
    counts = comparison.counts
    kinds = ", ".join(f"{kind} {counts[kind]}" for kind in ("equal", *ACCEPTED, "differences"))
    names = {difference.name for difference in differences}
    devices = f" on {len(names)} devices" if names else ""
    print(f"{_speed(recording, begin_s)}: {kinds}{devices}")
    return 1 if differences else 0


def _show(console: "Console", difference: "Difference") -> None:
    """Show replayed and recorded side by side, or in lines where there is no terminal."""
    from rich.table import Table
    from rich.text import Text

    rows = [tuple(_text(item) for item in row) for row in difference.rows]
    title = f"{difference.title}: {difference.count} differences"
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
    names = recording.partitions(recording.input_topics)
    return sum(recording.manifest.partitions[name].records for name in names)


def _console() -> "Console":
    from rich.console import Console

    return Console()


def _changes(texts: list[str] | None) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts or []]
    for name, sign, _ in pairs:
        if not name or not sign:
            raise ConfigError(
                f"--set {name}: write it as NAME=VALUE; docs/settings.md has the names"
            )
    return {name: value for name, _, value in pairs}
