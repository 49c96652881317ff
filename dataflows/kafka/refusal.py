"""Why a client of Kafka could not be made, in one line that names the option and its variables."""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaException

from dataflows.settings import is_secret
from dataflows.settings_file import SEE
from session_logic.errors import ConfigError

# Of librdkafka, or of what is meant for the client in Python: a callback, or a module that is not
# installed.
REFUSALS = (KafkaException, ValueError, TypeError, AttributeError, ImportError)
MECHANISMS = ("sasl.mechanisms", "sasl.mechanism")


def refused(
    kind: Callable[[dict[str, Any]], object],
    error: Exception,
    options: Mapping[str, Any],
    tables: tuple[str, ...],
) -> ConfigError:
    """Return what to tell of an error that came when a client was made with these options.

    In tables are the user's tables that can have such an option.
    """
    text = _text(error)
    if "SASL mechanism" in text:
        # librdkafka takes GSSAPI where nothing is said, and is built without it.
        said = [repr(options[name]) for name in MECHANISMS if name in options]
        return ConfigError(
            f"HEARTWHEEL_KAFKA_SASL_MECHANISMS is {' and '.join(said) or 'not set'}; write PLAIN, "
            "SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
        )
    option = _wrong_option(kind, text, options)
    if option is None:
        return ConfigError(
            f"Kafka's client refuses {', '.join(sorted(options))} together: {text}; {SEE}"
        )
    word = option.upper().replace("_", "__").replace(".", "_")
    variables = " or ".join(f"HEARTWHEEL_{table.upper()}_{word}" for table in tables)
    shown = "" if is_secret(option) else f" = {options[option]!r}"
    return ConfigError(
        f"Kafka's client refuses {option}{shown} ({text}): correct {variables}, or its line in "
        f"the settings file; {SEE}"
    )


def _wrong_option(
    kind: Callable[[dict[str, Any]], object], text: str, options: Mapping[str, Any]
) -> str | None:
    """Return the option that is named, or that without which a client can be made.

    Where it is one of two, it is the first: what our guarantees rest on stands behind the user's.
    """
    for option in options:
        if re.search(rf"(?<![\w.]){re.escape(option)}(?![\w.])", text):
            return option
    for option in options:
        with suppress(*REFUSALS):
            kind({name: value for name, value in options.items() if name != option})
            return option
    return None


def _text(error: Exception) -> str:
    found = error.args[0].str() if isinstance(error, KafkaException) else str(error)
    return " ".join(found.split())
