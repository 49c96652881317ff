"""What commands share: options, times in words, tables, and questions."""

import re
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any, TypeVar

import typer

from heartwheel.text import UNITS_MS
from session_logic.errors import ConfigError

ConfigOption = Annotated[
    str | None, typer.Option(help="TOML file with settings; HEARTWHEEL_* variables override it.")
]
UrlOption = Annotated[
    str | None, typer.Option(help="URL of the process; without it, as the settings say.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PLAIN_COLUMNS = 500
YEAR_10000_MS = 253_402_300_800_000
Item = TypeVar("Item")


def duration_ms(option: str, text: str) -> int:
    """Return a time such as 500ms, 30s, 15m, 12h or 7d in ms; -1 for `forever`."""
    if text == "forever":
        return -1
    found = re.fullmatch(r"(\d{1,9})(ms|s|m|h|d)", text)
    if not found:
        raise ConfigError(f"{option} {text}: write it as 30s, 15m, 12h, 7d or forever")
    return int(found[1]) * UNITS_MS[found[2]]


def moment_ms(option: str, text: str) -> int:
    """Return a time in ms since 1970 that is given so, in ISO 8601, or as how long ago it was.

    Raises ConfigError for anything else, and for a time before 1970 or after 9999.
    """
    found_ms = _moment_ms(option, text)
    if found_ms is None or not 0 <= found_ms < YEAR_10000_MS:
        msg = (
            f"{option} {text}: write it as 15m (ago), as 2026-11-23T10:00:00Z or as milliseconds "
            "since 1970"
        )
        raise ConfigError(msg)
    return found_ms


def _moment_ms(option: str, text: str) -> int | None:
    if re.fullmatch(r"[0-9]{1,20}", text):
        return int(text)
    if re.fullmatch(r"[0-9]+(ms|s|m|h|d)", text):
        return int(time.time() * 1000) - duration_ms(option, text)
    try:
        moment = datetime.fromisoformat(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def first(items: Iterable[Item], limit: int | None) -> Iterator[Item]:
    """Return so many items at most, however large the limit is; without one, all of them."""
    return islice(items, None if limit is None else min(limit, sys.maxsize))


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print rows as a table on a terminal, else as columns of plain text, a line each."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_COLUMNS)
    table = Table(box=SIMPLE if console.is_terminal else None)
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))
    console.print(table)


def confirm(question: str, *, yes: bool, instead: str = "--yes or --dry-run") -> bool:
    """Return the answer to a question; raises ConfigError where nobody can be asked."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ConfigError(f"this is no terminal, so nobody can be asked; give {instead}")
    return typer.confirm(question)
