"""A proposed table as TOML, with notes as comments, which nothing that was seen can leave."""

import re
from collections.abc import Iterator
from textwrap import wrap

from dataflows.text import printable
from heartwheel.events.guess import Choice, Proposal

COLUMNS = 100
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {'"': '\\"', "\\": "\\\\"}


def toml_lines(proposal: Proposal) -> Iterator[str]:
    """Yield the lines of a proposal; together they are TOML."""
    yield from _comments(*proposal.notes)
    yield f"[inputs.{_name(proposal.topic)}]"
    for choice in proposal.choices:
        yield from _choice(choice)


def _choice(choice: Choice) -> Iterator[str]:
    if choice.value is None:
        yield from _comments(f"{choice.key}:", *choice.notes)
        return
    yield from _comments(*choice.notes)
    line = f"{choice.key} = {to_toml(choice.value)}"
    yield f"# {line}" if choice.optional else line


def _comments(*notes: str) -> Iterator[str]:
    for line in wrap(printable(" ".join(notes)), COLUMNS - 2, break_on_hyphens=False):
        yield f"# {line}"


def to_toml(value: object) -> str:
    """Return text, a list of texts or a table of texts as TOML."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_name(key)} = {to_toml(one)}' for key, one in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(to_toml, value))}]"
    return f'"{"".join(map(_escaped, str(value)))}"'


def _name(text: str) -> str:
    return text if _BARE.fullmatch(text) else to_toml(text)


def _escaped(sign: str) -> str:
    if sign in _ESCAPES:
        return _ESCAPES[sign]
    return sign if sign.isprintable() else f"\\U{ord(sign):08x}"
