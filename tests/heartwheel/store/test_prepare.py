"""The recovery directory before a start: what is wrong is one line that says what to do next."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bytewax.recovery import init_db_dir

from dataflows.settings import Settings
from dataflows.settings_sources import environment
from heartwheel.store.contents import Contents
from heartwheel.store.prepare import prepare_recovery
from heartwheel.store.recovery_files import Recovery
from session_logic.errors import ConfigError, SnapshotError
from tests.support.broker import ROOT
from tests.support.errors import one_line
from tests.support.shard_stores import LANES, make_shard

NOBODY = 65534


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
    first = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert first.stdin is not None
    assert first.stdout is not None
    with first:
        while not any(tmp_path.glob("*.sqlite3")):
            assert first.poll() is None
            time.sleep(0.01)
        assert prepare_recovery(settings, first=False) == tmp_path
        assert first.stdout.readline() == b"\n"  # it has got the lock that was waited for
        first.stdin.close()
    assert first.returncode == 0
