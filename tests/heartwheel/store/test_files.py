"""Files of a store that do not stay where they are."""

import logging
import shutil
import time
from pathlib import Path

import pytest

from heartwheel.store import files
from heartwheel.store.files import StoreFiles
from session_logic.errors import SnapshotError

PARTS = ("part-0.sqlite3", "part-1.sqlite3")
WORDS = "was moved, replaced or deleted while a run had it"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a directory with two partitions."""
    made = tmp_path / "store"
    made.mkdir()
    for part in PARTS:
        (made / part).write_text("rows")
    return made


def test_files_that_are_written_to_are_in_their_place(folder: Path) -> None:
    """New ones beside them are none of the run's."""
    store = StoreFiles(folder)
    (folder / PARTS[0]).write_text("more rows")
    (folder / "part-0.sqlite3-wal").write_text("log")
    store.release()


def test_directory_that_was_moved_and_moved_back_is_in_its_place(folder: Path) -> None:
    """Meanwhile it is not, also if a copy lies there."""
    store, away = StoreFiles(folder), folder.with_name("away")
    folder.rename(away)
    shutil.copytree(away, folder)
    with pytest.raises(SnapshotError, match=rf"{WORDS} \({PARTS[0]}, {PARTS[1]}\): move it back"):
        store.check()
    shutil.rmtree(folder)
    away.rename(folder)
    store.check()


def test_file_that_was_deleted_is_told_in_the_log_until_the_stop(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Again and again, as long as it can be saved; the stop fails."""
    monkeypatch.setattr(files, "LOOK_S", 0.01)
    store = StoreFiles(folder)
    store.watch()
    (folder / PARTS[1]).unlink()
    deadline_s = time.monotonic() + 10
    while len(caplog.records) < 2:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    assert {record.levelno for record in caplog.records} == {logging.ERROR}
    assert "copied from /proc/PID/fd" in caplog.records[0].msg["event"]  # type: ignore[attr-defined]
    with pytest.raises(SnapshotError, match=PARTS[1]):
        store.release()
