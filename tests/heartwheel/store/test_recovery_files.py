"""Stores with a part that is missing, cut short, there twice or of another moment."""

import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from heartwheel.process import prepare_recovery
from heartwheel.store.recovery_files import Recovery
from session_logic.errors import SnapshotError
from tests.support.flow import SETTINGS, history, run
from tests.support.stores import Command, execute, make


def cut(size: int) -> Callable[[Path], None]:
    """Return what cuts part 1 to a size."""
    return lambda store: os.truncate(store / "part-1.sqlite3", size)


def replace(data: bytes) -> Callable[[Path], object]:
    """Return what overwrites part 1."""
    return lambda store: (store / "part-1.sqlite3").write_bytes(data)


def foreign(store: Path) -> None:
    """Put another program's database in place of part 1."""
    (store / "part-1.sqlite3").unlink()
    execute(store / "part-1.sqlite3", "CREATE TABLE a (b)")


def other_count(store: Path) -> None:
    """Put a part of a store of one part in place of part 1."""
    other = make(store.parent / "other", 1, 5)
    shutil.copy(other / "part-0.sqlite3", store / "part-1.sqlite3")


def later(store: Path) -> None:
    """Put part 1 of a store that has gone on for longer in place of part 1."""
    other = make(store.parent / "other", 2, 200)
    shutil.copy(other / "part-1.sqlite3", store / "part-1.sqlite3")


def twice(store: Path) -> None:
    """Leave an old copy of a part in the directory."""
    shutil.copy(store / "part-1.sqlite3", store / "old.sqlite3")


def directory(store: Path) -> None:
    """Put a directory in place of part 1."""
    (store / "part-1.sqlite3").unlink()
    (store / "part-1.sqlite3").mkdir()


INSERT = "INSERT INTO snaps VALUES (CURRENT_TIMESTAMP, ?, ?, 1, ?)"
LARGE = 1_000_000
MARK = b"the end of a value"


def torn(store: Path) -> None:
    """Break the chain of pages that a large value in part 1 has."""
    part = store / "part-1.sqlite3"
    execute(part, INSERT, "heartwheel.store", "base-255", bytes(LARGE) + MARK)
    data = bytearray(part.read_bytes())
    page = int.from_bytes(data[16:18], "big")
    before_last = data.index(MARK) // page * page - page
    data[before_last : before_last + 4] = b"\x7f\xff\xff\xff"  # which page comes next
    part.write_bytes(data)


CUT = r"part-1\.sqlite3 cannot be read \(database disk image is malformed\)"
HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda store: (store / "part-1.sqlite3").unlink(), r"part-1\.sqlite3 of 2 is miss"),
    "first missing": (
        lambda store: (store / "part-0.sqlite3").unlink(),
        "part-0.* of 2 is missing",
    ),
    "empty": (cut(0), r"part-1\.sqlite3 is empty"),
    "cut at a page": (cut(16_384), CUT),
    "cut in a page": (cut(20_000), CUT),
    "cut in the header": (cut(50), r"part-1\.sqlite3 is no part of a store"),
    "garbage": (replace(random.Random(1).randbytes(8_192)), r"part-1.* \(file is not a database\)"),
    "text": (replace(b"hello"), r"part-1\.sqlite3 cannot be read"),
    "directory": (directory, r"part-1\.sqlite3 is empty or no file"),
    "other program": (foreign, r"part-1\.sqlite3 is no part of a store"),
    "newer tables": (
        lambda store: execute(store / "part-1.sqlite3", "PRAGMA user_version = 6"),
        r"part-1\.sqlite3 is of a newer Bytewax \(tables of version 6, not 5\)",
    ),
    "other count": (other_count, r"part-0\.sqlite3 and part-1\.sqlite3 are the same part"),
    "later": (later, r"part-\d\.sqlite3 was committed up to epoch"),
    "twice": (twice, r"old\.sqlite3 and part-1\.sqlite3 are the same part"),
}


@pytest.mark.parametrize("harm", HARM)
def test_store_that_is_not_whole_stops_run_and_check_with_the_name_of_the_file(
    harm: str, store: Path, command: Command
) -> None:
    """One line and exit code 1, before anything is started or connected to."""
    do, text = HARM[harm]
    do(store)
    for code, output in (command.run(store), command("store", "check", store)):
        assert code == 1
        (line,) = [line for line in output.splitlines() if line.startswith("heartwheel: ")]
        assert re.search(text, line), line


def test_value_that_is_damaged_stops_what_would_go_on_with_the_store_before_it_connects(
    store: Path, command: Command
) -> None:
    """In a run Bytewax would panic, with the lease taken."""
    torn(store)
    for code, output in (command.run(store), command("store", "skip", store)):
        assert code == 1
        (line,) = [line for line in output.splitlines() if line.startswith("heartwheel: ")]
        assert re.search(CUT, line)
    code, output = command("store", "check", store)
    assert code == 1
    assert "heartwheel.store base-255 (epoch 1): the stored value cannot be read" in output


def test_store_that_sqlite_may_not_open_is_not_called_damaged(
    store: Path, command: Command
) -> None:
    """Here as SQLite cannot have its log, which is so for another user as well."""
    (store / "part-0.sqlite3-wal").mkdir()
    code, output = command("store", "check", store, "--offline")
    assert code == 2
    assert f"{store / 'part-0.sqlite3'} cannot be opened (" in output
    assert "restore" not in output


def test_other_number_of_lanes_stops_a_run_before_it_connects(
    store: Path, command: Command
) -> None:
    """What fixes stored state is read first; the line says which command to use."""
    code, output = command.run(store, lanes=8)
    assert code == 2
    assert "recovery store was made for 4" in output
    assert "heartwheel store migrate --lanes 8" in output
    settings = structs.replace(SETTINGS, recovery_dir=str(store), recovery_parts=7)
    assert prepare_recovery(settings, first=True) == store
    assert len(list(store.glob("*.sqlite3"))) == 2


@pytest.mark.parametrize(
    "index", [0, 1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3))]
)
def test_part_of_an_earlier_moment_is_refused(index: int, tmp_path: Path) -> None:
    """A part restored alone would bring back old sessions, whatever part it is."""
    store = make(tmp_path / "store", 4, 20)
    part = store / f"part-{index}.sqlite3"
    old = part.read_bytes()
    run(history(150), store, [])
    part.write_bytes(old)
    with pytest.raises(SnapshotError, match=r"part-\d.sqlite3 was committed up to epoch"):
        Recovery(store)


def test_where_values_are_is_told_without_reading_them(tmp_path: Path) -> None:
    """A start asks several times, and all sessions are in them."""
    store = make(tmp_path / "store", 1, 5)
    for number in range(8):
        execute(store / "part-0.sqlite3", INSERT, "step", f"key-{number}", bytes(LARGE))
    with Recovery(store) as recovery:
        before = bytes_read()
        entries = [entry for entry in recovery.entries().values() if entry.step == "step"]
        assert bytes_read() - before < LARGE
    assert [entry.bytes for entry in entries] == [LARGE] * 8


def bytes_read() -> int:
    """Return how many bytes this process has read so far, from files and elsewhere."""
    return int(re.findall(r"rchar: (\d+)", Path("/proc/self/io").read_text())[0])
