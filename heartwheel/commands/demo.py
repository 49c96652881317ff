"""`heartwheel demo`: the whole job, without a Kafka of one's own."""

import json
import signal
import tempfile
import time
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.live import Live

    from heartwheel.demo.job import DemoJob

LINE_S = 2.0  # between the plain lines that are shown without a terminal


def demo_command(
    seconds: Annotated[
        float | None, typer.Option(help="End after this many seconds; without it, at Ctrl-C.")
    ] = None,
) -> None:
    """Show the whole job on a built-in broker with a small simulated fleet."""
    raise typer.Exit(_demo(seconds))


def _demo(seconds: float | None) -> int:
    """Run the demonstration for some seconds, or until Ctrl-C; return the exit code."""
    from rich.console import Console
    from rich.live import Live

    from heartwheel.demo.job import DemoJob
    from heartwheel.demo.view import KINDS

    console = Console()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="heartwheel-demo-") as folder:
        job = DemoJob(folder)
        live = Live(console=console, refresh_per_second=8) if console.is_terminal else None
        try:
            _watch(job, live, seconds, begin)
        except KeyboardInterrupt:
            pass
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave the flow
            code = job.stop()
    summary = f"{job.view.line(job.sent)}{job.view.page()}"
    console.print(summary, style="bold", soft_wrap=True, highlight=False, markup=False)
    for kind in KINDS:
        for value in list(job.view.last[kind])[-1:]:
            console.print(
                json.dumps(json.loads(value)), soft_wrap=True, highlight=False, style="dim"
            )
    return code


def _watch(job: "DemoJob", live: "Live | None", seconds: float | None, begin: float) -> None:
    from heartwheel.demo.job import HEARTBEAT_MS

    last_line = begin
    if live is not None:
        live.start()
    try:
        while job.running() and (seconds is None or time.monotonic() - begin < seconds):
            job.step()
            now = time.monotonic()
            if live is not None:
                live.update(job.view.render(job.sent, now - begin, HEARTBEAT_MS))
            elif now - last_line >= LINE_S:
                last_line = now
                line = f"{job.view.line(job.sent)}{job.view.page()}"
                print(f"{now - begin:5.1f} s  {line}", flush=True)
    finally:
        if live is not None:
            live.stop()
