"""Commands whose standard streams are closed, full, or read by nobody: one line or none, a code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from bytewax.recovery import init_db_dir

from dataflows.settings_sources import environment
from tests.support.broker import ROOT

# As a user runs Python, and as a container does.
BUFFERED = pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}])
WRITES = pytest.mark.parametrize("arguments", ["--version", "--help", "config show --json"])
NOWHERE = "config check --config /nowhere"
Variables = dict[str, str]


def shell(script: str, variables: Variables, *passed: int) -> subprocess.CompletedProcess[str]:
    """Run a script in which `heartwheel` is the command, and pass it what is open by number."""
    inherited = {name: value for name, value in environment().items() if name != "PYTHONUNBUFFERED"}
    function = f'heartwheel() {{ "{sys.executable}" -m heartwheel "$@"; }}; '
    return subprocess.run(
        ["bash", "-c", function + script],
        cwd=ROOT, env=inherited | variables, capture_output=True, text=True, check=False,
        pass_fds=passed,
    )  # fmt: skip


@BUFFERED
@WRITES
def test_reader_that_has_gone_ends_a_command_without_a_word(
    arguments: str, variables: Variables
) -> None:
    """Such as `head`, which has seen enough."""
    reads, writes = os.pipe()
    os.close(reads)
    try:
        done = shell(f"heartwheel {arguments} >&{writes}", variables, writes)
    finally:
        os.close(writes)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


@BUFFERED
@WRITES
@pytest.mark.parametrize(
    ("stream", "says"), [(">&-", "standard output is closed"), (">/dev/full", "make room")]
)
def test_output_that_cannot_be_written_is_one_line(
    arguments: str, variables: Variables, stream: str, says: str
) -> None:
    """Whoever asked for it must not take it for done."""
    done = shell(f"heartwheel {arguments} {stream}", variables)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("heartwheel: standard output")
    assert says in done.stderr


@BUFFERED
@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", "<&- >&- 2>&-"])
def test_error_that_nobody_can_read_still_has_its_exit_code(
    streams: str, variables: Variables
) -> None:
    """And is told nowhere else."""
    done = shell(f"heartwheel {NOWHERE} {streams}", variables)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_file_of_a_command_never_gets_the_number_of_a_closed_stream() -> None:
    """Else what C and Rust write to standard error would be in it."""
    program = (
        "import sys; from heartwheel.standard_streams import prepare; prepare(); "
        "sys.exit(open('/dev/null').fileno() <= 2 or bool(sys.stdin.read()))"
    )
    assert shell(f'"{sys.executable}" -c "{program}" <&- >&- 2>&-', {}).returncode == 0


def test_bytes_that_are_no_text_in_a_path_are_shown_escaped(tmp_path: Path) -> None:
    """What was done was done: it must not end with an error."""
    (tmp_path / "store").mkdir()
    init_db_dir(tmp_path / "store", 1)
    done = shell(f"heartwheel store copy {tmp_path}/store {tmp_path}/$'\\xff'", {})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\\udcff\n")


def test_terminal_without_the_letters_gets_them_escaped() -> None:
    """A table has lines, and an id may be of any script."""
    variables = {"PYTHONIOENCODING": "ascii", "HEARTWHEEL_RECOVERY_DIR": "\u00e4"}
    shown = shell("heartwheel config show", variables)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "\\xe4" in shown.stdout
