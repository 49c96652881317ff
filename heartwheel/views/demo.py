"""The view of the demonstration: numbers, and the last records of each kind."""

from collections import Counter, deque
from collections.abc import Sequence

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from session_logic.events import Heartbeat, OutputEvent, SessionActive, SessionEnd

SHOWN_RECORDS, SHOWN_BESIDE_EXAMPLES = 3, 1
MAX_ID = 14  # characters of an id that is shown
MAX_DELAYS = 5_000
KINDS = (
    "SessionActive",
    "Heartbeat",
    "SessionEnd ended",
    "SessionEnd replaced",
    "SessionEnd timed_out",
    "SessionEnd went_silent",
)


class DemoView:
    """Counts the output, and renders it for a terminal of at least 80 columns."""

    def __init__(self, url: str) -> None:
        """Begin with nothing seen; url is that of the status page."""
        self.url = url
        self.active = 0
        self._begin_ms = 0
        self.counts: Counter[str] = Counter()
        self.latency_ms: dict[str, deque[int]] = {}
        self.last: dict[str, deque[tuple[OutputEvent, bytes]]] = {
            kind: deque(maxlen=SHOWN_RECORDS) for kind in KINDS
        }

    def add(self, event: OutputEvent, written_ms: int, value: bytes) -> None:
        """Count a record of the output, with the timestamp that Kafka gave it."""
        kind = type(event).__name__
        self._begin_ms = self._begin_ms or written_ms
        # Input that was sent before the flow was ready says nothing about its latency.
        if event.time_ms > self._begin_ms:
            delays = self.latency_ms.setdefault(kind, deque(maxlen=MAX_DELAYS))
            delays.append(written_ms - event.time_ms)
        if isinstance(event, SessionActive):
            self.active += 1
        elif isinstance(event, SessionEnd):
            self.active -= 1
            kind = f"{kind} {event.reason}"
        self.counts[kind] += 1
        self.last[kind].append((event, value))

    def latency(self, kind: str) -> str:
        """Return p50 / p99 of a kind in ms."""
        delays = sorted(self.latency_ms.get(kind, ()))
        if not delays:
            return "-"
        return f"{delays[len(delays) // 2]} / {delays[len(delays) * 99 // 100]} ms"

    def line(self, sent: int) -> str:
        """Return everything in one line."""
        return (
            f"active {self.active}  events in {sent}  heartbeats out {self.counts['Heartbeat']}  "
            f"SessionActive p50/p99 {self.latency('SessionActive')}  "
            f"Heartbeat p50/p99 {self.latency('Heartbeat')}  "
            f"ended {self.counts['SessionEnd ended']}  "
            f"replaced {self.counts['SessionEnd replaced']}  "
            f"timed out {self.counts['SessionEnd timed_out']}  "
            f"{self._silent()}"
            f"dead letters {self.counts['dead letter']}  status page {self.url}"
        )

    def _silent(self) -> str:
        """Return how many sessions went silent; nothing where silence ends none."""
        silent = self.counts["SessionEnd went_silent"]
        return f"went silent {silent}  " if silent else ""

    def render(
        self,
        sent: int,
        seconds: float,
        heartbeat_ms: int,
        examples: Sequence[tuple[str, bytes, bytes]] = (),
    ) -> Panel:
        """Return the live view; an example has input topic, input record and output record."""
        shown = [
            Text.assemble("\n", (f"{where}  ", "bold"), (value.decode(), "dim"))
            for topic, value, output in examples
            for where, value in ((topic, value), ("session-events", output))
        ]
        rows = SHOWN_BESIDE_EXAMPLES if shown else SHOWN_RECORDS
        return Panel(
            Group(self._numbers(sent), Text(""), self._records(rows), *shown),
            title=(
                f"Heartwheel demo, {seconds:.0f} s, "
                + (f"heartbeat every {heartbeat_ms // 1000} s" if heartbeat_ms else "no heartbeats")
                + ", Ctrl-C ends it"
            ),
            title_align="left",
            subtitle=f"status page {self.url}",
        )

    def _numbers(self, sent: int) -> Table:
        table = Table.grid(padding=(0, 3))
        for style in ("", "bold cyan", "", "bold cyan"):
            table.add_column(style=style, no_wrap=True)
        started, beat = self.latency("SessionActive"), self.latency("Heartbeat")
        heartbeats, letters = self.counts["Heartbeat"], self.counts["dead letter"]
        table.add_row("active sessions", str(self.active), "SessionActive p50 / p99", started)
        table.add_row("events in", str(sent), "Heartbeat p50 / p99", beat)
        table.add_row("heartbeats out", str(heartbeats), "dead letters", str(letters))
        return table

    def _records(self, shown: int) -> Table:
        """Return the last records with what tells them apart; the whole JSON is too wide."""
        table = Table.grid(padding=(0, 2, 0, 0))
        for style in ("bold", "cyan", "dim", "dim", "dim", "dim"):
            right = style == "cyan"
            table.add_column(style=style, no_wrap=True, justify="right" if right else "left")
        table.columns[0].min_width, table.columns[1].min_width = 13, 6
        for kind in KINDS:
            if kind == "SessionEnd went_silent" and not self.counts[kind]:
                continue
            label = kind.removeprefix("SessionEnd ").replace("_", " ")
            rows = [_fields(event) for event, _ in [*self.last[kind]][-shown:]]
            rows += [("", "", "", "")] * (shown - len(rows))
            for index, fields in enumerate(rows):
                first = ("", "") if index else (label, str(self.counts[kind]))
                table.add_row(*first, *fields)
        return table


def _fields(event: OutputEvent) -> tuple[str, str, str, str]:
    what = ""
    if isinstance(event, Heartbeat):
        what = f"sequence {event.sequence}"
    elif isinstance(event, SessionEnd):
        what = f"{event.reason}, {event.duration_ms / 1000:.1f} s"
    return _short(event.device_id), _short(event.session_id), event.platform, what


def _short(text: str) -> str:
    return text if len(text) <= MAX_ID else f"{text[: MAX_ID - 1]}…"
