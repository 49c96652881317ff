"""`heartwheel config`: what is set, where it comes from, and whether it is valid."""

import json
import os
from typing import Any

import typer

from dataflows.settings import OPTION_TABLES, Settings
from dataflows.settings_sources import load_settings, settings_sources
from dataflows.text import printable
from heartwheel.commands.shared import ConfigOption, JsonOption, print_table

config_app = typer.Typer(
    help="Show what is set and where it comes from; check it without a broker.",
    no_args_is_help=True,
)


@config_app.command("show")
def show_command(config: ConfigOption = None, as_json: JsonOption = False) -> None:  # noqa: FBT002  # typer's way
    """Show every setting with its value and where it comes from; secrets are shown as ***.

    Options of librdkafka that Heartwheel chooses itself are not listed.
    """
    settings = load_settings(os.environ, config)
    rows = _rows(settings, settings_sources(os.environ, config))
    if as_json:
        print(json.dumps({row.pop("setting"): row for row in rows}))
    else:
        print_table(
            [{name: printable(_text(value)) for name, value in row.items()} for row in rows]
        )


@config_app.command("check")
def check_command(config: ConfigOption = None) -> None:
    """Check the settings and the options of Kafka's clients, certificate files included.

    This connects to nothing; `heartwheel topics check` asks a broker. Exit code 2 if anything is
    wrong.
    """
    from threading import Event

    from dataflows.avro.topics import open_schemas
    from dataflows.kafka.consumer import SharedConsumer
    from dataflows.kafka.producer import SharedProducer
    from dataflows.run_state import RunState

    settings = load_settings(os.environ, config)
    SharedConsumer(settings, RunState()).open()
    SharedProducer(settings).open()
    open_schemas(settings, Event())
    count = len(settings_sources(os.environ, config))
    print(f"OK: {count} set, the others have their defaults")


def _rows(settings: Settings, sources: dict[str, str]) -> list[dict[str, Any]]:
    plain = settings.masked()
    values = {name: value for name, value in plain.items() if name not in OPTION_TABLES}
    values["input_topics"] = ",".join(f"{k}={v}" for k, v in settings.input_topics.items())
    for topic, table in values.pop("inputs").items():
        values |= {f"inputs.{topic}.{key}": value for key, value in table.items()}
    for table in OPTION_TABLES:
        values |= {f"{table}.{option}": value for option, value in plain[table].items()}
    return [
        {"setting": name, "value": value, "from": _source(name, sources)}
        for name, value in values.items()
    ]


def _source(name: str, sources: dict[str, str]) -> str:
    return sources.get("inputs" if name.startswith("inputs.") else name, "default")


def _text(value: object) -> str:
    if isinstance(value, bool | dict | list | tuple):
        return json.dumps(value)
    return str(value)
