"""`heartwheel top`: a running process in the terminal, over HTTP."""

import time
from typing import Annotated, Any

import typer

from dataflows.settings_sources import load_settings
from heartwheel.commands.shared import ConfigOption, UrlOption
from heartwheel.running_process import RunningProcess
from heartwheel.shards import Shards

OK = 200


def top_command(
    url: UrlOption = None,
    config: ConfigOption = None,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two updates.")] = 1.0,
    *,
    once: Annotated[
        bool, typer.Option("--once", help="Print the current state once and exit.")
    ] = False,
) -> None:
    """Show a running process: sessions, rates, latency, lanes and dead letters.

    Of shards, with HEARTWHEEL_HTTP_ADDRESSES and without --url, a line for each of them as well.
    The token is that of the settings: HEARTWHEEL_HTTP_TOKEN or HEARTWHEEL_HTTP_TOKEN_FILE.
    """
    from rich.console import Console
    from rich.live import Live

    from heartwheel.views.top import TopView

    settings = load_settings(config=config)
    process, shards = RunningProcess(settings, url), Shards(settings)
    console = Console()

    def look() -> TopView:
        status = status_of(process)
        return TopView(process.url, status, console.width, [] if url else shards.ask())

    view = look()
    if once or not console.is_terminal:
        console.print(view.render())
        return
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(view.render(), refresh=True)
                time.sleep(interval)
                view = look()
    except KeyboardInterrupt:
        pass


def status_of(process: RunningProcess) -> dict[str, Any]:
    """Return the status of a process; raises NoAnswerError if it does not tell any."""
    answer = process.ask("/status.json")
    if answer.status != OK:
        raise process.refused(answer)
    history = answer.value.get("history")
    if not isinstance(history, dict) or "time_ms" not in history:
        raise process.stranger()
    return answer.value
