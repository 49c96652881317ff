"""session_logic has no clock, no I/O, no randomness and no Bytewax."""

import ast
from pathlib import Path

import pytest

import session_logic

ALLOWED = {
    "collections",
    "datetime",
    "decimal",
    "difflib",
    "enum",
    "itertools",
    "json",
    "msgspec",
    "operator",
    "re",
    "session_logic",
    "sys",
    "typing",
    "zlib",
}
FOLDER = Path(session_logic.__path__[0])


def imported(tree: ast.AST) -> list[tuple[int, str]]:
    """Return (line, root) of every import."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, name.name.partition(".")[0]) for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.lineno, (node.module or "").partition(".")[0]))
    return found


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_any_module_imports_only_what_is_pure(path: Path) -> None:
    """Time is an argument, so nothing that could tell it may be imported."""
    for line, root in imported(ast.parse(path.read_text())):
        assert root in ALLOWED, f"{path}:{line}: {root}"


def test_sys_is_used_for_intern_only() -> None:
    """The sys module is allowed for one function."""
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "sys":
                assert node.attr == "intern", path


def test_datetime_reads_a_time_and_tells_none() -> None:
    """The module is allowed for times that stand in an event."""
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                assert node.attr not in {"now", "today", "utcnow"}, path


def test_no_setting_and_no_command_of_the_program_is_named() -> None:
    """The rules do not know who runs them: not even a message names a variable or a command."""
    for path in FOLDER.glob("*.py"):
        text = path.read_text()
        assert "HEARTWHEEL_" not in text, path
        assert "heartwheel " not in text, path
