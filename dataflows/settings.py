"""Everything that can be set, from one TOML file and HEARTWHEEL_* variables, checked as a whole."""

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta, Struct, field

from session_logic.errors import ConfigError
from session_logic.keys import KEY_GROUPS
from session_logic.rules import Rules

PREFIX = "HEARTWHEEL_"
CONFIG_VARIABLE = "HEARTWHEEL_CONFIG"
TRACEBACK_VARIABLE = "HEARTWHEEL_TRACEBACK"
# Tables of librdkafka options; HEARTWHEEL_KAFKA_SASL_PASSWORD is kafka."sasl.password", and
# HEARTWHEEL_KAFKA_LOG__LEVEL is kafka.log_level.
OPTION_TABLES = ("kafka", "consumer", "producer")
SECRET_WORDS = ("password", "secret", "key", "token", "jaas", "credential", "oauthbearer.config")

Positive = Annotated[int, Meta(gt=0)]
Name = Annotated[str, Meta(min_length=1)]


class Settings(
    Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, repr_omit_defaults=True
):
    """The settings of a run; every name is a TOML key and, in capitals, a HEARTWHEEL_ variable.

    kafka holds librdkafka options for consumer and producer both, the other two tables for one
    of them; an option of theirs wins over the built-in choice.
    """

    bootstrap_servers: Name = "127.0.0.1:9092"
    input_topics: dict[Name, Name] = field(
        default_factory=lambda: {"console-events": "console", "pc-events": "pc"}
    )
    output_topic: Name = "session-events"
    dead_letter_topic: Name = "dead-letters"
    lanes: Positive = 4
    heartbeat_ms: Positive = 30_000
    max_session_ms: Positive = 28_800_000
    deduplication_window_ms: Annotated[int, Meta(ge=0)] = 60_000
    tick_ms: Positive = 2
    catch_up: Literal["latest", "all"] = "latest"
    start: Literal["earliest", "latest"] = "earliest"
    max_clock_skew_ms: Annotated[int, Meta(ge=0)] = 60_000
    # A dead letter with its headers must fit into a record of a broker's usual size.
    max_record_bytes: Annotated[int, Meta(gt=0, le=900_000)] = 65_536
    snapshot_ms: Annotated[int, Meta(ge=10)] = 250
    recovery_dir: Name = "recovery"
    recovery_parts: Positive = 1
    restore_timeout_ms: Positive = 60_000
    fencing: bool = True
    delivery_timeout_ms: Positive = 120_000
    stop_timeout_ms: Positive = 20_000
    monitor_group: str = "heartwheel-monitor"
    log_format: Literal["auto", "json", "text"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    http_host: Name = "127.0.0.1"
    http_port: Annotated[int, Meta(ge=0, le=65_535)] = 8080
    http_token: str = ""
    liveness_timeout_ms: Positive = 10_000
    ready_lag_ms: Positive = 5_000
    kafka: dict[str, str] = {}
    consumer: dict[str, str] = {}
    producer: dict[str, str] = {}

    def __post_init__(self) -> None:
        """Raise ConfigError if two settings contradict each other."""
        self.rules()
        if self.lanes > KEY_GROUPS or self.lanes & (self.lanes - 1):
            msg = f"HEARTWHEEL_LANES is {self.lanes}: it must be a power of two up to {KEY_GROUPS}"
            raise ConfigError(msg)
        if self.heartbeat_ms % self.tick_ms:
            msg = (
                f"HEARTWHEEL_TICK_MS ({self.tick_ms}) must divide HEARTWHEEL_HEARTBEAT_MS "
                f"({self.heartbeat_ms}) without a rest"
            )
            raise ConfigError(msg)
        topics = [*self.input_topics, self.output_topic, self.dead_letter_topic]
        if not self.input_topics or len(set(topics)) < len(topics):
            msg = (
                "HEARTWHEEL_INPUT_TOPICS, HEARTWHEEL_OUTPUT_TOPIC and HEARTWHEEL_DEAD_LETTER_TOPIC "
                f"must name at least one input and no topic twice: {', '.join(topics)}"
            )
            raise ConfigError(msg)

        if self.monitor_group == f"heartwheel-{self.output_topic}":
            msg = (
                f"HEARTWHEEL_MONITOR_GROUP is {self.monitor_group}: that group holds the lease on "
                "the output topic; give it another name"
            )
            raise ConfigError(msg)

        if self.http_port and not self.http_token and not is_loopback(self.http_host):
            msg = (
                f"HEARTWHEEL_HTTP_HOST is {self.http_host}, which others can reach: set "
                "HEARTWHEEL_HTTP_TOKEN (or HEARTWHEEL_HTTP_TOKEN_FILE) to what they must know, or "
                "HEARTWHEEL_HTTP_PORT=0 to have no server"
            )
            raise ConfigError(msg)
        token = self.http_token
        if not token.isascii() or not token.isprintable() or " " in token:
            msg = "HEARTWHEEL_HTTP_TOKEN must be one word of ASCII letters, digits and signs"
            raise ConfigError(msg)

    def rules(self) -> Rules:
        """Return the part that the session rules need; raises ConfigError if it is wrong."""
        return Rules(
            self.heartbeat_ms, self.max_session_ms, self.deduplication_window_ms, self.catch_up
        )

    def masked(self) -> dict[str, Any]:
        """Return every setting as plain values, with secrets replaced by stars."""
        plain: dict[str, Any] = _masked(msgspec.to_builtins(self))
        return plain | {table: _masked(plain[table]) for table in OPTION_TABLES}

    def __repr__(self) -> str:
        """Show the settings without secrets."""
        return f"Settings({self.masked()})"


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach what is bound to a host."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def load_settings(variables: Mapping[str, str] = os.environ, config: str | None = None) -> Settings:
    """Return the settings of a TOML file (config, or HEARTWHEEL_CONFIG), then of the variables.

    A variable with _FILE at its end names a file that holds the value. Raises ConfigError, one
    line, for an unknown key, a wrong value or a broken relation.
    """
    values, _ = _gather(variables, config)
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        # msgspec reports an error of __post_init__ as its own, with the cause inside.
        if isinstance(error.__cause__, ConfigError):
            raise error.__cause__ from None
        raise ConfigError(_explain(str(error))) from None


def settings_sources(
    variables: Mapping[str, str] = os.environ, config: str | None = None
) -> dict[str, str]:
    """Return where each setting that is not the default comes from: file or variable.

    Options are named kafka.sasl.password. Raises ConfigError as load_settings does.
    """
    return _gather(variables, config)[1]


def _gather(
    variables: Mapping[str, str], config: str | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values that are set, and where each of them comes from."""
    config = config or variables.get(CONFIG_VARIABLE)
    values = _read_toml(config) if config else {}
    sources: dict[str, str] = {}
    for key, value in values.items():
        options = isinstance(value, dict) and key in OPTION_TABLES
        names = [f"{key}.{option}" for option in value] if options else [key]
        sources |= dict.fromkeys(names, str(config))
    for name, text in variables.items():
        if name.startswith(PREFIX) and name not in (CONFIG_VARIABLE, TRACEBACK_VARIABLE):
            key = _set(values, name, text)
            if sources.get(key, "").startswith(PREFIX):
                msg = f"{name} and {sources[key]} set the same thing ({key}); remove one of them"
                raise ConfigError(msg)
            sources[key] = f"{name} ({text})" if _is_file(name) else name
    return values, sources


def _is_file(name: str) -> bool:
    return name.lower().endswith("_file")


def _masked(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: "***" if value and any(word in name for word in SECRET_WORDS) else value
        for name, value in values.items()
    }


def environment() -> dict[str, str]:
    """Return the variables of this process without those that set Heartwheel or Bytewax."""
    return {k: v for k, v in os.environ.items() if not k.startswith((PREFIX, "BYTEWAX_"))}


def _read_toml(path: str) -> dict[str, Any]:
    try:
        values = tomllib.loads(Path(path).read_text())
    except OSError as error:
        msg = f"settings file {path} cannot be read: {error.strerror}; check HEARTWHEEL_CONFIG"
        raise ConfigError(msg) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"settings file {path} is not TOML: {error}"
        raise ConfigError(msg) from None
    for key in values:
        if key not in Settings.__struct_fields__:
            raise _unknown(f"{key} in {path}", key)
    for table in OPTION_TABLES:
        if isinstance(options := values.get(table), dict):
            values[table] = _options(table, options)
    return values


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


def _read_secret(name: str, path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{name}: the file {path} cannot be read: {error}"
        raise ConfigError(msg) from None


def _set(values: dict[str, Any], name: str, text: str) -> str:
    """Set what a variable says, and return what that is: lanes, or kafka.sasl.password."""
    key = name.removeprefix(PREFIX).lower()
    if _is_file(name):
        key, text = key.removesuffix("_file"), _read_secret(name, text)
    table, _, option = key.partition("_")
    if table in OPTION_TABLES and option:
        values.setdefault(table, {})[_option_name(option)] = text
        return f"{table}.{_option_name(option)}"
    if key in OPTION_TABLES:
        msg = f"{name}: give each option a variable of its own, such as {name}_CLIENT_ID"
        raise ConfigError(msg)
    if key not in Settings.__struct_fields__:
        raise _unknown(name, key, lambda near: PREFIX + near.upper())
    values[key] = _topics(name, text) if key == "input_topics" else text
    return key


def _unknown(where: str, key: str, shown: Callable[[str], str] = str) -> ConfigError:
    nearest = difflib.get_close_matches(key, (*Settings.__struct_fields__, "config"), n=1)
    hint = f"did you mean {shown(nearest[0])}? " if nearest else ""
    return ConfigError(
        f"{where} is not a setting of Heartwheel; {hint}see the settings table in the README"
    )


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


def _explain(message: str) -> str:
    what, _, where = message.partition(" - at `$.")
    if where:
        key = where.removesuffix("`").partition(".")[0].partition("[")[0]
        if what.startswith("Invalid enum value"):
            what += f"; it must be {' or '.join(get_args(Settings.__annotations__[key]))}"
        return f"{PREFIX}{key.upper()}: {what}"
    return f"settings: {what}; see the settings table in the README"
