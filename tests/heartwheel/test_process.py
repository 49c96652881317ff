"""What is checked before the start: one line that says what, where and what to do next."""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest
from bytewax.recovery import init_db_dir

from dataflows.kafka.client import CALM_S, LOG
from dataflows.settings import Settings
from dataflows.settings_sources import environment
from heartwheel.cluster import Cluster, cluster_of
from heartwheel.process import prepare_recovery, wait_for_own_name
from session_logic.errors import ConfigError, HeartwheelError, SnapshotError
from tests.support.broker import ROOT

TWO = "127.0.0.1:7001;127.0.0.1:7002"
NOBODY = 65534


@pytest.fixture(autouse=True)
def _no_bytewax_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("BYTEWAX_")]:
        monkeypatch.delenv(name)


def one_line(error: pytest.ExceptionInfo[HeartwheelError], *words: str) -> None:
    """Check that the error is one line with these words in it."""
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def hostfile(monkeypatch: pytest.MonkeyPatch, path: Path) -> Path:
    """Let the host file be at this path."""
    monkeypatch.setenv("BYTEWAX_HOSTFILE_PATH", str(path))
    return path


def test_host_file_gives_the_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for every process; empty lines and spaces do not count."""
    hostfile(monkeypatch, tmp_path / "hosts").write_text("\n a:1 \nb:2\n\n")
    assert cluster_of(1, None, 1) == Cluster(1, ("a:1", "b:2"), 1)


def test_host_file_that_is_missing_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file may not be there yet, or be spelled wrong."""
    path = hostfile(monkeypatch, tmp_path / "hosts")
    with pytest.raises(ConfigError) as error:
        cluster_of(0, None, 1)
    one_line(error, "BYTEWAX_HOSTFILE_PATH", str(path), "No such file", "host:port")


@pytest.mark.parametrize("unreadable", [Path.mkdir, lambda path: path.write_bytes(b"\xff\xfe:1")])
def test_host_file_that_cannot_be_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unreadable: Callable[[Path], object]
) -> None:
    """A folder, or bytes that are no text."""
    path = hostfile(monkeypatch, tmp_path / "hosts")
    unreadable(path)
    with pytest.raises(ConfigError) as error:
        cluster_of(0, None, 1)
    one_line(error, "BYTEWAX_HOSTFILE_PATH", str(path), "cannot be read")


@pytest.mark.parametrize("text", ["", "a:1\nb:2\n"])
def test_host_file_with_too_few_lines_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Process 2 is the third one."""
    hostfile(monkeypatch, tmp_path / "hosts").write_text(text)
    with pytest.raises(ConfigError) as error:
        cluster_of(2, None, 1)
    one_line(error, "process 2 has no address", "BYTEWAX_HOSTFILE_PATH")


@pytest.mark.parametrize(
    ("number", "addresses", "text"),
    [
        (2, TWO, "process 2 has no address among 2"),
        (-1, TWO, "process -1 has no address among 2"),
        (None, TWO, "without --process-id"),
        (0, "127.0.0.1;127.0.0.1:7002", "'127.0.0.1' is not host:port"),
        (0, "127.0.0.1:x", "is not host:port"),
    ],
)
def test_wrong_cluster_is_one_line(number: int | None, addresses: str, text: str) -> None:
    """Nothing that would wait for ever for a process that cannot come."""
    with pytest.raises(ConfigError) as error:
        cluster_of(number, addresses, 1)
    one_line(error, text)


def test_pod_name_gives_the_process_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a StatefulSet, the number at the end of the name counts; without one it is an error."""
    monkeypatch.setenv("BYTEWAX_STATEFULSET_NAME", "wheel")
    monkeypatch.setenv("BYTEWAX_POD_NAME", "wheel-1")
    assert cluster_of(None, TWO, 1).process_id == 1
    monkeypatch.setenv("BYTEWAX_POD_NAME", "other-1")
    with pytest.raises(ConfigError) as error:
        cluster_of(None, TWO, 1)
    one_line(error, "BYTEWAX_POD_NAME", "wheel- and a number")


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
        "from heartwheel.process import prepare_recovery;"
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


def test_name_of_the_process_that_nobody_knows_is_one_line() -> None:
    """Bytewax would say so only once it has found all others, and then in a panic."""
    with pytest.raises(ConfigError) as error:
        wait_for_own_name("wheel-0.wheel.invalid:9999", 0.3, Event())
    one_line(error, "wheel-0.wheel.invalid", "not known", "DNS")


@pytest.mark.parametrize("address", ["localhost:1", "127.0.0.1:1", "[::1]:1"])
def test_name_of_the_process_that_is_known_lets_it_go_on(address: str) -> None:
    """A name, or an address of either kind."""
    wait_for_own_name(address, 0, Event())


def logged(caplog: pytest.LogCaptureFixture, *lines: tuple[float, int, str, str]) -> list[str]:
    """Return what is shown of lines that librdkafka logs: (time in s, level, facility, text)."""
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    for created, level, facility, text in lines:
        record = LOG.makeRecord(
            LOG.name, level, "", 0, "%s [%s] %s", (facility, "rdkafka#consumer-1", text), None
        )
        record.created = created
        LOG.handle(record)
    return [f"{record.levelname} {record.args[0]}" for record in caplog.records]  # type: ignore[index]


def test_lost_connection_is_shown_once_and_again_after_a_calm(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each thread of each client logs each attempt; an operator needs to know once."""
    lost = "127.0.0.1:1/bootstrap: Connect failed: Connection refused"
    begin = 1e9
    attempts = [(begin + s, logging.ERROR, "FAIL", lost) for s in range(0, 300, 10)]
    assert logged(caplog, *attempts, (begin + 1, logging.ERROR, "ERROR", "1/1 brokers are down"))
    assert len(caplog.records) == 1
    assert caplog.records[0].levelname == "WARNING"
    later = begin + 300 + CALM_S
    assert logged(caplog, (later, logging.INFO, "FAIL", lost)) == ["WARNING FAIL"]


def test_retry_is_not_shown_and_anything_else_is(caplog: pytest.LogCaptureFixture) -> None:
    """What librdkafka does again by itself is no news; what it cannot do is."""
    lines = [
        (1.0, logging.WARNING, "GETPID", "Failed to acquire idempotence PID: retrying"),
        (1.0, logging.ERROR, "GETPID", "Failed to acquire idempotence PID: fatal"),
        (1.0, logging.WARNING, "CONFWARN", "option is deprecated"),
    ]
    assert logged(caplog, *lines) == ["ERROR GETPID", "WARNING CONFWARN"]
