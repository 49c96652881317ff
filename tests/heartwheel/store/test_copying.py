"""Stores inspected and copied, and none that is in use is harmed."""

import fcntl
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from heartwheel.store.copying import copy_store
from heartwheel.store.part_file import StoreInUseError
from tests.support.broker import ROOT
from tests.support.command import limited, one_line, python
from tests.support.disk import BLOCK, fill, small_disk
from tests.support.fixture_stores import sessions
from tests.support.stores import Command


def holding(store: Path) -> subprocess.Popen[str]:
    """Start a process that has a part open as Bytewax has it."""
    code = (
        "import sqlite3, sys\n"
        f"db = sqlite3.connect({str(store / 'part-0.sqlite3')!r})\n"
        "db.execute('PRAGMA journal_mode = WAL'); db.execute('SELECT * FROM parts').fetchall()\n"
        "print('open', flush=True); sys.stdin.read()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip


@pytest.mark.parametrize("arguments", [["copy"], ["migrate", "--lanes", 2]])
def test_copy_to_a_full_disk_is_one_line_and_leaves_nothing(
    store: Path, tmp_path: Path, command: Command, arguments: list[object]
) -> None:
    """Whether SQLite tells Python of it or Bytewax."""
    with small_disk(tmp_path / "disk", 1) as disk:
        leave_room(disk)
        code, output = command("store", *arguments, store, disk / "new")
        assert [one.name for one in disk.iterdir()] == ["ballast"]
    assert code == 1
    (line,) = [line for line in output.splitlines() if line.startswith("heartwheel: ")]
    assert line.startswith(f"heartwheel: {disk / 'new'} cannot be made (d")
    assert "make room on its disk" in line


def test_target_below_a_file_is_one_line(store: Path, tmp_path: Path, command: Command) -> None:
    """The file stays as it is."""
    (tmp_path / "file").write_text("kept")
    code, output = command("store", "copy", store, tmp_path / "file" / "new")
    assert code == 2
    assert output.count("\n") == 1
    assert "new cannot be made: " in output
    assert "; name one where this user can write" in output
    assert (tmp_path / "file").read_text() == "kept"


def test_new_store_on_a_full_disk_is_one_line(tmp_path: Path, command: Command) -> None:
    """It does not say that anything is damaged."""
    with small_disk(tmp_path / "disk", 1) as disk:
        leave_room(disk)
        code, output = command.run(disk / "recovery")
    assert code == 2
    (line,) = [line for line in output.splitlines() if line.startswith("heartwheel: ")]
    assert "make room" in line
    assert "restore" not in line


def leave_room(disk: Path) -> None:
    """Fill a disk but for some blocks: for directories, and not for a store."""
    ballast = fill(disk)
    os.truncate(ballast, ballast.stat().st_size - 4 * BLOCK)


def test_store_in_use_is_inspected_but_not_copied_or_migrated(
    store: Path, tmp_path: Path, command: Command
) -> None:
    """A process that has a part open is seen, whether it holds the lock file or not."""
    with holding(store) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        assert command("store", "inspect", store)[0] == 0
        for arguments in (
            ("copy", store, tmp_path / "new"),
            ("migrate", store, tmp_path / "new", "--lanes", 2),
        ):
            code, output = command("store", *arguments)
            assert code == 1
            assert "part-0.sqlite3 is open in another process" in output
        assert process.communicate()[1] is None
    assert command("store", "copy", store, tmp_path / "new")[0] == 0


def test_copy_with_too_few_files_names_the_limit(store: Path, tmp_path: Path) -> None:
    """And sends nobody to look for room on a disk."""
    code = (
        "import os, sys\n"
        "from heartwheel.store import copying\n"
        "whole = copying.copy_parts\n"
        "def few(*given):\n"
        "    import resource\n"
        "    taken = os.open(os.devnull, os.O_RDONLY)\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (taken + 1, taken + 1))\n"
        "    whole(*given)\n"
        "copying.copy_parts = few\n"
        f"sys.argv = ['heartwheel', 'store', 'copy', {str(store)!r}, {str(tmp_path / 'new')!r}]\n"
        "from heartwheel.cli import main; main()"
    )
    one_line(python("-c", code), 1, "needs more open files than its limit", "`ulimit -n`")
    assert not (tmp_path / "new").exists()


def test_copy_beyond_the_limit_of_the_size_of_files_names_it(store: Path, tmp_path: Path) -> None:
    """SQLite says `disk I/O error`, and there is room on the disk."""
    done = limited(8192, "store", "copy", str(store), str(tmp_path / "new"))
    one_line(done, 1, "or raise the limit of 8192 bytes a file (`ulimit -f`)")
    assert not (tmp_path / "new").exists()


def test_lock_file_that_is_held_refuses_a_copy(store: Path, tmp_path: Path) -> None:
    """The lock of a run counts as well, even where it has no part open yet."""
    with (store / "heartwheel.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreInUseError, match=r"heartwheel\.lock"):
            copy_store(store, tmp_path / "new")
    copy_store(store, tmp_path / "new")


def test_copy_has_what_was_only_in_the_log(store: Path, tmp_path: Path, command: Command) -> None:
    """A killed run leaves a log beside its files; the copy needs none, and resumes the same."""
    with closing(sqlite3.connect(store / "part-0.sqlite3")) as db:
        with db:
            db.execute("UPDATE parts SET created_at = 'in the log'")
        assert list(store.glob("*-wal"))
        shutil.copytree(store, tmp_path / "killed")
    assert command("store", "copy", tmp_path / "killed", tmp_path / "copy")[0] == 0
    assert sorted(p.name for p in (tmp_path / "copy").iterdir()) == [
        "part-0.sqlite3",
        "part-1.sqlite3",
    ]
    with closing(sqlite3.connect(tmp_path / "copy" / "part-0.sqlite3")) as db:
        assert db.execute("SELECT created_at FROM parts").fetchone() == ("in the log",)
    assert command("store", "check", tmp_path / "copy", "--offline")[0] == 0
    code, output = command("store", "copy", store, tmp_path / "copy")
    assert code == 2
    assert "exists" in output


def test_inspect_says_what_is_there(store: Path, command: Command) -> None:
    """The JSON has every number; the plain text is for people and has the same ones."""
    code, output = command("store", "inspect", store, "--json")
    assert code == 0
    summary = json.loads(output)
    assert (summary["lane_count"], summary["groups"], summary["resume_epoch"]) == (4, 256, 42)
    assert summary["source"] == {"iterable": 40}
    assert sum(lane["active"] for lane in summary["lanes"]) == len(sessions())
    code, output = command("store", "inspect", store)
    assert code == 0
    for lane in summary["lanes"]:
        assert re.search(rf"{lane['lane']} +{lane['active']} +{lane['remembered']} ", output)


def test_empty_directory_holds_no_store(tmp_path: Path, command: Command) -> None:
    """A wrong directory is a wrong setting."""
    for name in ("inspect", "check"):
        code, output = command("store", name, tmp_path)
        assert code == 2
        assert "holds no recovery store" in output
