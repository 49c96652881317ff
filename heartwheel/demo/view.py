"""What the demonstration shows of its output."""

from collections import Counter, deque

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from session_logic.events import OutputEvent, SessionActive, SessionEnd

SHOWN = 3
KINDS = (
    "SessionActive",
    "Heartbeat",
    "SessionEnd ended",
    "SessionEnd replaced",
    "SessionEnd timed_out",
)


class DemoView:
    """What has been seen of the output, and how to show it."""

    def __init__(self, url: str) -> None:
        """Begin with nothing seen; url is that of the status page, if there is one."""
        self.url = url
        self.active = 0
        self._begin_ms = 0
        self.counts: Counter[str] = Counter()
        self.latency_ms: dict[str, deque[int]] = {}
        self.last: dict[str, deque[str]] = {kind: deque(maxlen=SHOWN) for kind in KINDS}

    def add(self, event: OutputEvent, stamped_ms: int, value: bytes) -> None:
        """Take in a record that Kafka has stamped."""
        kind = type(event).__name__
        self._begin_ms = self._begin_ms or stamped_ms
        if event.time_ms > self._begin_ms:  # what was sent while the flow started says nothing
            delays = self.latency_ms.setdefault(kind, deque(maxlen=5_000))
            delays.append(stamped_ms - event.time_ms)
        if isinstance(event, SessionActive):
            self.active += 1
        elif isinstance(event, SessionEnd):
            self.active -= 1
            kind = f"{kind} {event.reason}"
        self.counts[kind] += 1
        self.last[kind].append(value.decode())

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
            f"dead letters {self.counts['dead letter']}"
        )

    def page(self) -> str:
        """Return where the status page is, to be put behind a line."""
        return f"  status page {self.url}" if self.url else ""

    def render(self, sent: int, seconds: float, heartbeat_ms: int) -> Panel:
        """Return the live view."""
        numbers = Table.grid(padding=(0, 3))
        for _ in range(4):
            numbers.add_column()
        rows = [
            (
                "active sessions",
                str(self.active),
                "SessionActive p50 / p99",
                self.latency("SessionActive"),
            ),
            ("events in", str(sent), "Heartbeat p50 / p99", self.latency("Heartbeat")),
            (
                "heartbeats out",
                str(self.counts["Heartbeat"]),
                "dead letters",
                str(self.counts["dead letter"]),
            ),
        ]
        for row in rows:
            numbers.add_row(row[0], Text(row[1], "bold cyan"), row[2], Text(row[3], "bold cyan"))
        records = Table(box=None, padding=(0, 1), show_header=False, expand=True)
        records.add_column(no_wrap=True, min_width=13)
        records.add_column(no_wrap=True, min_width=6, justify="right")
        records.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for kind in KINDS:
            label = kind.removeprefix("SessionEnd ").replace("_", " ")
            for index in range(SHOWN):
                shown = list(self.last[kind])
                text = shown[index] if index < len(shown) else ""
                first = (label, str(self.counts[kind])) if index == 0 else ("", "")
                records.add_row(Text(first[0], "bold"), Text(first[1], "cyan"), Text(text, "dim"))
        every_s = heartbeat_ms // 1000
        title = f"Heartwheel demo, {seconds:.0f} s, heartbeat every {every_s} s, Ctrl-C ends it"
        return Panel(
            Group(numbers, Text(""), records),
            title=title,
            title_align="left",
            subtitle=self.page().strip() or None,
        )
