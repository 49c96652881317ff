"""The view of a running process: its status, for a terminal of any width from 60 columns."""

from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Group
from rich.table import Table
from rich.text import Text

from heartwheel.shards import ShardStatus

MAX_DEAD_LETTERS = 5
SPARKS = "▁▂▃▄▅▆▇█"
MAX_SPARK_POINTS = 40
GAP = 2  # columns between two columns
STYLES = {"live": "green", "behind": "red", "restoring": "yellow", "waiting": "yellow"}
# A minute in seconds, and from how many seconds on a time is shown in hours.
MINUTE_S, HOURS_S = 60, 5_400

# Name, value, what is beside it, and the history that is drawn as bars.
Row = tuple[str, str, str, list[float | None]]


class TopView:
    """Renders what a process says of itself at /status.json."""

    def __init__(
        self,
        url: str,
        status: dict[str, Any],
        width: int,
        shards: Sequence[ShardStatus] = (),
    ) -> None:
        """Render this status, which is from this URL, for a terminal of this width in columns.

        Without shards there is no table of them.
        """
        self._shards = shards
        self._url = url
        self._status = status
        self._width = width

    def render(self) -> Group:
        """Return everything, for a terminal."""
        return Group(
            self._head(),
            Text(),
            self._numbers(),
            Text(),
            *self._all_shards(),
            self._lanes(),
            *self._dead_letters(),
        )

    def _head(self) -> Text:
        status = self._status
        head = Text.assemble(("Heartwheel ", "bold"), f"{status['version']} ", (self._url, "dim"))
        if status["shard"]:
            head.append(f"  shard {status['shard']}")
        if status["processes"] > 1:
            head.append(f"  process {status['process']} of {status['processes']}")
        head.append(f"  up {seconds((status['now_ms'] - status['started_ms']) / 1000)}  ")
        if status["ready"]:
            return head.append("ready", "bold green")
        return head.append(f"not ready: {status['reason']}", "bold red")

    def _numbers(self) -> Table:
        """Return the numbers; bars get the columns that text leaves, and text never loses any."""
        rows = self._rows()
        texts = [row[:3] for row in rows]
        name, value, beside = (max(map(cell_len, column)) for column in zip(*texts, strict=True))
        beside = max(1, min(beside, self._width - name - value - 2 * GAP))
        points = min(MAX_SPARK_POINTS, self._width - name - value - beside - 3 * GAP)
        table = Table.grid(padding=(0, GAP, 0, 0))
        table.add_column(width=name, no_wrap=True)
        table.add_column(width=value, no_wrap=True, justify="right", style="bold cyan")
        table.add_column(width=beside, no_wrap=True, overflow="ellipsis")
        if points > 0:
            table.add_column(width=points, no_wrap=True, style="cyan")
        for *row, history in rows:
            table.add_row(*row, *([spark(history, points)] if points > 0 else []))
        return table

    def _rows(self) -> list[Row]:
        status, history = self._status, self._status["history"]
        snapshot = status["snapshot"]
        active = ", ".join(f"{name} {n:,.0f}" for name, n in sorted(status["active"].items()))
        rows: list[Row] = []
        for name, column, beside in (
            ("active sessions", "active", active),
            ("heartbeats/s", "heartbeats", f"{status['heartbeats']:,.0f} in all"),
            ("starts/s", "starts", f"{status['events'].get('GameStart', 0):,.0f} in all"),
            ("ends/s", "ends", f"{status['events'].get('GameEnd', 0):,.0f} in all"),
            ("dead letters/s", "dead_letters", f"{sum(status['rejected'].values()):,.0f} in all"),
        ):
            rows.append((name, f"{_last(history, column) or 0:,.0f}", beside, history[column]))
        for name, kind in (("event latency p99", "event"), ("heartbeat lateness p99", "heartbeat")):
            beside = f"p50 {seconds(_last(history, f'{kind}_p50_s'))}"
            column = f"{kind}_p99_s"
            rows.append((name, seconds(_last(history, column)), beside, history[column]))
        store = f"p99 {seconds(snapshot['p99_s'])}, store {snapshot['store_bytes'] / 1e6:,.1f} MB"
        to_read = sum(part["records"] for part in status["consumer_lag"])
        memory = f"memory {(_last(history, 'memory_bytes') or 0) / 1e6:,.0f} MB"
        cores = f"{_last(history, 'cores') or 0:.2f}"
        return [
            *rows,
            ("last snapshot", seconds(snapshot["age_s"]), store, []),
            ("records to read", f"{to_read:,.0f}", "", []),
            ("cores", cores, memory, history["cores"]),
        ]

    def _all_shards(self) -> list[Table | Text]:
        """Return a line for each shard, and one for all that answer."""
        if not self._shards:
            return []
        names = ("shard", "sessions", "heartbeats/s", "lateness p99", "lag", "state")
        table = Table.grid(padding=(0, GAP, 0, 0))
        for name in names:
            table.add_column(name, justify="left" if name == "state" else "right")
        table.add_row(*(Text(name, "dim") for name in names))
        sessions = beats = 0.0
        for status in self._shards:
            if not status.answers:
                table.add_row(str(status.shard), *"----", Text("no answer", "bold red"))
                continue
            active, rate = status.active or 0, status.heartbeats or 0
            sessions, beats = sessions + active, beats + rate
            table.add_row(
                str(status.shard),
                f"{active:,.0f}",
                f"{rate:,.0f}",
                seconds(status.heartbeat_p99_s),
                seconds(status.lag_s),
                Text("ready", "green") if status.ready else Text(status.reason, "red"),
            )
        table.add_row("all", f"{sessions:,.0f}", f"{beats:,.0f}", style="bold")
        return [table, Text()]

    def _lanes(self) -> Table:
        table = Table.grid(padding=(0, GAP, 0, 0))
        for name in ("lane", "state", "sessions", "lag"):
            table.add_column(name, justify="left" if name == "state" else "right")
        table.add_row(*(Text(str(column.header), "dim") for column in table.columns))
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

    def _dead_letters(self) -> list[Text]:
        letters = self._status["dead_letters"][:MAX_DEAD_LETTERS]
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
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _last(history: dict[str, list[Any]], column: str) -> float | None:
    values = history[column]
    return values[-1] if values else None


def seconds(value: float | None) -> str:
    """Return a time in s with a unit that suits its size."""
    if value is None:
        return "-"
    if value < 1:
        return f"{value * 1000:.1f} ms"
    if value < 2 * MINUTE_S:
        return f"{value:.1f} s"
    return f"{value / MINUTE_S:.0f} min" if value < HOURS_S else f"{value / 3600:.1f} h"


def spark(values: list[float | None], points: int) -> str:
    """Return the last values as a line of bars, one column a point."""
    shown = values[-points:]
    most = max((value for value in shown if value is not None), default=0) or 1
    steps = len(SPARKS) - 1
    return "".join(" " if v is None else SPARKS[round(v / most * steps)] for v in shown)
