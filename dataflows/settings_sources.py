"""Where settings come from: one TOML file, then HEARTWHEEL_* variables, which win.

Whatever is wrong is one line that names the setting as it was given, so the variable, or the key
and its file. It says what the value must be, and shows the value unless it may be a secret.
"""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct, inspect

from dataflows.settings import OPTION_TABLES, Settings, is_secret
from dataflows.settings_file import (
    PREFIX,
    SEE,
    SEE_EVENTS,
    give_inputs,
    read_secret,
    read_toml,
    unknown_setting,
)
from dataflows.settings_table import TOPIC_ALLOWED, is_topic
from dataflows.text import is_utf8, printable
from session_logic.errors import ConfigError
from session_logic.event_table import EventTable

CONFIG_VARIABLE = "HEARTWHEEL_CONFIG"
TRACEBACK_VARIABLE = "HEARTWHEEL_TRACEBACK"
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
        give_inputs(given.values, inputs)
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


def with_names(problem: str, name: Callable[[str], str]) -> str:
    """Return a problem with other names for the variables of settings: what name says of a key."""
    return re.sub(rf"{PREFIX}([A-Z_]+)", lambda found: name(found[1].lower()), problem)


def _gather(variables: Mapping[str, str], config: str | None) -> _Given:
    how = "--config" if config else CONFIG_VARIABLE
    config = config or variables.get(CONFIG_VARIABLE)
    given = _Given(read_toml(config, how) if config else {}, {})
    for key, value in given.values.items():
        options = isinstance(value, dict) and key in OPTION_TABLES
        names = [f"{key}.{option}" for option in value] if options else [key]
        given.sources |= dict.fromkeys(names, str(config))
    for name, text in variables.items():
        if not _is_variable(name):
            _check_prefix(name)
        elif name not in (CONFIG_VARIABLE, TRACEBACK_VARIABLE):
            if not is_utf8(name + text):
                raise ConfigError(f"{printable(name)} is not written in UTF-8: correct it")
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


def _set(values: dict[str, Any], name: str, text: str) -> str:
    """Set what a variable says, and return what that is: lanes, or kafka.sasl.password.

    HEARTWHEEL_KAFKA_SASL_PASSWORD is kafka."sasl.password", and HEARTWHEEL_KAFKA_LOG__LEVEL is
    kafka.log_level.
    """
    key = name.removeprefix(PREFIX).lower()
    if _is_file(name):
        key, text = key.removesuffix("_file"), read_secret(name, text)
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
        raise unknown_setting(name, key, variable_of)
    if key == "input_topics":
        # Where a variable is there in any case, as in a manifest, it can say that there are none.
        values[key] = _topics(name, text) if text or not values.get("inputs") else {}
    else:
        values[key] = text
    return key


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
    return with_names(
        problem, lambda key: given.name(key) if key in given.sources else variable_of(key)
    )


def _explain(message: str, given: _Given) -> str:
    """Return what is wrong with a value, from where msgspec found it: ... - at `$.lanes`."""
    what, _, place = message.rpartition("`$.")
    key = re.split(r"[`.\[]", place)[0]
    types = _types()
    if not what or key not in types:
        return f"settings: {message}; {SEE}"
    if key in OPTION_TABLES:
        return f"{given.name(key)} must be a table of librdkafka options; {SEE}"
    if what.endswith("`key` in "):
        wrong = next(name for name in given.values[key] if not is_topic(name))
        return f"{given.name(key)} has a topic {wrong!r}: write {TOPIC_ALLOWED}"
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
