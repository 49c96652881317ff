"""A view of a running process in the terminal, over HTTP."""

import json
import time
from typing import Annotated, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin
from urllib.request import Request, urlopen

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dataflows.settings import load_settings
from heartwheel.http.server import url_of
from session_logic.errors import ConfigError, HeartwheelError

TIMEOUT_S = 5.0
SHOWN_LETTERS = 5
SPARKS = "▁▂▃▄▅▆▇█"
SPARK_POINTS = 40
STYLES = {"live": "green", "behind": "red", "restoring": "yellow", "waiting": "yellow"}
# A minute in seconds, and from how many of them on it is hours that count.
MINUTE_S, HOURS_S = 60, 5_400


class NoAnswerError(HeartwheelError):
    """The process does not answer as Heartwheel does: check the URL, the token and the process."""


def top_command(
    url: Annotated[
        str | None, typer.Option(help="Where the process answers; without it, as the settings say.")
    ] = None,
    config: Annotated[str | None, typer.Option(help="TOML file with settings.")] = None,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print what is now, and end.")] = False,  # noqa: FBT002
) -> None:
    """Show a running process: sessions, rates, latency, lanes and dead letters.

    The token is that of the settings: HEARTWHEEL_HTTP_TOKEN, or its _FILE.
    """
    settings = load_settings(config=config)
    if url is None and not settings.http_port:
        msg = "HEARTWHEEL_HTTP_PORT is 0, so there is no server; give --url"
        raise ConfigError(msg)
    url = url or url_of(settings)
    console = Console()
    seen = Seen(url, settings.http_token)
    seen.look()
    if once or not console.is_terminal:
        console.print(seen.picture())
        return
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(seen.picture(), refresh=True)
                time.sleep(interval)
                seen.look()
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


class Seen:
    """What a process has last said of itself, and how to show it."""

    def __init__(self, url: str, token: str) -> None:
        """Ask at this URL."""
        self._url = url
        self._token = token
        self._status: dict[str, Any] = {}

    def look(self) -> None:
        """Ask anew; raises NoAnswerError if nothing answers."""
        self._status = fetch(self._url, self._token)

    def picture(self) -> Group:
        """Return everything, for a terminal."""
        return Group(self._head(), Text(), self._numbers(), Text(), self._lanes(), *self._letters())

    def _head(self) -> Text:
        status = self._status
        head = Text.assemble(("Heartwheel ", "bold"), f"{status['version']} ", (self._url, "dim"))
        if status["processes"] > 1:
            head.append(f"  process {status['process']} of {status['processes']}")
        head.append(f"  up {seconds((status['now_ms'] - status['started_ms']) / 1000)}  ")
        if status["ready"]:
            return head.append("ready", "bold green")
        return head.append(f"not ready: {status['reason']}", "bold red")

    def _numbers(self) -> Table:
        status, history = self._status, self._status["history"]
        snapshot = status["snapshot"]
        active = ", ".join(f"{name} {n:,.0f}" for name, n in sorted(status["active"].items()))
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(justify="right", style="bold cyan")
        table.add_column(no_wrap=True)
        table.add_column(style="cyan", no_wrap=True)
        for name, column, below in (
            ("active sessions", "active", active),
            ("heartbeats/s", "heartbeats", f"{status['heartbeats']:,.0f} in all"),
            ("starts/s", "starts", f"{status['events'].get('GameStart', 0):,.0f} in all"),
            ("ends/s", "ends", f"{status['events'].get('GameEnd', 0):,.0f} in all"),
            ("dead letters/s", "dead_letters", f"{sum(status['rejected'].values()):,.0f} in all"),
        ):
            now = _last(history, column)
            table.add_row(name, f"{now or 0:,.0f}", below, spark(history[column]))
        for name, kind in (("event latency p99", "event"), ("heartbeat lateness p99", "heartbeat")):
            below = f"p50 {seconds(_last(history, f'{kind}_p50_s'))}"
            column = f"{kind}_p99_s"
            table.add_row(name, seconds(_last(history, column)), below, spark(history[column]))
        table.add_row(
            "last snapshot",
            seconds(snapshot["age_s"]),
            f"p99 {seconds(snapshot['p99_s'])}, {snapshot['store_bytes'] / 1e6:,.1f} MB in store",
        )
        to_read = sum(part["records"] for part in status["consumer_lag"])
        memory = f"{(_last(history, 'memory_bytes') or 0) / 1e6:,.0f} MB"
        table.add_row("records to read", f"{to_read:,.0f}", "")
        table.add_row(
            "cores", f"{_last(history, 'cores') or 0:.2f}", memory, spark(history["cores"])
        )
        return table

    def _lanes(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("lane", justify="right")
        table.add_column("state")
        table.add_column("sessions", justify="right")
        table.add_column("lag", justify="right")
        for lane in self._status["lanes"]:
            state = lane["state"]
            if state == "elsewhere":
                state = f"process {lane['process']}, {lane['address']}"
            table.add_row(
                str(lane["lane"]),
                Text(state, STYLES.get(lane["state"], "dim")),
                f"{lane.get('active', 0):,}" if "active" in lane else "-",
                seconds(lane.get("lag_s")),
            )
        return table

    def _letters(self) -> list[Text]:
        letters = self._status["dead_letters"][:SHOWN_LETTERS]
        if not letters:
            return []
        lines = [Text(), Text("recent dead letters", "dim")]
        for letter in letters:
            line = Text(no_wrap=True, overflow="ellipsis")
            line.append(f"{letter['topic']}/{letter['partition']} @ {letter['offset']}  ")
            line.append(f"{letter['reason']}  ", "yellow")
            line.append(_plain(f"{letter['key']}: {letter['value']}"), "dim")
            lines.append(line)
        return lines


def _plain(text: str) -> str:
    """Return text from input without what would steer the terminal."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def _last(history: dict[str, list[Any]], column: str) -> float | None:
    values = history[column]
    return values[-1] if values else None


def seconds(value: float | None) -> str:
    """Return a time in s as a person reads it."""
    if value is None:
        return "-"
    if value < 1:
        return f"{value * 1000:.1f} ms"
    if value < 2 * MINUTE_S:
        return f"{value:.1f} s"
    return f"{value / MINUTE_S:.0f} min" if value < HOURS_S else f"{value / 3600:.1f} h"


def spark(values: list[float | None]) -> str:
    """Return the last values as a line of bars."""
    shown = values[-SPARK_POINTS:]
    most = max((value for value in shown if value is not None), default=0) or 1
    steps = len(SPARKS) - 1
    return "".join(" " if v is None else SPARKS[round(v / most * steps)] for v in shown)
