"""The recovery directory before a start: what is wrong is one line that says what to do next."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

import pytest
from bytewax.recovery import init_db_dir

from dataflows.settings import Settings
from dataflows.settings_sources import environment
from heartwheel.store.contents import Contents
from heartwheel.store.lock import LOCK_FILE
from heartwheel.store.new_parts import is_unused
from heartwheel.store.prepare import UNFINISHED, prepare_recovery
from heartwheel.store.recovery_files import Recovery
from session_logic.errors import ConfigError, SnapshotError
from tests.support.broker import ROOT
from tests.support.disk import fill, small_disk
from tests.support.errors import one_line
from tests.support.shard_stores import LANES, make_shard

NOBODY = 65534
WHOLE = ["part-0.sqlite3", "part-1.sqlite3", "part-2.sqlite3"]
# Kills so many starts in a row at their first step, then others in another directory at their
# second, and so on until one gets by. A step is whatever Python does to a file or a directory.
KILLED_STARTS = """
import itertools, os, sys
from dataflows.settings import Settings
from heartwheel.store.prepare import prepare_recovery

def start(folder, step):
    steps = itertools.count(1)
    def kill(event, arguments):
        if any(folder in str(one) for one in arguments) and next(steps) == step:
            os._exit(9)
    child = os.fork()
    if not child:
        sys.addaudithook(kill)
        prepare_recovery(Settings(recovery_dir=folder, recovery_parts=3), first=True)
        os._exit(0)
    return os.waitpid(child, 0)[1] != 0

for step in itertools.count(1):
    folder = f"{sys.argv[1]}/{step}/recovery"
    if not [start(folder, step) for _ in range(int(sys.argv[2]))][0]:
        break
"""


def a_file(folder: Path) -> Path:
    """Return a path at which there is a file."""
    path = folder / "file"
    path.touch()
    return path


@pytest.mark.parametrize("make", [a_file, lambda folder: a_file(folder) / "below"])
def test_recovery_dir_that_cannot_be_one_is_one_line(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    """A file in the place of a directory, or of one above it."""
    with pytest.raises(ConfigError) as error:
        prepare_recovery(Settings(recovery_dir=str(make(tmp_path))), first=True)
    one_line(error, "HEARTWHEEL_RECOVERY_DIR", str(tmp_path), "can write to")


def test_command_with_a_file_as_recovery_dir_exits_with_2_and_one_line(tmp_path: Path) -> None:
    """The whole way through the command; no broker is asked before."""
    done = subprocess.run(
        [sys.executable, "-m", "heartwheel.cli", "run"],
        env=environment()
        | {
            "HEARTWHEEL_RECOVERY_DIR": str(a_file(tmp_path)),
            "HEARTWHEEL_LOG_FORMAT": "text",
            "HEARTWHEEL_HTTP_PORT": "0",
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("heartwheel: HEARTWHEEL_RECOVERY_DIR")
    assert done.stderr.count("\n") == 1


@pytest.fixture
def others_folder() -> Iterator[Path]:
    """Return a store that this user may read; root becomes another user for that."""
    folder = Path(tempfile.mkdtemp())
    init_db_dir(folder, 1)
    folder.chmod(0o555)
    (folder / "part-0.sqlite3").chmod(0o444)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    yield folder
    if root:
        os.seteuid(0)
    folder.chmod(0o700)
    shutil.rmtree(folder)


def test_read_only_recovery_dir_is_one_line(others_folder: Path) -> None:
    """A store can be read but not written to."""
    with pytest.raises(ConfigError) as error:
        prepare_recovery(Settings(recovery_dir=str(others_folder)), first=True)
    one_line(error, "HEARTWHEEL_RECOVERY_DIR", "Permission denied", "can write to")


def test_read_only_partition_is_one_line(others_folder: Path) -> None:
    """A directory that anybody may write to, with a partition that belongs to somebody else."""
    euid = os.geteuid()
    os.seteuid(os.getuid())
    others_folder.chmod(0o777)
    os.seteuid(euid)
    with pytest.raises(ConfigError) as error:
        prepare_recovery(Settings(recovery_dir=str(others_folder)), first=True)
    one_line(error, "HEARTWHEEL_RECOVERY_DIR", "Permission denied", "can write to")


@pytest.mark.parametrize("damage", [lambda _data: b"", lambda data: data[:6_000], bytes.swapcase])
def test_damaged_partition_is_one_line(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """Empty, cut off or garbage: never taken for a new store."""
    init_db_dir(tmp_path, 1)
    part = tmp_path / "part-0.sqlite3"
    part.write_bytes(damage(part.read_bytes()))
    with pytest.raises(SnapshotError) as error:
        prepare_recovery(Settings(recovery_dir=str(tmp_path)), first=True)
    one_line(error, str(part), "restore an intact copy")


@pytest.mark.parametrize("killed", [True, False])
def test_part_of_another_shard_is_one_line(tmp_path: Path, *, killed: bool) -> None:
    """Its partitions would be unknown to Bytewax, and those of the part that is missing be lost."""
    own, other = (
        make_shard(tmp_path / str(number), number, killed=killed, parts=2) for number in (1, 2)
    )
    settings = Settings(recovery_dir=str(own), lanes=LANES, route="partition", shard="1/4")
    prepare_recovery(settings, first=True)
    shutil.copy(other / "part-1.sqlite3", own)
    with pytest.raises(SnapshotError) as error:
        prepare_recovery(settings, first=True)
    one_line(error, "part-1.sqlite3", "of another shard than 1/4", "restore an intact copy")
    with Recovery(own) as recovery:
        faults = list(Contents(recovery, settings.rules()).faults())
    assert any("of another shard than 1/4" in fault for fault in faults)


def test_whole_store_is_left_as_it_is(tmp_path: Path) -> None:
    """The check changes nothing, and makes what is missing."""
    folder = tmp_path / "new" / "recovery"
    settings = Settings(recovery_dir=str(folder), recovery_parts=2)
    assert prepare_recovery(settings, first=True) == folder
    before = {path.name: path.read_bytes() for path in folder.glob("*.sqlite3")}
    assert sorted(before) == ["part-0.sqlite3", "part-1.sqlite3"]
    prepare_recovery(settings, first=True)
    assert {path.name: path.read_bytes() for path in folder.glob("*.sqlite3")} == before


def test_other_process_with_an_empty_directory_goes_on(tmp_path: Path) -> None:
    """The store is process 0's; what the others need of it comes to them through Bytewax."""
    settings = Settings(recovery_dir=str(tmp_path / "own"))
    assert prepare_recovery(settings, first=False) == tmp_path / "own"
    assert list((tmp_path / "own").iterdir()) == []


def test_other_process_with_partitions_of_its_own_is_one_line(tmp_path: Path) -> None:
    """Bytewax would take them for parts of process 0's store, whatever is in them."""
    settings = Settings(recovery_dir=str(tmp_path), restore_timeout_ms=200)
    prepare_recovery(settings, first=True)
    with pytest.raises(ConfigError) as error:
        prepare_recovery(settings, first=False)
    one_line(error, str(tmp_path), "process 0 does not use", "same directory")


@contextmanager
def beside(
    code: str, folder: Path
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes], IO[bytes]]]:
    """Yield a process that runs code on a directory, its output, and its input to be closed."""
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdin is not None
    assert other.stdout is not None
    with other:
        yield other, other.stdout, other.stdin


def test_other_process_sees_the_store_once_the_first_has_it(tmp_path: Path) -> None:
    """Processes of one machine may share a directory: the others wait for the first."""
    settings = Settings(recovery_dir=str(tmp_path))
    code = (
        "import sys, time; from pathlib import Path;"
        "from heartwheel.store.prepare import prepare_recovery;"
        "from dataflows.settings import Settings; from heartwheel.store.lock import StoreLock;"
        "folder = prepare_recovery(Settings(recovery_dir=sys.argv[1]), first=True);"
        "time.sleep(0.5); lock = StoreLock(folder, 0); print(flush=True); sys.stdin.read()"
    )
    with beside(code, tmp_path) as (first, said, until):
        while not any(tmp_path.glob("*.sqlite3")):
            assert first.poll() is None
            time.sleep(0.01)
        assert prepare_recovery(settings, first=False) == tmp_path
        assert said.readline() == b"\n"  # it has got the lock that was waited for
        until.close()
    assert first.returncode == 0


def store_in(folder: Path) -> list[str]:
    """Start with a directory; return what is in it then, but for the lock and SQLite's logs."""
    prepare_recovery(Settings(recovery_dir=str(folder), recovery_parts=3), first=True)
    names = [one.name for one in folder.iterdir() if one.name != LOCK_FILE]
    return sorted(name for name in names if not name.endswith(("-wal", "-shm")))


@pytest.mark.parametrize("kills", [1, 3])
def test_start_after_kills_at_any_step_has_a_whole_store(tmp_path: Path, kills: int) -> None:
    """Nothing else is left, wherever the kills came."""
    command = [sys.executable, "-c", KILLED_STARTS, str(tmp_path), str(kills)]
    subprocess.run(command, cwd=ROOT, check=True)
    folders = [folder / "recovery" for folder in tmp_path.iterdir()]
    # Directories made, looked at and removed, parts opened, moved and removed.
    assert len(folders) > 20
    moved = [[*folder.glob("*.sqlite3")] for folder in folders if (folder / UNFINISHED).exists()]
    assert {len(parts) for parts in moved} >= ({0, 1, 2, 3} if kills == 1 else {0, 1})
    for folder in folders:
        assert store_in(folder) == WHOLE
        with Recovery(folder) as recovery:
            assert len(recovery.parts) == len(WHOLE)


def unfinished(folder: Path) -> None:
    """Let a start have been killed when it had moved two of three parts."""
    assert store_in(folder) == WHOLE
    (folder / UNFINISHED).mkdir()
    (folder / WHOLE[2]).rename(folder / UNFINISHED / WHOLE[2])


def test_unfinished_store_that_was_looked_at_is_made_anew(tmp_path: Path) -> None:
    """Whoever reads a part leaves an index beside it, and an empty log."""
    unfinished(tmp_path)
    for log in ("wal", "shm"):
        (tmp_path / f"{WHOLE[0]}-{log}").touch()
    assert store_in(tmp_path) == WHOLE
    assert all(map(is_unused, tmp_path.glob("*.sqlite3")))


def test_unfinished_store_on_a_full_disk_goes_on_once_there_is_room(tmp_path: Path) -> None:
    """Until then each start says so."""
    with small_disk(tmp_path / "disk", 1) as disk:
        folder = disk / "recovery"
        unfinished(folder)
        (folder / WHOLE[0]).unlink()  # what there was took less room than a new store does
        ballast = fill(disk)
        for _ in range(2):
            with pytest.raises(ConfigError) as error:
                store_in(folder)
            one_line(error, "HEARTWHEEL_RECOVERY_DIR", "make room")
        ballast.unlink()
        assert store_in(folder) == WHOLE


def write_row(part: Path) -> None:
    """Write to a part as Bytewax does when a run begins."""
    with closing(sqlite3.connect(part)) as db, db:
        db.execute("INSERT INTO exs VALUES ('', 0, 1, 1)")


@pytest.mark.parametrize("used", WHOLE)
def test_store_that_was_used_stays_when_the_directory_of_its_making_is_there_again(
    tmp_path: Path, used: str
) -> None:
    """A loss of power may undo that it was removed."""
    assert store_in(tmp_path) == WHOLE
    write_row(tmp_path / used)
    before = {name: (tmp_path / name).read_bytes() for name in WHOLE}
    (tmp_path / UNFINISHED).mkdir()
    assert store_in(tmp_path) == WHOLE
    assert {name: (tmp_path / name).read_bytes() for name in WHOLE} == before


def test_used_store_that_lacks_a_part_is_one_line_and_stays(tmp_path: Path) -> None:
    """Also beside an unfinished one: whatever was used is never made anew."""
    unfinished(tmp_path)
    write_row(tmp_path / WHOLE[1])
    with pytest.raises(SnapshotError) as error:
        store_in(tmp_path)
    one_line(error, "part-2.sqlite3 of 3 is missing", "restore an intact copy")
    assert sorted(one.name for one in tmp_path.glob("*.sqlite3")) == WHOLE[:2]


@pytest.mark.parametrize(
    "harm",
    [
        "CREATE TABLE heartwheel_identity (id TEXT)",
        "DROP TABLE snaps",
        "DELETE FROM parts",
        "UPDATE parts SET part_index = 1",
        "INSERT INTO commits VALUES ('', 0, 1)",
    ],
)
def test_part_that_is_not_as_it_was_made_counts_as_used(tmp_path: Path, harm: str) -> None:
    """What somebody else has put there is not removed either."""
    store_in(tmp_path)
    part = tmp_path / WHOLE[0]
    assert is_unused(part)
    with closing(sqlite3.connect(part)) as db, db:
        db.execute(harm)
    assert not is_unused(part)


def test_part_with_a_log_and_garbage_count_as_used(tmp_path: Path) -> None:
    """Rows may be in the log alone, and what cannot be read may be anything."""
    store_in(tmp_path)
    (tmp_path / f"{WHOLE[0]}-wal").write_bytes(b"log")
    (tmp_path / WHOLE[1]).write_bytes(b"garbage" * 1_000)
    assert [is_unused(tmp_path / name) for name in WHOLE] == [False, False, True]


def test_start_waits_while_another_makes_the_parts(tmp_path: Path) -> None:
    """Two that are started at once would remove what the other makes."""
    code = (
        "import sys; from pathlib import Path; from heartwheel.store.lock import making_parts;"
        "making = making_parts(Path(sys.argv[1])); making.__enter__();"
        "print(flush=True); sys.stdin.read()"
    )
    with beside(code, tmp_path) as (_, said, until):
        assert said.readline() == b"\n"
        with ThreadPoolExecutor() as pool:
            start = pool.submit(store_in, tmp_path)
            assert not wait([start], 0.3).done
            assert not any(tmp_path.glob("*.sqlite3"))
            until.close()
            assert start.result() == WHOLE
