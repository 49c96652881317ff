"""Backups: a copy of one moment of a store that is written to, checked, or nothing at all."""

import fcntl
import os
from pathlib import Path

import pytest

from heartwheel.store import recovery_files
from heartwheel.store.backup import back_up
from heartwheel.store.part_file import Part, StoreInUseError
from heartwheel.store.recovery_files import Recovery
from session_logic.errors import ConfigError, SnapshotError
from tests.support.disk import BLOCK, fill, small_disk
from tests.support.flow import SETTINGS, history, run
from tests.support.stores import Command, active, execute, make

RULES = SETTINGS.rules()


def write_round(store: Path, number: int) -> None:
    """Commit to one part after the other, as a run does."""
    for part in sorted(store.glob("*.sqlite3")):
        execute(part, "UPDATE parts SET created_at = ?", number)


@pytest.fixture
def busy_store(store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a store to which a run commits while its parts are being opened, three times."""
    write_round(store, 0)
    begin, left = Part.begin, [3, 2, 1]

    def begin_late(self: Part) -> None:
        begin(self)
        if self.index == 0 and left:
            write_round(store, left.pop())

    monkeypatch.setattr(Part, "begin", begin_late)
    return store


def rounds(folder: Path) -> list[int]:
    """Return the round of commits that each part of a store has."""
    with Recovery(folder) as recovery:
        return [
            int(number)
            for part in recovery.parts
            for (number,) in part.rows("SELECT created_at FROM parts")
        ]


def test_backup_has_the_sessions_and_nothing_beside_the_parts(
    store: Path, tmp_path: Path, command: Command
) -> None:
    """The store itself stays as it is, and goes on."""
    before = active(store)
    target = tmp_path / "backups" / "one"
    code, output = command("store", "backup", target, "--store", store)
    assert (code, output[: output.index(", as of ")]) == (0, f"backed up {store} to {target}")
    assert sorted(p.name for p in target.iterdir()) == ["part-0.sqlite3", "part-1.sqlite3"]
    assert [p.name for p in target.parent.iterdir()] == ["one"]
    assert active(target) == active(store) == before != {}
    run(history(60), target, [])


def test_backup_is_of_the_store_of_the_settings(
    store: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for every command that looks at a store."""
    monkeypatch.setenv("HEARTWHEEL_RECOVERY_DIR", str(store))
    assert command("store", "backup", tmp_path / "one")[0] == 0
    assert active(tmp_path / "one") == active(store)


def test_lock_of_a_run_does_not_hinder_a_backup(store: Path, tmp_path: Path) -> None:
    """It is what backups are for."""
    with (store / "heartwheel.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        back_up(store, tmp_path / "one", RULES)
    assert active(tmp_path / "one") == active(store)


def test_parts_of_a_backup_are_of_one_moment(busy_store: Path, tmp_path: Path) -> None:
    """What a run commits between the first and the last part is in all of them, or in none."""
    back_up(busy_store, tmp_path / "one", RULES)
    assert rounds(tmp_path / "one") == [3, 3]


def test_store_that_is_written_to_all_the_while_is_told_in_one_line(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while, and nothing is left; a store of one part has a moment at any time."""
    monkeypatch.setattr(recovery_files, "MOMENT_S", 0.1)
    versions = iter(range(1_000_000))
    monkeypatch.setattr(Part, "version", lambda _: next(versions))
    with pytest.raises(StoreInUseError, match="its 2 parts cannot be read as of one moment"):
        back_up(store, tmp_path / "one", RULES)
    assert [p.name for p in tmp_path.iterdir()] == ["store"]
    one = make(tmp_path / "other", 1, 20)
    back_up(one, tmp_path / "one", RULES)


def test_reader_sees_one_moment_while_parts_are_written_to(busy_store: Path) -> None:
    """As the other commands that look at the store of a run do."""
    assert rounds(busy_store) == [3, 3]


def test_target_that_exists_is_refused(store: Path, tmp_path: Path, command: Command) -> None:
    """Whatever it is, it stays."""
    (tmp_path / "one").mkdir()
    code, output = command("store", "backup", tmp_path / "one", "--store", store)
    assert code == 2
    assert f"{tmp_path / 'one'} exists; name a directory that does not" in output
    assert list((tmp_path / "one").iterdir()) == []


def test_target_that_came_meanwhile_stays(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two backups of the same name: the second one says so, and leaves nothing."""
    target = tmp_path / "one"
    original = Recovery.close

    def close(self: Recovery) -> None:
        target.mkdir(exist_ok=True)
        (target / "other").touch()
        original(self)

    monkeypatch.setattr(Recovery, "close", close)
    with pytest.raises(ConfigError, match="one cannot be made: Directory not empty"):
        back_up(store, target, RULES)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "store"]
    assert [p.name for p in target.iterdir()] == ["other"]


def test_full_disk_is_one_line_and_leaves_nothing(
    store: Path, tmp_path: Path, command: Command
) -> None:
    """Neither a directory of another name."""
    with small_disk(tmp_path / "disk", 1) as disk:
        ballast = fill(disk)
        os.truncate(ballast, ballast.stat().st_size - 4 * BLOCK)
        code, output = command("store", "backup", disk / "one", "--store", store)
        assert [one.name for one in disk.iterdir()] == ["ballast"]
    assert code == 1
    (line,) = [line for line in output.splitlines() if line.startswith("heartwheel: ")]
    assert line.startswith(f"heartwheel: {disk / 'one'} cannot be made (d")
    assert active(store)


@pytest.mark.parametrize(
    ("harm", "text"),
    [
        ("DELETE FROM snaps WHERE state_key LIKE 'journal-%'", "missing; no backup was made"),
        ("UPDATE snaps SET ser_change = x'00' WHERE state_key LIKE 'base-%'", "cannot be read"),
        ("UPDATE snaps SET ser_change = x'00' WHERE state_key = 'lane-000'", "cannot be read"),
    ],
)
def test_backup_of_a_damaged_store_is_refused_with_its_fault(
    harm: str, text: str, store: Path, tmp_path: Path
) -> None:
    """A backup that no start can use is worse than none; the line names the store's own file."""
    for part in store.glob("*.sqlite3"):
        execute(part, harm)
    with pytest.raises(SnapshotError, match=text) as error:
        back_up(store, tmp_path / "backups" / "new" / "one", RULES)
    assert str(error.value).startswith(str(store))
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


def test_store_without_a_snapshot_is_not_backed_up(tmp_path: Path, command: Command) -> None:
    """It holds nothing to put back, neither sessions nor where the input was read up to."""
    empty = make(tmp_path / "empty", 1, 20)
    execute(empty / "part-0.sqlite3", "DELETE FROM snaps")
    code, output = command("store", "backup", tmp_path / "one", "--store", empty)
    assert code == 1
    assert f"{empty} holds no sessions yet; back it up once a run has taken" in output
    code, output = command("store", "backup", tmp_path / "one", "--store", tmp_path / "none")
    assert code == 2
    assert "holds no recovery store" in output
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]
