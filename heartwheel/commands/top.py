"""`heartwheel top`: a running process in the terminal, over HTTP."""

import json
import time
from typing import Annotated, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin
from urllib.request import Request, urlopen

import typer

from dataflows.settings_sources import load_settings
from heartwheel.commands.shared import ConfigOption
from heartwheel.http.listener import url_of
from session_logic.errors import ConfigError, HeartwheelError

TIMEOUT_S = 5.0


class NoAnswerError(HeartwheelError):
    """The process does not answer as Heartwheel does: check the URL, the token and the process."""


def top_command(
    url: Annotated[
        str | None, typer.Option(help="URL of the process; without it, as the settings say.")
    ] = None,
    config: ConfigOption = None,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two updates.")] = 1.0,
    *,
    once: Annotated[
        bool, typer.Option("--once", help="Print the current state once and exit.")
    ] = False,
) -> None:
    """Show a running process: sessions, rates, latency, lanes and dead letters.

    The token is that of the settings: HEARTWHEEL_HTTP_TOKEN or HEARTWHEEL_HTTP_TOKEN_FILE.
    """
    from rich.console import Console
    from rich.live import Live

    from heartwheel.views.top import TopView

    settings = load_settings(config=config)
    if url is None and not settings.http_port:
        msg = "HEARTWHEEL_HTTP_PORT is 0, so there is no server; give --url"
        raise ConfigError(msg)
    url = url or url_of(settings)
    console = Console()
    view = TopView(url, fetch(url, settings.http_token), console.width)
    if once or not console.is_terminal:
        console.print(view.render())
        return
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(view.render(), refresh=True)
                time.sleep(interval)
                view = TopView(url, fetch(url, settings.http_token), console.width)
    except KeyboardInterrupt:
        pass


def fetch(url: str, token: str) -> dict[str, Any]:
    """Return the status of the process at a URL; raises NoAnswerError if there is none."""
    if not url.startswith(("http://", "https://")):
        msg = f"{url} is no URL of a process: write it as http://HOST:PORT"
        raise NoAnswerError(msg)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = Request(urljoin(url, "/status.json"), headers=headers)  # noqa: S310  # http, as above
    try:
        with urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            status = json.load(answer)
            status["history"]["time_ms"]  # anything else is not Heartwheel
    except HTTPError as error:
        hint = "set HEARTWHEEL_HTTP_TOKEN to the token of that process"
        if error.code != 401:  # noqa: PLR2004
            hint = "is it a Heartwheel process?"
        msg = f"{url} answers {error.code} {error.reason}; {hint}"
        raise NoAnswerError(msg) from None
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        msg = f"{url} does not answer ({reason}); does `heartwheel run` run there? give --url"
        raise NoAnswerError(msg) from None
    except (ValueError, LookupError, TypeError):
        msg = f"{url} answers, but not as Heartwheel; give --url"
        raise NoAnswerError(msg) from None
    found: dict[str, Any] = status
    return found
