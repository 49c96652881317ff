"""Heartwheel as `pip install .` installs it into a venv of its own."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.support.broker import ROOT

SOURCE = ("pyproject.toml", "README.md", "LICENSE", "heartwheel", "dataflows", "session_logic")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of programs of a venv with Heartwheel, and with our dependencies."""
    source, own = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("venv")
    for name in SOURCE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    venv.create(own, symlinks=True)
    variables = {"base": str(own), "platbase": str(own)}
    site = Path(sysconfig.get_path("purelib", "venv", variables))
    # A path file adds the dependencies, but not the checkout that another path file there names.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", str(own), "install", "--quiet"]
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--ignore-installed"]
    subprocess.run([*pip, *options, str(source)], check=True, capture_output=True)
    return own / "bin"


@pytest.mark.parametrize("command", [["heartwheel"], ["python", "-m", "heartwheel"]])
def test_installed_command_works_from_any_folder(
    programs: Path, tmp_path: Path, command: list[str]
) -> None:
    """Help is exit code 0, a fault 1, and a wrong setting or argument 2 with one line."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [programs / command[0], *command[1:], *arguments],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )

    assert run("--help").returncode == 0
    missing = run("replay", "no-such-file")
    assert missing.returncode == 1, missing.stderr
    wrong = run("config", "check", HEARTWHEEL_HEARTBEAT_MS="often")
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1), wrong.stderr


def test_installed_program_is_not_that_of_the_checkout(programs: Path, tmp_path: Path) -> None:
    """Each package and the status page come from the venv."""
    code = (
        "import heartwheel.http.status as h, dataflows.sessions as d, session_logic.lane as s\n"
        "print(h.__file__, d.__file__, s.__file__, *sorted(p.name for p in"
        " __import__('pathlib').Path(h.__file__).parent.glob('page.*')), sep='\\n')"
    )
    said = subprocess.run(
        [programs / "python", "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert all(Path(file).is_relative_to(programs.parent) for file in said[:3]), said
    assert {"page.css", "page.html", "page.js"} <= set(said[3:])
