"""Where settings come from: one TOML file, then HEARTWHEEL_* variables, which win.

Whatever is wrong is one line that names the setting as it was given, so the variable, or the key
and its file. It says what the value must be, and shows the value unless it may be a secret.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, inspect

from dataflows.settings import OPTION_TABLES, Settings, is_secret
from session_logic.errors import ConfigError
from session_logic.event_table import EventTable, TableError, read_table

PREFIX = "HEARTWHEEL_"
CONFIG_VARIABLE = "HEARTWHEEL_CONFIG"
TRACEBACK_VARIABLE = "HEARTWHEEL_TRACEBACK"
SEE = "see docs/settings.md"
SEE_EVENTS = "see docs/events.md"
# What settings were called before.
RENAMED = {
    "remember_ended_ms": "deduplication_window_ms",
    "future_limit_ms": "max_clock_skew_ms",
    "value_limit_bytes": "max_record_bytes",
    "live_limit_ms": "liveness_timeout_ms",
}
# How alike the first word of a variable and HEARTWHEEL are, if one is meant to be the other.
ALIKE = 0.85


class _Given(Struct):
    """The values that are set, and where each of them comes from."""

    values: dict[str, Any]
    sources: dict[str, str]  # of each setting, or option such as kafka.sasl.password

    def name(self, key: str) -> str:
        """Return a setting as it was given: by a variable, or by a key of the file."""
        source = self.sources.get(key, PREFIX)
        return source.partition(" ")[0] if _is_variable(source) else f"{key} in {source}"

    def shown(self, key: str) -> str:
        """Return ` is 'value'`, or nothing for what may be a secret."""
        secret = is_secret(key) or _is_file(self.name(key))
        return "" if secret else f" is {self.values[key]!r}"


def load_settings(
    variables: Mapping[str, str] = os.environ,
    config: str | None = None,
    inputs: Mapping[str, EventTable] | None = None,
) -> Settings:
    """Return the settings of a TOML file (config, or HEARTWHEEL_CONFIG), then of the variables.

    A variable with _FILE at its end names a file that holds the value. Input tables can be given as
    well, as no variable holds them. Raises ConfigError, one line, for an unknown key, a wrong value
    or a broken relation.
    """
    given = _gather(variables, config)
    if inputs:
        _give_inputs(given.values, inputs)
    try:
        return msgspec.convert(given.values, Settings, strict=False)
    except msgspec.ValidationError as error:
        # msgspec reports an error of __post_init__ as its own, with the cause inside.
        cause = error.__cause__
        problem = _contradiction(str(cause), given) if isinstance(cause, ConfigError) else None
        raise ConfigError(problem or _explain(str(error), given)) from None
    except ConfigError as error:
        raise ConfigError(_contradiction(str(error), given)) from None


def settings_sources(
    variables: Mapping[str, str] = os.environ, config: str | None = None
) -> dict[str, str]:
    """Return where each setting that is not the default comes from: file or variable.

    Options are named kafka.sasl.password. Raises ConfigError as load_settings does.
    """
    return _gather(variables, config).sources


def environment() -> dict[str, str]:
    """Return the variables of this process without those that set Heartwheel or Bytewax."""
    return {k: v for k, v in os.environ.items() if not k.startswith((PREFIX, "BYTEWAX_"))}


def variable_of(key: str) -> str:
    """Return the name of the variable that sets a setting."""
    return PREFIX + key.upper()


def _gather(variables: Mapping[str, str], config: str | None) -> _Given:
    how = "--config" if config else CONFIG_VARIABLE
    config = config or variables.get(CONFIG_VARIABLE)
    given = _Given(_read_toml(config, how) if config else {}, {})
    for key, value in given.values.items():
        options = isinstance(value, dict) and key in OPTION_TABLES
        names = [f"{key}.{option}" for option in value] if options else [key]
        given.sources |= dict.fromkeys(names, str(config))
    for name, text in variables.items():
        if not _is_variable(name):
            _check_prefix(name)
        elif name not in (CONFIG_VARIABLE, TRACEBACK_VARIABLE):
            key = _set(given.values, name, text)
            other = given.sources.get(key, "")
            if _is_variable(other):
                msg = f"{name} and {other} set the same thing ({key}); remove one of them"
                raise ConfigError(msg)
            given.sources[key] = f"{name} ({text})" if _is_file(name) else name
    if isinstance(shard := given.values.get("shard"), str):
        given.values["shard"] = _pod_shard(shard, variables)
    return given


def _is_variable(name: str) -> bool:
    return name.startswith(PREFIX)


def _is_file(name: str) -> bool:
    return _is_variable(name) and name.lower().endswith("_file")


def _check_prefix(name: str) -> None:
    """Raise ConfigError for a variable that is meant to be one of ours and would be ignored."""
    word, sign, rest = name.upper().partition("_")
    if not sign or word[:1] != PREFIX[0]:
        return
    if difflib.SequenceMatcher(None, word, PREFIX.rstrip("_")).ratio() >= ALIKE:
        msg = f"{name} is not read, because it does not begin with {PREFIX}: write {PREFIX}{rest}"
        raise ConfigError(msg)


def _read_toml(path: str, how: str) -> dict[str, Any]:
    """Return the values of a file; how says by which option or variable it was named."""
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
            raise _unknown(f"{key} in {path}", key, str)
    if isinstance(moment := values.get("start"), date):  # TOML has times of its own
        values["start"] = moment.isoformat()
    if "inputs" in values:
        _give_inputs(values, read_inputs(values["inputs"], f" in {path}"))
    return values


def _give_inputs(values: dict[str, Any], inputs: Mapping[str, EventTable]) -> None:
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
            flat[option] = _read_secret(f"{table}.{option}", value["file"])
        elif isinstance(value, dict):
            flat |= _options(table, value, f"{option}.")
        else:
            flat[option] = str(value).lower() if isinstance(value, bool) else str(value)
    return flat


def _pod_shard(text: str, variables: Mapping[str, str]) -> str:
    """Return pod/8 as 2/8 in the third pod of a StatefulSet, which is named by its number."""
    if not text.startswith("pod/"):
        return text
    pod = variables.get("HOSTNAME", "")
    number = pod.rpartition("-")[2]
    if not number.isdecimal():
        msg = (
            f"{PREFIX}SHARD is {text!r}, and HOSTNAME is {pod!r}: that is no pod of a StatefulSet, "
            "which has a number at the end; write the number of the shard"
        )
        raise ConfigError(msg)
    return number + text.removeprefix("pod")


def _read_secret(name: str, path: object) -> str:
    if not isinstance(path, str):
        raise ConfigError(f'{name}: write the path of its file in quotes: {{file = "/PATH"}}')
    try:
        return Path(path).read_text().strip()
    except (OSError, ValueError) as error:  # no UTF-8, or a path that has a zero byte
        msg = f"{name}: the file {path} cannot be read: {error}"
        raise ConfigError(msg) from None


def _set(values: dict[str, Any], name: str, text: str) -> str:
    """Set what a variable says, and return what that is: lanes, or kafka.sasl.password.

    HEARTWHEEL_KAFKA_SASL_PASSWORD is kafka."sasl.password", and HEARTWHEEL_KAFKA_LOG__LEVEL is
    kafka.log_level.
    """
    key = name.removeprefix(PREFIX).lower()
    if _is_file(name):
        key, text = key.removesuffix("_file"), _read_secret(name, text)
    table, _, option = key.partition("_")
    if table in OPTION_TABLES and option:
        options = values.setdefault(table, {})
        if not isinstance(options, dict):
            raise ConfigError(f"{name} adds to the table {table}, but the file has a value there")
        options[_option_name(option)] = text
        return f"{table}.{_option_name(option)}"
    if re.match(r"inputs(_|$)", key):
        msg = (
            f"{name}: input tables are read from a file; write [inputs.TOPIC] in the one that "
            f"{CONFIG_VARIABLE} or --config names, {SEE_EVENTS}"
        )
        raise ConfigError(msg)
    if key in OPTION_TABLES:
        msg = f"{name}: give each option a variable of its own, such as {name}_CLIENT_ID"
        raise ConfigError(msg)
    if key not in Settings.__struct_fields__:
        raise _unknown(name, key, variable_of)
    if key == "input_topics":
        # Where a variable is there in any case, as in a manifest, it can say that there are none.
        values[key] = _topics(name, text) if text or not values.get("inputs") else {}
    else:
        values[key] = text
    return key


def _unknown(where: str, key: str, shown: Callable[[str], str]) -> ConfigError:
    if key in RENAMED:
        return ConfigError(f"{where} was renamed to {shown(RENAMED[key])}; write that")
    plain = key.lower().removeprefix(PREFIX.lower())  # a file that has the name of a variable
    nearest = difflib.get_close_matches(plain, (*Settings.__struct_fields__, "config"), n=1)
    hint = f"did you mean {shown(nearest[0])}? " if nearest else ""
    return ConfigError(f"{where} is not a setting of Heartwheel; {hint}{SEE}")


def _option_name(text: str) -> str:
    """Return a librdkafka option: _ stands for a dot, __ for the few underscores."""
    return text.replace("__", "\0").replace("_", ".").replace("\0", "_")


def _topics(name: str, text: str) -> dict[str, str]:
    topics: dict[str, str] = {}
    for pair in text.split(","):
        topic, sign, platform = (part.strip() for part in pair.partition("="))
        if not (topic and sign and platform) or topic in topics:
            msg = f"{name} is {text!r}: write it as topic=platform,topic=platform"
            raise ConfigError(msg)
        topics[topic] = platform
    return topics


def _contradiction(problem: str, given: _Given) -> str:
    """Return a problem of several settings, each named as it was given."""

    def name(found: re.Match[str]) -> str:
        key = found[1].lower()
        return given.name(key) if key in given.sources else found[0]

    return re.sub(rf"{PREFIX}([A-Z_]+)", name, problem)


def _explain(message: str, given: _Given) -> str:
    """Return what is wrong with a value, from where msgspec found it: ... - at `$.lanes`."""
    what, _, place = message.rpartition("`$.")
    key = re.split(r"[`.\[]", place)[0]
    types = _types()
    if not what or key not in types:
        return f"settings: {message}; {SEE}"
    if key in OPTION_TABLES:
        return f"{given.name(key)} must be a table of librdkafka options; {SEE}"
    if key == "inputs":
        return f"{given.name(key)} has a topic without a name; {SEE_EVENTS}"
    if key == "input_topics":
        shape = f'{key} = {{console-events = "console"}}'
        return f"{given.name(key)} must be a table of topics with their platforms: {shape}"
    return f"{given.name(key)}{given.shown(key)}: write {_allowed(types[key])}"


def _types() -> dict[str, inspect.Type]:
    described = inspect.type_info(Settings)
    assert isinstance(described, inspect.StructType)
    return {field.name: field.type for field in described.fields}


def _allowed(kind: inspect.Type) -> str:
    """Return in words what a value of a type may be."""
    match kind:
        case inspect.Metadata(extra={"allowed": str(words)}):
            return words
        case inspect.Metadata(type=inner):
            return _allowed(inner)
        case inspect.LiteralType(values=values):
            *others, last = map(str, values)
            return f"{', '.join(others)} or {last}"
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            low = kind.ge if kind.ge is not None else (kind.gt or 0) + 1
            upto = "up" if kind.le is None else f"to {kind.le}"
            return f"a whole number from {low} {upto}"
        case _:
            return "some text (in TOML, in quotes)"
