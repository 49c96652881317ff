"""`heartwheel dead-letters`: look at what was rejected, and send it again."""

import json
import os
import sys
from collections import Counter
from heapq import nlargest
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dataflows.settings_sources import load_settings
from heartwheel.commands.shared import (
    ConfigOption,
    JsonOption,
    confirm,
    moment_ms,
    moment_text,
    print_table,
)
from heartwheel.text import printable, text_or_bytes
from session_logic.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heartwheel.kafka.dead_letters import Choice, Letter, Letters

letters_app = typer.Typer(
    help="List and show what was rejected, and send it again.", no_args_is_help=True
)

REASONS = ("empty", "not_json", "not_an_event", "in_the_future", "too_large")
DETAIL_COLUMNS = 60
AGAIN = " before (--again sends them once more)"
ReasonOption = Annotated[
    str | None,
    typer.Option(
        help=f"Only letters rejected for this: {', '.join(REASONS)}.",
        autocompletion=lambda: list(REASONS),
    ),
]
TopicOption = Annotated[
    str | None, typer.Option(help="Only letters that came from this input topic.")
]
SinceOption = Annotated[
    str | None,
    typer.Option(help="Only letters since then: 15m, 2h, 2026-11-23T10:00:00Z or milliseconds."),
]
UntilOption = Annotated[str | None, typer.Option(help="Only letters before then; as --since.")]


@letters_app.command("list")
def list_command(
    reason: ReasonOption = None,
    topic: TopicOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(help="Show at most so many, the newest.", min=1)] = 20,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """List dead letters, and count them by reason and topic.

    A letter is named by its partition and offset in the dead-letter topic: `show` and `requeue`
    take these names. State: waiting, requeued (sent again), twice (the same record as another
    letter), left out (value too large to be kept) or foreign (not written by Heartwheel).
    """
    letters = _open(config)
    counts: Counter[tuple[str, str, str]] = Counter()

    def counted() -> "Iterator[Letter]":
        for letter in letters.read(_choice(reason, topic, since, until)):
            counts[letter.reason, letter.place.topic if letter.place else "-", letter.state] += 1
            yield letter

    def age(letter: "Letter") -> tuple[int, ...]:
        return letter.written_ms, letter.partition, letter.offset

    shown = sorted(nlargest(limit, counted(), age), key=age)
    if as_json:
        for letter in shown:
            print(json.dumps(_plain(letter)))
        return
    print_table(
        [
            {
                "letter": _name(letter),
                "rejected at": moment_text(letter.written_ms),
                "reason": printable(letter.reason),
                "from": printable(_origin(letter)),
                "key": printable(letter.key)[:DETAIL_COLUMNS],
                "state": letter.state,
                "requeues": letter.requeues,
                "detail": printable(letter.detail)[:DETAIL_COLUMNS],
            }
            for letter in shown
        ]
    )
    print(f"{counts.total()} letters, {len(shown)} shown")
    for (what, where, state), count in counts.most_common():
        print(f"{count:7} {state:8} {printable(what)} from {printable(where)}")


@letters_app.command("show")
def show_command(
    name: Annotated[str, typer.Argument(help="The letter, as `list` names it: 0/17.")],
    config: ConfigOption = None,
    *,
    value: Annotated[
        bool, typer.Option("--value", help="Write the value alone, byte for byte.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show one dead letter: where it came from, why it was rejected, its key and value."""
    letter = _open(config).find(*_position(name))
    if value:
        sys.stdout.buffer.write(letter.value or b"")
        return
    if as_json:
        print(json.dumps(_plain(letter)))
        return
    size = "none" if letter.value is None else f"{len(letter.value)} bytes"
    happened = moment_text(letter.place.time_ms) if letter.place else "-"
    print_table(
        [
            {"letter": "rejected at", _name(letter): moment_text(letter.written_ms)},
            {"letter": "from", _name(letter): printable(_origin(letter))},
            {"letter": "stamped", _name(letter): happened},
            {"letter": "reason", _name(letter): printable(letter.reason)},
            {"letter": "detail", _name(letter): printable(letter.detail)},
            {"letter": "state", _name(letter): letter.state},
            {"letter": "requeues", _name(letter): letter.requeues},
            {"letter": "key", _name(letter): printable(letter.key)},
            {"letter": "value", _name(letter): size},
        ]
    )
    print(printable(letter.value))


@letters_app.command("requeue")
def requeue_command(
    names: Annotated[
        list[str] | None, typer.Argument(help="Letters as `list` names them; without, all chosen.")
    ] = None,
    reason: ReasonOption = None,
    topic: TopicOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[
        int | None, typer.Option(help="Send at most so many.", min=1, show_default="all")
    ] = None,
    config: ConfigOption = None,
    *,
    again: Annotated[
        bool, typer.Option("--again", help="Also letters that have been sent again before.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be sent.")
    ] = False,
) -> None:
    """Send dead letters again to the topic and partition that they came from.

    Key and value are sent byte for byte, with the time that the record had (a topic with
    LogAppendTime stamps it anew), and the header `heartwheel.requeues` counts how often. Each
    letter is marked in the same transaction: it is never sent twice, even if this is killed,
    unless you say `--again`. A running `heartwheel run` reads what is sent like any input.
    """
    from heartwheel.kafka.requeue import Requeue

    settings = load_settings(os.environ, config)
    choice = _choice(reason, topic, since, until, names)
    sender = None if dry_run else Requeue(settings)
    letters = _open(config)

    states = ("waiting", "requeued") if again else ("waiting",)

    def chosen() -> "Iterator[Letter]":
        return islice((x for x in letters.read(choice) if x.state in states), limit)

    counts: Counter[tuple[str, str]] = Counter()
    for letter in chosen():
        assert letter.place is not None
        if sender is not None:
            sender.check(letter.place)
        counts[letter.reason, f"{letter.place.topic}/{letter.place.partition}"] += 1
    for (what, where), count in sorted(counts.items()):
        print(f"{count:7} {printable(what)} to {printable(where)}")
    others = Counter(x.state for x in letters.read(choice) if x.state not in states)
    for state, count in others.items():
        print(f"{count:7} passed over: {state}{AGAIN if state == 'requeued' else ''}")
    if sender is None or not counts:
        print(f"{counts.total()} letters {'would be sent' if dry_run else 'to send'} again")
        return
    if not confirm(f"Send these {counts.total()} letters again?", yes=yes):
        print("nothing was sent")
        raise typer.Exit(1)
    sent = sender.send(chosen(), lambda sent: print(f"{sent} of {counts.total()}", flush=True))
    print(f"{sent} letters sent again")


def _open(config: str | None) -> "Letters":
    from heartwheel.kafka.dead_letters import Letters

    return Letters(load_settings(os.environ, config))


def _choice(
    reason: str | None,
    topic: str | None,
    since: str | None,
    until: str | None,
    names: list[str] | None = None,
) -> "Choice":
    from heartwheel.kafka.dead_letters import Choice

    return Choice(
        reason,
        topic,
        None if since is None else moment_ms("--since", since),
        None if until is None else moment_ms("--until", until),
        frozenset(map(_position, names or [])),
    )


def _position(name: str) -> tuple[int, int]:
    partition, _, offset = name.partition("/")
    if not (partition.isdecimal() and offset.isdecimal()):
        raise ConfigError(f"letter {printable(name)}: write it as `list` names it, such as 0/17")
    return int(partition), int(offset)


def _name(letter: "Letter") -> str:
    return f"{letter.partition}/{letter.offset}"


def _origin(letter: "Letter") -> str:
    place = letter.place
    return f"{place.topic}/{place.partition} offset {place.offset}" if place else "-"


def _plain(letter: "Letter") -> dict[str, Any]:
    """Return a letter for JSON; bytes that are no text are base64, as in a recording."""
    from msgspec import to_builtins

    plain: dict[str, Any] = to_builtins(letter) | {"letter": _name(letter)}
    for field in ("key", "value"):
        text, data = text_or_bytes(getattr(letter, field))
        plain[field] = text
        if data is not None:
            plain[f"{field}_base64"] = to_builtins(data)
    return plain
