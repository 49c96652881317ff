"""`heartwheel dead-letters`: look at rejected input, and send it again."""

import json
import os
import sys
from collections import Counter
from heapq import nlargest
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from dataflows.settings import Settings
from dataflows.settings_sources import load_settings
from dataflows.text import printable, whole_number
from heartwheel.commands.shared import (
    ConfigOption,
    JsonOption,
    confirm,
    first,
    moment_ms,
    print_table,
)
from session_logic.errors import ConfigError
from session_logic.events import RejectReason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heartwheel.kafka.dead_letters import (
        DeadLetterFilter,
        DeadLetterReader,
        State,
        StoredDeadLetter,
    )
    from heartwheel.kafka.requeue import Requeue

dead_letters_app = typer.Typer(
    help="List and show rejected input, and send it again.", no_args_is_help=True
)

REASONS: tuple[str, ...] = get_args(RejectReason)
# What to say of dead letters that are not sent, by their state.
SKIPPED = {
    "requeued": "requeued before (--again sends them once more)",
    "twice": "another dead letter is of the same record",
    "left out": "their value was not kept, so they cannot be sent again",
    "foreign": "not written by Heartwheel",
}
ReasonOption = Annotated[
    str | None,
    typer.Option(
        help=f"Only dead letters with this reason: {', '.join(REASONS)}.",
        autocompletion=lambda: list(REASONS),
    ),
]
TopicOption = Annotated[
    str | None, typer.Option(help="Only dead letters that came from this input topic.")
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        help="Only dead letters since this time: 15m (ago), 2026-11-23T10:00:00Z or milliseconds."
    ),
]
UntilOption = Annotated[
    str | None, typer.Option(help="Only dead letters before this time, written as for --since.")
]


@dead_letters_app.command("list")
def list_command(
    reason: ReasonOption = None,
    topic: TopicOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(help="Show at most this number, the newest.", min=1)] = 20,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """List dead letters, and count them by reason and topic.

    A dead letter is named by its partition and offset in the dead-letter topic; `show` and
    `requeue` take these names. State: waiting, requeued (sent again), twice (another dead letter
    is of the same record), left out (value too large to keep) or foreign (not written by
    Heartwheel).
    """
    from heartwheel.views import dead_letters as view

    wanted = _filter(reason, topic, since, until)
    reader = _reader(load_settings(os.environ, config))
    counts: Counter[tuple[str, str, str]] = Counter()

    def counted() -> "Iterator[StoredDeadLetter]":
        for letter in reader.read(wanted):
            source = letter.origin.record.topic if letter.origin else "-"
            counts[letter.reason, source, letter.state] += 1
            yield letter

    def age(letter: "StoredDeadLetter") -> tuple[int, ...]:
        return letter.written_ms, letter.partition, letter.offset

    shown = sorted(nlargest(limit, counted(), age), key=age)
    if as_json:
        for letter in shown:
            print(json.dumps(view.as_json(letter)))
        return
    if sys.stdout.isatty():
        print("\n".join(view.list_lines(shown, get_terminal_size().columns)))
    else:
        print_table([view.list_row(letter) for letter in shown])
    print(f"{_dead_letters(counts.total())}, {len(shown)} shown")
    for (what, source, state), count in counts.most_common():
        print(f"{count:7} {state:8} {printable(what)} from {printable(source)}")


@dead_letters_app.command("show")
def show_command(
    name: Annotated[str, typer.Argument(help="The dead letter, as `list` names it: 0/17.")],
    config: ConfigOption = None,
    *,
    value: Annotated[
        bool, typer.Option("--value", help="Write only the value, byte for byte.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show one dead letter: where it came from, why it was rejected, its key and value."""
    from heartwheel.views import dead_letters as view

    letter = _reader(load_settings(os.environ, config)).find(*_position(name))
    if value:
        sys.stdout.buffer.write(letter.value or b"")
    elif as_json:
        print(json.dumps(view.as_json(letter)))
    else:
        print_table(view.show_rows(letter))
        print(printable(letter.value))


@dead_letters_app.command("requeue")
def requeue_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Dead letters as `list` names them; without names, all selected."),
    ] = None,
    reason: ReasonOption = None,
    topic: TopicOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[
        int | None, typer.Option(help="Send at most this number.", min=1, show_default="all")
    ] = None,
    config: ConfigOption = None,
    *,
    again: Annotated[
        bool, typer.Option("--again", help="Also dead letters that were sent again before.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be sent.")
    ] = False,
) -> None:
    """Send dead letters again to the topic and partition that they came from.

    Key, value and headers are sent byte for byte, with the timestamp that the record had (a topic
    with LogAppendTime replaces it). The header `heartwheel.requeues` counts how often. Each dead
    letter is marked in the same transaction: it is never sent twice, even if this command is
    killed, unless you say `--again`. A running `heartwheel run` reads what is sent like any input.

    Exit code 1 if all selected dead letters are such that cannot be sent, or you answer no.
    """
    from heartwheel.kafka.dead_letters import UNSENDABLE
    from heartwheel.kafka.requeue import Requeue

    settings = load_settings(os.environ, config)
    wanted = _filter(reason, topic, since, until, names)
    sender = None if dry_run else Requeue(settings)
    reader = _reader(settings)
    states: tuple[State, ...] = ("waiting", "requeued") if again else ("waiting",)

    def chosen() -> "Iterator[StoredDeadLetter]":
        return first((x for x in reader.read(wanted) if x.state in states), limit)

    skipped = _skipped(reader, wanted, states)
    count = _count(chosen(), sender)
    for state, number in skipped.items():
        print(f"{number:7} skipped: {SKIPPED[state]}")
    if sender is None or not count:
        print(f"{_dead_letters(count)} {'would be sent' if dry_run else 'to send'} again")
        hopeless = not count and bool(skipped) and skipped.keys() <= UNSENDABLE
        raise typer.Exit(int(hopeless))
    if not confirm(f"Send {_dead_letters(count)} again?", yes=yes):
        print("nothing was sent")
        raise typer.Exit(1)
    sent = sender.send(chosen(), lambda sent: print(f"{sent} of {count}", flush=True))
    print(f"{_dead_letters(sent)} sent again")


def _skipped(
    reader: "DeadLetterReader", wanted: "DeadLetterFilter", states: "tuple[State, ...]"
) -> "Counter[State]":
    """Count by state what is not to be sent; raises ConfigError for a name that none has."""
    from heartwheel.kafka.dead_letters import no_such_dead_letter

    counts: Counter[State] = Counter()
    missing = set(wanted.names)
    for letter in reader.read(wanted):
        missing.discard((letter.partition, letter.offset))
        if letter.state not in states:
            counts[letter.state] += 1
    for partition, offset in sorted(missing):
        raise no_such_dead_letter(f"{partition}/{offset}")
    return counts


def _count(letters: "Iterator[StoredDeadLetter]", sender: "Requeue | None") -> int:
    """Check and count what is to be sent; print how many are to go where."""
    counts: Counter[tuple[str, str]] = Counter()
    for letter in letters:
        assert letter.origin is not None
        if sender is not None:
            sender.check(letter.origin)
        record = letter.origin.record
        counts[letter.reason, f"{record.topic}/{record.partition}"] += 1
    for (reason, partition), count in sorted(counts.items()):
        print(f"{count:7} {printable(reason)} to {printable(partition)}")
    return counts.total()


def _reader(settings: Settings) -> "DeadLetterReader":
    from heartwheel.kafka.dead_letters import DeadLetterReader

    return DeadLetterReader(settings)


def _filter(
    reason: str | None,
    topic: str | None,
    since: str | None,
    until: str | None,
    names: list[str] | None = None,
) -> "DeadLetterFilter":
    from heartwheel.kafka.dead_letters import DeadLetterFilter

    if reason is not None and reason not in REASONS:
        msg = f"no such reason {printable(reason)}; one of {', '.join(REASONS)}"
        raise ConfigError(msg)
    return DeadLetterFilter(
        reason=reason,
        topic=topic,
        since_ms=None if since is None else moment_ms("--since", since),
        until_ms=None if until is None else moment_ms("--until", until),
        names=frozenset(map(_position, names or [])),
    )


def _position(name: str) -> tuple[int, int]:
    number, _, place = name.partition("/")
    partition, offset = whole_number(number), whole_number(place)
    if partition is None or offset is None:
        msg = f"dead letter {printable(name)}: write it as `list` names it, such as 0/17"
        raise ConfigError(msg)
    return partition, offset


def _dead_letters(count: int) -> str:
    return f"{count} dead letter{'' if count == 1 else 's'}"
