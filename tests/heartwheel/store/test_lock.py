"""The lock on a recovery directory, and what only its holder can know."""

import shutil
from pathlib import Path

import pytest

from heartwheel.store import lock as lock_module
from heartwheel.store.lock import LOCK_FILE, StoreLock


def test_place_stays_for_as_long_as_the_system_runs(tmp_path: Path) -> None:
    """Whoever has the same lock later knows that the holder is dead."""
    first, second = StoreLock(tmp_path, 0), StoreLock(tmp_path, 0)  # a process has its locks once
    assert (first.store, first.place) == (second.store, second.place)


def test_copy_of_a_directory_has_the_name_and_another_place(tmp_path: Path) -> None:
    """So its lock proves nothing about a run on the original."""
    (tmp_path / "original").mkdir()
    original = StoreLock(tmp_path / "original", 0)
    shutil.copytree(tmp_path / "original", tmp_path / "copy")
    copy = StoreLock(tmp_path / "copy", 0)
    assert copy.store == original.store
    assert copy.place != original.place


def test_directory_that_was_moved_is_the_same_place(tmp_path: Path) -> None:
    """It is the same file, and whoever had its lock has it still."""
    (tmp_path / "before").mkdir()
    before = StoreLock(tmp_path / "before", 0)
    (tmp_path / "before").rename(tmp_path / "after")
    assert StoreLock(tmp_path / "after", 0).place == before.place


@pytest.mark.parametrize("boot", ["another boot", None])
def test_system_that_was_started_again_is_another_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, boot: str | None
) -> None:
    """Another machine may have the volume; where the boot has no name, each start is another."""
    before = StoreLock(tmp_path, 0)
    file = tmp_path / "boot"
    if boot is not None:
        file.write_text(f"{boot}\n")
    monkeypatch.setattr(lock_module, "BOOT_ID", file)
    assert StoreLock(tmp_path, 0).place != before.place
    assert (tmp_path / LOCK_FILE).read_text() == before.store
