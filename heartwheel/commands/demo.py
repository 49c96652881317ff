"""`heartwheel demo`: the whole job, without a Kafka of one's own."""

import json
import signal
import tempfile
import time
from enum import StrEnum
from itertools import takewhile
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Console

    from heartwheel.demo import DemoJob

END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LINE_S = 2.0  # between the plain lines that are shown without a terminal


class Events(StrEnum):
    """Whose events the fleet sends."""

    OWN = "own"
    REFERENCE = "reference"


class Kind(StrEnum):
    """What kind of devices give signs of life."""

    IOT = "iot"
    WEB = "web"
    MACHINES = "machines"


def demo_command(
    seconds: Annotated[
        float | None,
        typer.Option(help="End after this many seconds; the default is until Ctrl-C.", min=1),
    ] = None,
    events: Annotated[
        Events,
        typer.Option(
            help="Our own format, or that of the reference pipeline, read by input tables."
        ),
    ] = Events.OWN,
    kind: Annotated[
        Kind | None,
        typer.Option(help="Devices that ping and fall silent instead: see docs/presence.md."),
    ] = None,
) -> None:
    """Show Heartwheel at work, on a built-in broker with a small simulated fleet."""
    from rich.console import Console

    from heartwheel.demo import OWN_EVENTS, PRESENCE, REFERENCE_EVENTS, DemoJob

    console = Console()
    show = _show_live if console.is_terminal else _show_lines
    with tempfile.TemporaryDirectory(prefix="heartwheel-demo-") as folder:
        # An exception that a signal raises inside a callback of Kafka's client breaks it.
        over = Event()
        for number in END_SIGNALS:
            signal.signal(number, lambda *_: over.set())
        scene = REFERENCE_EVENTS if events is Events.REFERENCE else OWN_EVENTS
        job = DemoJob(Path(folder), PRESENCE[kind] if kind else scene)
        passed_s = takewhile(
            lambda s: not over.is_set() and (seconds is None or s < seconds), _passed_s()
        )
        try:
            show(console, job, passed_s)
        finally:
            for number in END_SIGNALS:  # a second one must not leave the flow running
                signal.signal(number, signal.SIG_IGN)
            code = job.stop()
    _show_end(console, job)
    raise typer.Exit(code)


def _passed_s() -> "Iterator[float]":
    begin_s = time.monotonic()
    while True:
        yield time.monotonic() - begin_s


def _show_live(console: "Console", job: "DemoJob", passed_s: "Iterable[float]") -> None:
    """Show the view on a screen of its own, which leaves the terminal as it was."""
    from rich.live import Live

    with Live(console=console, screen=True, auto_refresh=False) as live:
        for now_s in passed_s:
            if not job.step():
                return
            live.update(job.render(now_s), refresh=True)


def _show_lines(_console: "Console", job: "DemoJob", passed_s: "Iterable[float]") -> None:
    last_s = 0.0
    for now_s in passed_s:
        if not job.step():
            return
        if now_s - last_s >= LINE_S:
            last_s = now_s
            print(f"{now_s:5.1f} s  {job.line()}", flush=True)


def _show_end(console: "Console", job: "DemoJob") -> None:
    """Show the numbers, then records as they are in the topics.

    They are the last one of each kind, or examples of what went in and what came of it.
    """
    console.print(job.line(), style="bold", soft_wrap=True, highlight=False, markup=False)
    examples = job.examples()
    lines = [
        f"{where}  {json.dumps(json.loads(value))}"
        for topic, value, output in examples
        for where, value in ((topic, value), ("session-events", output))
    ]
    if not examples:
        newest = [records[-1][1] for records in job.view.last.values() if records]
        lines = [json.dumps(json.loads(value)) for value in newest]
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False, style="dim")
