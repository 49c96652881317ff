"""`heartwheel events`: try the input tables on real records, and propose one."""

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from dataflows.settings import Settings
from dataflows.settings_sources import load_settings
from dataflows.settings_table import TOPIC_ALLOWED, is_topic
from dataflows.text import printable
from heartwheel.commands.shared import ConfigOption, JsonOption
from session_logic.errors import ConfigError, HeartwheelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heartwheel.events.records import SeenRecord
    from heartwheel.events.trial import Trial


class EmptyTopicError(HeartwheelError):
    """There is nothing to propose a table from: send some records first."""


events_app = typer.Typer(
    help="Try how input is read, and propose a table for a topic.", no_args_is_help=True
)

FileOption = Annotated[
    str | None,
    typer.Option(
        "--file", help="Read records from a file of JSON lines, or - for standard input, not Kafka."
    ),
]


@events_app.command("try")
def try_command(
    topic: Annotated[
        str | None, typer.Option(help="Only this input topic.", show_default="all of them")
    ] = None,
    last: Annotated[
        int, typer.Option(help="Records of each topic, the newest.", min=1, max=10_000)
    ] = 20,
    file: FileOption = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show what the newest records of each input topic would become, and why.

    Each becomes a start, an end, a ping, is skipped, or is rejected for a reason. Nothing is
    changed: no group is joined, no offset committed, no topic created. Records of a file have no
    key, headers or timestamp.

    Exit code 1 if there is a topic of which no record would be a start or an end.
    """
    from rich.console import Console
    from rich.text import Text

    from heartwheel.events.cause import likely_causes
    from heartwheel.events.trial import EVENTS, Trial
    from heartwheel.views import trial as view

    settings = load_settings(os.environ, config)
    topics = _topics(settings, topic, file)
    console = Console(soft_wrap=True, highlight=False)
    columns = console.width if sys.stdout.isatty() else None
    fault = False
    for name, records in _records(settings, topics, last, file):
        trial = Trial(settings, name)
        outcomes = [trial.of(record) for record in records]
        fault = fault or not any(one.becomes in EVENTS for one in outcomes)
        causes = likely_causes(trial.table, outcomes, trial.read_value)
        if as_json:
            for one in outcomes:
                print(json.dumps(view.as_json(name, one)))
            continue
        print(_title(name, trial))
        for line in view.trial_lines(outcomes, columns) if outcomes else ():
            console.print(line)
        print(view.count_line(outcomes) if outcomes else "no record")
        for cause in causes:
            console.print(Text(f"LIKELY CAUSE {printable(cause)}", "bold yellow"))
    raise typer.Exit(int(fault))


@events_app.command("guess")
def guess_command(
    topic: Annotated[str, typer.Argument(help="The topic to propose a table for.")],
    last: Annotated[
        int, typer.Option(help="Records to look at, the newest.", min=1, max=10_000)
    ] = 200,
    file: FileOption = None,
    config: ConfigOption = None,
) -> None:
    """Propose a table for a topic from its newest records, as TOML to paste into your settings.

    It is a proposal: comments say what it is unsure of, and what else was seen. The topic need not
    be in the settings, and nothing is changed. `heartwheel events try` shows what the table does.

    Exit code 1 if there is no record, or something that a table must have was not found.
    """
    from heartwheel.events.avro import avro_values
    from heartwheel.events.fields import read_json
    from heartwheel.events.guess import propose
    from heartwheel.views.proposal import toml_lines

    if not is_topic(topic):
        raise ConfigError(f"{topic!r} is no name of a topic: write {TOPIC_ALLOWED}")
    settings = load_settings(os.environ, config)
    ((_, records),) = _records(settings, [topic], last, file)
    if not records:
        raise EmptyTopicError(f"topic {topic} has no record: nothing can be proposed")
    avro = avro_values(settings)
    proposal = propose(topic, records, avro.read if avro else read_json)
    print("\n".join(toml_lines(proposal)))
    if proposal.missing:
        missing = ", ".join(proposal.missing)
        print(f"heartwheel: not found, write it yourself: {missing}", file=sys.stderr)
        raise typer.Exit(1)


def _topics(settings: Settings, topic: str | None, file: str | None) -> list[str]:
    """Return the topics to try; raises ConfigError for one that is no input."""
    topics = settings.all_input_topics
    if topic is None:
        if file is not None and len(topics) > 1:
            msg = f"--file: say with --topic by which of {', '.join(topics)} it is to be read"
            raise ConfigError(msg)
        return topics
    if topic not in topics:
        msg = (
            f"--topic {printable(topic)} is no input topic of these settings, which has "
            f"{', '.join(topics)}; for another, begin with `heartwheel events guess`"
        )
        raise ConfigError(msg)
    return [topic]


def _records(
    settings: Settings, topics: list[str], last: int, file: str | None
) -> "Iterator[tuple[str, list[SeenRecord]]]":
    """Yield the newest records of each topic, or those of the file."""
    if file is not None:
        from heartwheel.events.records import read_lines

        yield from ((topic, read_lines(file, last)) for topic in topics)
        return
    from heartwheel.kafka.newest import NewestRecords

    newest = NewestRecords(settings, topics)
    try:
        yield from ((topic, newest.of(topic, last)) for topic in topics)
    finally:
        newest.close()


def _title(topic: str, trial: "Trial") -> str:
    if trial.table is not None:
        return f"{printable(topic)}, read by its table"
    return f"{printable(topic)}, read in Heartwheel's own format, platform {trial.platform}"
