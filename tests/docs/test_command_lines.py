"""Every heartwheel command line that a page shows is one that the program takes."""

import re
import shlex
from collections.abc import Iterator

import pytest
import typer

from heartwheel.cli import app
from tests.support.pages import PAGES

OPERATORS = {"&", "&&", "|", "||", ";"}
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def split(line: str) -> Iterator[list[str]]:
    """Yield the simple commands of a line of shell, without comments and variables before them."""
    lexer = shlex.shlex(re.sub(r"\d?> *\S+", "", line), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for token in [*lexer, ";"]:
        if token in OPERATORS:
            while words and re.match(r"[A-Z_]+=", words[0]):
                words = words[1:]
            yield words
            words = []
        else:
            words.append(token)


def shown() -> Iterator[tuple[str, list[str]]]:
    """Yield every command line of heartwheel with the place that shows it."""
    for source in PAGES:
        lines = [
            line.removeprefix("$ ")
            for block in source.blocks("console")
            for line in block.replace("\\\n", " ").splitlines()
            if line.startswith("$ ")
        ]
        lines += re.findall(r"`(heartwheel [^`]+)`", source.prose)
        for line in lines:
            for words in split(line):
                if words[:1] == ["kubectl"] and "--" in words:
                    words = words[words.index("--") + 1 :]
                if words[:1] == ["heartwheel"]:
                    yield f"{source.name}: {line}", words[1:]


def problem(words: list[str]) -> str | None:
    """Return what is wrong with the arguments of heartwheel, without running anything."""
    command = typer.main.get_command(app)
    if words[:1] in (["--install-completion"], ["--traceback"]):
        words = words[1:]
    arguments = [word for word in words if word not in ("...", "COMMAND")]
    while isinstance(command, typer.core.TyperGroup) and arguments:
        name, *arguments = arguments
        if name.startswith("-"):
            return f"no option {name}"
        found = command.commands.get(name)
        if found is None:
            return f"no command {name}"
        command = found
    if isinstance(command, typer.core.TyperGroup) or arguments == []:
        return None  # named in a sentence, or without arguments
    try:
        command.make_context("heartwheel", arguments)
    except UsageError as error:
        return str(error)
    return None


def test_command_lines_are_understood() -> None:
    """Commands exist, and so do their options and arguments."""
    found = list(shown())
    assert len(found) > 60
    wrong = [(where, what) for where, words in found if (what := problem(words))]
    assert wrong == []


@pytest.mark.parametrize(
    "words",
    [["stor", "check"], ["store", "chek"], ["load", "--secnds", "5"], ["store", "copy", "a"]],
    ids=" ".join,
)
def test_wrong_command_line_is_found(words: list[str]) -> None:
    """The check above can fail."""
    assert problem(words)
