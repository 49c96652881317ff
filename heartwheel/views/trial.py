"""What records would become: a line each where there is room, else two that lose nothing."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any, get_args

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from dataflows.text import printable
from heartwheel.events.trial import EVENTS, Becomes, Outcome
from heartwheel.text import moment_text, text_or_bytes

# Characters of a key that are shown: on a terminal, and elsewhere.
MAX_KEY_COLUMNS, MAX_KEY = 20, 60
GAP = "  "
# A reason is put beside its record where it has so much room; without a terminal it has this.
MIN_COLUMNS, MAX_COLUMNS = 40, 1_000_000
INDENT = "    "
UNBROKEN = "\N{NO-BREAK SPACE}"
STYLES: dict[Becomes, str] = {
    "start": "green",
    "end": "cyan",
    "ping": "dim",
    "skipped": "dim",
    "rejected": "bold red",
}
HEAD = ("record", "timestamp", "key", "becomes")
EVENT_HEAD = ("device", "session", "platform", "event time", "context")


def trial_lines(outcomes: Sequence[Outcome], columns: int | None) -> Iterator[Text]:
    """Yield outcomes for a terminal of so many columns; None is no terminal, and no limit."""
    max_key = MAX_KEY if columns is None else MAX_KEY_COLUMNS
    begins = _Grid(HEAD, [_begin(one, max_key) for one in outcomes])
    events = _Grid(EVENT_HEAD, [_event(one) for one in outcomes if one.becomes in EVENTS])
    left = MAX_COLUMNS if columns is None else columns - begins.width - len(GAP)
    if left < max(events.width, MIN_COLUMNS):
        yield from _stacked(outcomes, begins, events, columns or MAX_COLUMNS)
        return
    yield Text(f"{begins.line(HEAD)}{GAP}{events.line(EVENT_HEAD)}".rstrip(), "bold")
    for one in outcomes:
        if one.becomes in EVENTS:
            first, *others = [events.line(_event(one))]
        else:
            first, *others = _wrapped(_why(one), left) or [""]
        yield _styled(one, begins.line(_begin(one, max_key)), first)
        yield from (Text(f"{' ' * (begins.width + len(GAP))}{line}") for line in others)


def _stacked(
    outcomes: Sequence[Outcome], begins: "_Grid", events: "_Grid", columns: int
) -> Iterator[Text]:
    """Yield two lines for each, or as many as it takes."""
    for one in outcomes:
        *others, begin = _wrapped(begins.line(_begin(one, MAX_KEY_COLUMNS)), columns)
        yield from map(Text, others)
        yield _styled(one, begin, "")
        text = events.words(_event(one)) if one.becomes in EVENTS else _why(one)
        for line in _wrapped(text, max(columns - len(INDENT), 1)):
            yield Text(f"{INDENT}{line}")


def _wrapped(text: str, columns: int) -> list[str]:
    lines = wrap(text, columns, break_on_hyphens=False)
    return [line.replace(UNBROKEN, " ") for line in lines]


class _Grid:
    """Cells under heads, as wide as they must be; a column in which nothing is has no place."""

    def __init__(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self._heads = heads
        columns = list(zip(*rows, strict=True))
        self._used = [n for n, cells in enumerate(columns) if set(cells) - {"", "-"}]
        self._widths = {n: max(map(cell_len, (heads[n], *columns[n]))) for n in self._used}

    @property
    def width(self) -> int:
        return cell_len(self.line(self._heads))

    def line(self, cells: Sequence[str]) -> str:
        """Return cells side by side."""
        return GAP.join(set_cell_size(cells[n], self._widths[n]) for n in self._used)

    def words(self, cells: Sequence[str]) -> str:
        """Return cells in a sentence, each with its head."""
        parts = (f"{self._heads[n]} {cells[n]}" for n in self._used if cells[n])
        return ", ".join(part.replace(" ", UNBROKEN) for part in parts)


def count_line(outcomes: Sequence[Outcome]) -> str:
    """Return how many records become what."""
    counts = Counter(one.becomes for one in outcomes)
    parts = [f"{counts[kind]} {kind}" for kind in get_args(Becomes) if counts[kind]]
    late = sum(one.late for one in outcomes)
    if late:
        parts.append(f"{late} late, so with their records' timestamps")
    records = f"{len(outcomes)} record{'' if len(outcomes) == 1 else 's'}"
    return f"{records}: {', '.join(parts)}"


def as_json(topic: str, outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as JSON; what does not apply is null."""
    is_event = outcome.becomes in EVENTS
    key, _ = text_or_bytes(outcome.record.key)
    return {
        "topic": topic,
        "record": outcome.record.name,
        "timestamp_ms": outcome.record.time_ms,
        "key": key,
        "becomes": outcome.becomes,
        "reason": outcome.reason or None,
        "detail": outcome.detail or None,
        "device_id": outcome.device_id if is_event else None,
        "session_id": outcome.session_id if is_event else None,
        "platform": outcome.platform if is_event else None,
        "time_ms": outcome.time_ms,
        "late": outcome.late,
        "context": json.loads(b"{%b}" % outcome.carried) if outcome.carried else None,
    }


def _begin(one: Outcome, max_key: int) -> tuple[str, ...]:
    record = one.record
    stamp = "-" if record.time_ms is None else moment_text(record.time_ms)
    return record.name, stamp, _cut(printable(record.key), max_key), one.becomes


def _event(one: Outcome) -> tuple[str, ...]:
    """Return the parts of an event, in the order of EVENT_HEAD."""
    moment = "-" if one.time_ms is None else moment_text(one.time_ms)
    unnamed = "(named by its time)" if one.becomes == "start" else "(the active one)"
    return (
        printable(one.device_id),
        printable(one.session_id) if one.session_id else unnamed,
        printable(one.platform),
        f"{moment} (late)" if one.late else moment,
        printable(one.carried),
    )


def _why(one: Outcome) -> str:
    reason = "" if one.reason in ("ping", "other") else f"{one.reason}: "
    return printable(f"{reason}{one.detail}") if one.detail else ""


def _styled(one: Outcome, begin: str, rest: str) -> Text:
    line = Text(f"{begin}{GAP}{rest}".rstrip() if rest else begin.rstrip())
    at = begin.rfind(one.becomes)
    line.stylize(STYLES[one.becomes], at, at + len(one.becomes))
    return line


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
