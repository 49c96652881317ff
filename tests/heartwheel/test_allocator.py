"""A run begins anew once, to have the C library keep what it frees."""

import os
import subprocess
import sys

import pytest

from heartwheel.allocator import TUNABLE, VARIABLE, keep_freed_memory

SCRIPT = """
from heartwheel.allocator import keep_freed_memory
print("begins", flush=True)
keep_freed_memory()
import os
import sys
print(os.getpid(), os.environ["GLIBC_TUNABLES"], sys.argv[1:])
"""


def began(**variables: str) -> tuple[int, list[str]]:
    """Return the process id of the script, and the lines that it has written."""
    given = {name: value for name, value in os.environ.items() if name != VARIABLE}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "an argument"],
        env=given | variables,
        stdout=subprocess.PIPE,
        text=True,
    )
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    return process.pid, output.splitlines()


def test_process_begins_anew_once_under_its_own_id_with_its_arguments() -> None:
    pid, lines = began()
    assert lines == ["begins", "begins", f"{pid} {TUNABLE}=1000 ['an argument']"]


def test_tunables_of_the_user_are_kept() -> None:
    pid, lines = began(GLIBC_TUNABLES="glibc.malloc.check=0")
    assert lines[-1] == f"{pid} glibc.malloc.check=0:{TUNABLE}=1000 ['an argument']"


def test_number_of_the_user_stays_and_nothing_begins_anew() -> None:
    pid, lines = began(GLIBC_TUNABLES=f"{TUNABLE}=1")
    assert lines == ["begins", f"{pid} {TUNABLE}=1 ['an argument']"]


@pytest.mark.parametrize("library", ["glibc 2.29", "musl 1.2", None])
def test_other_library_leaves_the_process_as_it_is(
    monkeypatch: pytest.MonkeyPatch, library: str | None
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(os, "confstr", lambda _name: library)
    keep_freed_memory()
    assert VARIABLE not in os.environ


def test_system_without_the_name_leaves_the_process_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(_name: str) -> str:
        msg = "unrecognized configuration name"
        raise ValueError(msg)

    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(os, "confstr", unknown)
    keep_freed_memory()
    assert VARIABLE not in os.environ
