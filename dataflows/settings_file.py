"""The settings file: TOML, with tables for input topics and for options of Kafka's clients.

What is wrong in it is a ConfigError of one line that names the key and the file.
"""

import difflib
import tomllib
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from dataflows.settings import OPTION_TABLES, Settings
from session_logic.errors import ConfigError
from session_logic.event_table import EventTable, TableError, read_table

PREFIX = "HEARTWHEEL_"
SEE = "see docs/settings.md"
SEE_EVENTS = "see docs/events.md"
# What settings were called before.
RENAMED = {
    "remember_ended_ms": "deduplication_window_ms",
    "future_limit_ms": "max_clock_skew_ms",
    "value_limit_bytes": "max_record_bytes",
    "live_limit_ms": "liveness_timeout_ms",
}


def read_toml(path: str, how: str) -> dict[str, Any]:
    """Return the values of a file, whose types are not checked; options are flat.

    How says by which option or variable the file was named. Raises ConfigError.
    """
    try:
        # Some editors begin a file with a byte order mark, which is no TOML.
        values = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
        for table in OPTION_TABLES:
            if isinstance(options := values.get(table), dict):
                values[table] = _options(table, options)
    except OSError as error:
        msg = f"settings file {path} cannot be read: {error.strerror}; correct {how}"
        raise ConfigError(msg) from None
    except RecursionError:
        raise ConfigError(f"settings file {path} is nested too deeply; {SEE}") from None
    except ValueError as error:  # of TOML, UTF-8, or a number with thousands of digits
        raise ConfigError(f"settings file {path} is not TOML: {error}") from None
    for key in values:
        if key not in Settings.__struct_fields__:
            raise unknown_setting(f"{key} in {path}", key, str)
    if isinstance(moment := values.get("start"), date):  # TOML has times of its own
        values["start"] = moment.isoformat()
    if "inputs" in values:
        give_inputs(values, read_inputs(values["inputs"], f" in {path}"))
    return values


def give_inputs(values: dict[str, Any], inputs: Mapping[str, EventTable]) -> None:
    """Set the input tables; with them, no other topic is there by default."""
    values["inputs"] = dict(inputs)
    if inputs:
        values.setdefault("input_topics", {})


def read_inputs(tables: object, where: str) -> dict[str, EventTable]:
    """Return the input tables of plain values; raises ConfigError, which says where they are."""
    if not isinstance(tables, dict):
        raise ConfigError(f"inputs{where} must be tables: [inputs.TOPIC]; {SEE_EVENTS}")
    found = {}
    for topic, plain in tables.items():
        try:
            found[topic] = read_table(plain)
        except TableError as error:
            name = f"inputs.{topic}.{error.key}".rstrip(".")
            raise ConfigError(f"{name}{where}{error.problem}; {SEE_EVENTS}") from None
    return found


def _options(table: str, options: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten a TOML table of options; {file = "..."} stands for what the file holds."""
    flat: dict[str, str] = {}
    for key, value in options.items():
        option = f"{prefix}{key}"
        if isinstance(value, dict) and value.keys() == {"file"}:
            flat[option] = read_secret(f"{table}.{option}", value["file"])
        elif isinstance(value, dict):
            flat |= _options(table, value, f"{option}.")
        else:
            flat[option] = str(value).lower() if isinstance(value, bool) else str(value)
    return flat


def read_secret(name: str, path: object) -> str:
    """Return what a secret's file holds; raises ConfigError if it cannot be read."""
    if not isinstance(path, str):
        raise ConfigError(f'{name}: write the path of its file in quotes: {{file = "/PATH"}}')
    try:
        return Path(path).read_text().strip()
    except (OSError, ValueError) as error:  # no UTF-8, or a path that has a zero byte
        msg = f"{name}: the file {path} cannot be read: {error}"
        raise ConfigError(msg) from None


def unknown_setting(where: str, key: str, shown: Callable[[str], str]) -> ConfigError:
    """Return the error for a key that is no setting, with the one that may be meant.

    Shown turns a key into what the user would write.
    """
    if key in RENAMED:
        return ConfigError(f"{where} was renamed to {shown(RENAMED[key])}; write that")
    plain = key.lower().removeprefix(PREFIX.lower())  # a file that has the name of a variable
    nearest = difflib.get_close_matches(plain, (*Settings.__struct_fields__, "config"), n=1)
    hint = f"did you mean {shown(nearest[0])}? " if nearest and nearest[0] != key else ""
    return ConfigError(f"{where} is not a setting of Heartwheel; {hint}{SEE}")
