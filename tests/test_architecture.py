"""The floors of the house, computed from imports: who may know whom."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support.broker import ROOT

# Each package, and the packages of this project that it may import.
FLOORS = {
    "session_logic": {"session_logic"},
    "dataflows": {"dataflows", "session_logic"},
    "heartwheel": {"heartwheel", "dataflows", "session_logic"},
    "benchmarks": {"benchmarks", "tests", "heartwheel", "dataflows", "session_logic"},
    "tests": {
        "tests",
        "benchmarks",
        "heartwheel",
        "dataflows",
        "session_logic",
        "monitoring",
    },
}


def modules(package: str) -> dict[str, Path]:
    """Return every module of a package by its name."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imports(path: Path) -> Iterator[str]:
    """Yield the name of every module that a file may import, wherever in the file it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{path}:{node.lineno}: a relative import"
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def is_test(module: str) -> bool:
    """Say whether a module holds tests."""
    return module.rpartition(".")[2].startswith(("test_", "conftest"))


@pytest.mark.parametrize("package", FLOORS)
def test_package_imports_only_what_is_below_it(package: str) -> None:
    """The program knows the dataflows, the dataflows know the rules, and nobody the reverse."""
    strangers = FLOORS.keys() - FLOORS[package]
    wrong = {
        (module, name)
        for module, path in modules(package).items()
        for name in imports(path)
        if name.partition(".")[0] in strangers
    }
    assert wrong == set()


@pytest.mark.parametrize("package", FLOORS)
def test_modules_of_a_package_import_one_another_in_one_direction(package: str) -> None:
    """There is no circle, not even one that only a type checker sees."""
    known = modules(package)
    graph = {
        module: {name for name in imports(path) if name in known and name != module}
        for module, path in known.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_rules_know_neither_bytewax_nor_kafka() -> None:
    """The rules run anywhere."""
    wrong = {
        (module, name)
        for module, path in modules("session_logic").items()
        for name in imports(path)
        if name.partition(".")[0] in {"bytewax", "confluent_kafka"}
    }
    assert wrong == set()


def test_no_test_module_is_imported() -> None:
    """What tests share is in tests/support, or beside them in a module without tests."""
    known = {**modules("tests"), **modules("benchmarks")}
    wrong = {
        (module, name)
        for module, path in known.items()
        for name in imports(path)
        if name in known and is_test(name)
    }
    assert wrong == set()


def test_folders_of_tests_share_only_what_is_in_support() -> None:
    """Beside tests.support, a module imports from its own folder only."""
    known = {**modules("tests"), **modules("benchmarks")}
    wrong = {
        (module, name)
        for module, path in known.items()
        for name in imports(path)
        if name in known
        and name.startswith("tests.")
        and not name.startswith("tests.support")
        and not name.startswith(module.rpartition(".")[0])
    }
    assert wrong == set()


def test_command_that_serves_nothing_does_without_the_http_server() -> None:
    """Only a run imports it: a replay, a check or a help text starts without."""
    program = "import heartwheel.cli, heartwheel.recording.replay, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    imported = set(done.stdout.split())
    assert "heartwheel.recording.replay" in imported
    assert imported & {"uvicorn", "starlette", "heartwheel.http.server"} == set()
