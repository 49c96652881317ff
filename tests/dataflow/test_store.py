"""The tools for recovery stores: a store that is not whole is named before anything starts."""

import contextlib
import fcntl
import json
import os
import pickle
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from bytewax.recovery import init_db_dir
from msgspec import structs

from dataflows.cli import main
from dataflows.run import prepare_recovery
from dataflows.store.contents import Contents
from dataflows.store.recovery import Recovery, StoreInUseError
from dataflows.store.transfer import copy_store
from session_logic import journal
from session_logic.codec import encode_sessions
from session_logic.errors import HeartwheelError, SnapshotError
from session_logic.keys import group_of, groups_of
from session_logic.rules import Session
from tests.broker import ROOT
from tests.dataflow.test_flow import SETTINGS, history, run, sent
from tests.fixtures.make import sessions
from tests.simulation.lane import by_device


def make(folder: Path, parts: int, polls: int) -> Path:
    """Make a store by a run that ends."""
    folder.mkdir()
    init_db_dir(folder, parts)
    run(history(polls), folder, [])
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with two parts; it must not be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "SEGMENT_BYTES", 150)
        return make(tmp_path_factory.mktemp("whole") / "store", 2, 40)


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    """Return a copy of the store to do harm to."""
    return Path(shutil.copytree(whole, tmp_path / "store"))


class Command:
    """The heartwheel command, run in this process with settings of its own."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self._patch = patch
        self._capture = capture
        patch.setenv("HEARTWHEEL_HEARTBEAT_MS", "1000")
        patch.setenv("HEARTWHEEL_BOOTSTRAP_SERVERS", "127.0.0.1:1")
        patch.setenv("HEARTWHEEL_HTTP_PORT", "0")
        patch.setenv("HEARTWHEEL_LOG_FORMAT", "text")

    def __call__(self, *arguments: object) -> tuple[int, str]:
        """Return exit code and output of a command line."""
        self._patch.setattr(sys, "argv", ["heartwheel", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        captured = self._capture.readouterr()
        return int(end.value.code or 0), captured.out + captured.err

    def run(self, store: Path, lanes: int = 4) -> tuple[int, str]:
        """Start a run that would have no Kafka: a process of its own, as it takes over signals."""
        self._patch.setenv("HEARTWHEEL_RECOVERY_DIR", str(store))
        self._patch.setenv("HEARTWHEEL_LANES", str(lanes))
        done = subprocess.run(
            [sys.executable, "-m", "dataflows.cli", "run"],
            cwd=ROOT,
            text=True,
            capture_output=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return the command."""
    return Command(monkeypatch, capsys)


def execute(part: Path, statement: str, *values: Any) -> None:
    """Change a part file."""
    with closing(sqlite3.connect(part)) as db, db:
        db.execute(statement, values)


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


@pytest.mark.parametrize("index", range(4))
def test_part_of_an_earlier_moment_is_refused(index: int, tmp_path: Path) -> None:
    """A part put back alone would bring back old sessions, whatever part it is."""
    store = make(tmp_path / "store", 4, 20)
    part = store / f"part-{index}.sqlite3"
    old = part.read_bytes()
    run(history(150), store, [])
    part.write_bytes(old)
    with pytest.raises(SnapshotError, match=r"part-\d.sqlite3 was committed up to epoch"):
        Recovery(store)


def change(store: Path, like: str, new: Callable[[Any], Any]) -> None:
    """Change every stored value whose key is like something."""
    for part in store.glob("*.sqlite3"):
        with closing(sqlite3.connect(part)) as db:
            rows = db.execute(
                "SELECT rowid, ser_change FROM snaps WHERE state_key LIKE ?", (like,)
            ).fetchall()
        for row, data in rows:
            value = new(pickle.loads(data))  # noqa: S301  # our own
            changed = value if isinstance(value, bytes) else pickle.dumps(value)
            execute(part, "UPDATE snaps SET ser_change = ? WHERE rowid = ?", changed, row)


def delete(like: str) -> Callable[[Path], None]:
    """Return what deletes every value whose key is like something."""

    def from_both(store: Path) -> None:
        for part in store.glob("*.sqlite3"):
            execute(part, "DELETE FROM snaps WHERE state_key LIKE ?", like)

    return from_both


def put(like: str, index: int, value: Any) -> Callable[[Path], None]:
    """Return what puts a value into the stored tuples whose key is like something."""

    def into(stored: Any) -> Any:
        changed = [*stored]
        changed[index] = value(changed[index]) if callable(value) else value
        return type(stored)(changed)

    return lambda store: change(store, like, into)


DEVICE = next(name for name in map("d{}".format, range(9_999)) if group_of(name) == 1)
TWO_ACTIVE = encode_sessions([Session(DEVICE, name, "pc", 1) for name in "st"])


def sink(key: str, *state: Any) -> Callable[[Path], None]:
    """Return what puts the state of a sink into a store."""
    statement = "INSERT INTO snaps VALUES (CURRENT_TIMESTAMP, 'heartwheel.sink', ?, 1, ?)"
    return lambda store: execute(store / "part-0.sqlite3", statement, key, pickle.dumps(state))


class Shell:
    """A pickle that would run a command."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch harmed",)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "lost base": (delete("base-002"), "lane 2: base-002 missing"),
    "lost journal": (delete("journal-066"), "lane 1: journal segment 1 missing"),
    "lost lane": (delete("lane-003"), "lane 3: its state is missing"),
    "lost lanes": (delete("lane-%"), "the state of its lane is missing"),
    "newer lane": (put("lane-001", 0, 3), r"sessions lane-001 .* version 3 is newer"),
    "newer row": (put("base-001", 0, 2), r"store base-001 .* version 2 is newer"),
    "other lanes": (put("lane-001", 1, 8), r"lane-001 .* it is the state of lane 1 of 8"),
    "wrong lane": (put("lane-001", 2, 2), r"lane-001 .* it is the state of lane 2 of 4"),
    "row of another name": (put("base-001", 3, 5), r"base-001 .* it holds row base-005 of lane 1"),
    "row of another lane": (put("base-001", 2, 2), r"base-001 .* it holds row base-001 of lane 2"),
    "cut base": (put("base-002", 5, lambda blob: blob[:-1]), "base-002 .* cannot be read"),
    "cut chunk": (
        put("journal-066", 5, lambda chunks: (*chunks[:-1], chunks[-1][:-3])),
        "journal-066 .* a journal chunk cannot be read",
    ),
    "two active": (put("base-001", 5, lambda _: TWO_ACTIVE), "base-001 .* has 2 active sessions"),
    "wrong group": (
        put("base-001", 5, lambda _: encode_sessions([Session("d0", "s", "pc", 1)])),
        "base-001 .* device d0 is of group",
    ),
    "no plain value": (lambda s: change(s, "base-001", lambda _: Shell()), "is no plain value"),
    "no pickle": (lambda store: change(store, "lane-002", lambda _: b"x"), "lane-002 .* cannot be"),
    "no row": (lambda store: change(store, "base-001", lambda _: None), "base-001 .* cannot be"),
    "newer sink": (sink("lane-001", 3, 7, [], []), "sink lane-001 .* version 3 is newer"),
    "newer letters": (sink("rejected", 3, {}), "sink rejected .* version 3 is newer"),
    "no sink": (sink("lane-001", 2), "sink lane-001 .* cannot be read"),
    "no letters": (sink("rejected", 2), "sink rejected .* it is no state of a sink"),
    "no offset": (lambda store: change(store, "iterable", lambda _: "x"), "'x' is no offset"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_inside_a_store_is_a_line_with_file_and_row(
    name: str, store: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check finds it and nothing is run; inspect and migrate do not pass it over."""
    monkeypatch.chdir(store.parent)
    do, text = FAULTS[name]
    do(store)
    code, output = command("store", "check", store)
    assert code == 1
    assert any(
        line.startswith(str(store)) and re.search(text, line) for line in output.splitlines()
    ), output
    assert "Traceback" not in output
    assert command("store", "migrate", store, store.parent / "new", "--lanes", 2)[0] != 0
    assert os.listdir(store.parent) == ["store"]


@pytest.mark.parametrize("seed", range(60))
def test_any_bytes_in_a_store_are_a_fault_or_none_but_no_crash(seed: int, store: Path) -> None:
    """Cut anywhere, or with a stretch of other bytes, a file never raises anything else."""
    chance = random.Random(seed)
    part = store / f"part-{chance.randrange(2)}.sqlite3"
    data = bytearray(part.read_bytes())
    at = chance.randrange(len(data))
    if seed % 3:
        data[at : at + 300] = chance.randbytes(len(data[at : at + 300]))
    else:
        del data[at:]
    part.write_bytes(data)
    try:
        with Recovery(store) as recovery:
            contents = Contents(recovery, SETTINGS.rules())
            faults = list(contents.faults())
            if not faults:
                contents.summary()
    except HeartwheelError as error:
        faults = [str(error)]
    assert faults or seed % 3, "a cut file is always found"
    assert all(str(store) in fault for fault in faults)


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
    assert sorted(os.listdir(tmp_path / "copy")) == ["part-0.sqlite3", "part-1.sqlite3"]
    with closing(sqlite3.connect(tmp_path / "copy" / "part-0.sqlite3")) as db:
        assert db.execute("SELECT created_at FROM parts").fetchone() == ("in the log",)
    assert command("store", "check", tmp_path / "copy")[0] == 0
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


def active(store: Path) -> dict[str, str]:
    """Return the active session of each device in a store."""
    with Recovery(store) as recovery:
        contents = Contents(recovery, SETTINGS.rules())
        assert list(contents.faults()) == []
        lanes = [contents.restore(number)[0] for number in contents.states]
        return {
            session.device_id: session.session_id
            for lane in lanes
            for group in groups_of(lane.lane, lane.lanes)
            for session in lane.table.sessions(group)
            if not session.ended_ms
        }


@pytest.mark.parametrize("lanes", [1, 2, 8, 256])
def test_migrated_store_has_the_same_sessions_and_offsets(
    lanes: int, store: Path, tmp_path: Path, command: Command
) -> None:
    """The next run has the other number of lanes, and the sessions and offsets of before."""
    code, output = command("store", "migrate", store, tmp_path / "new", "--lanes", lanes)
    assert code == 0
    assert f"output topic with {lanes} partitions" in output
    assert active(tmp_path / "new") == active(store) == sessions()
    out: list[Any] = []
    run(history(60), tmp_path / "new", out, settings=structs.replace(SETTINGS, lanes=lanes))
    whole: list[Any] = []
    run(history(60), store, whole)
    assert by_device(sent(out)) == by_device(sent(whole))
    assert sent(out)


def test_killed_run_is_not_migrated(store: Path, tmp_path: Path, command: Command) -> None:
    """What it sent last is known only after one more run: nothing is to be lost or doubled."""
    sink("lane-001", 2, 7, ["d1"], [b"{}"])(store)
    sink("lane-002", 2, 7, [], [])(store)
    sink("rejected", 2, {0: 5})(store)
    summary = json.loads(command("store", "inspect", store, "--json")[1])
    assert summary["sink"]["lane-001"] == {"version": 2, "end_offsets": {"1": 7}, "waiting": 1}
    assert summary["sink"]["rejected"]["end_offsets"] == {"0": 5}
    code, output = command("store", "migrate", store, tmp_path / "new", "--lanes", 2)
    assert code == 2
    assert "was killed" in output
    execute(
        store / "part-0.sqlite3",
        "DELETE FROM snaps WHERE state_key = 'lane-001' AND snap_epoch = 1",
    )
    with closing(sqlite3.connect(store / "part-0.sqlite3")) as db:
        with db:
            db.execute("UPDATE parts SET created_at = 'in the log'")
        shutil.copytree(store, tmp_path / "killed")
    code, output = command("store", "migrate", tmp_path / "killed", tmp_path / "new", "--lanes", 2)
    assert code == 2
    assert "was killed" in output
    assert command("store", "migrate", store, tmp_path / "new", "--lanes", 2)[0] == 0
    summary = json.loads(command("store", "inspect", tmp_path / "new", "--json")[1])
    assert list(summary["sink"]) == ["rejected"]


@pytest.mark.parametrize("lanes", [0, 3, 512, "x"])
def test_impossible_number_of_lanes_is_refused(
    lanes: object, store: Path, tmp_path: Path, command: Command
) -> None:
    """Lanes are a power of two up to 256; nothing is left behind."""
    code, output = command("store", "migrate", store, tmp_path / "new", "--lanes", lanes)
    assert code == 2
    assert "LANES" in output.upper()
    assert os.listdir(tmp_path) == ["store"]


def test_empty_directory_holds_no_store(tmp_path: Path, command: Command) -> None:
    """A wrong directory is a wrong setting."""
    for name in ("inspect", "check"):
        code, output = command("store", name, tmp_path)
        assert code == 2
        assert "holds no recovery store" in output


@pytest.mark.parametrize("wait_s", [0.3, 0.6, 0.8, 1.0])
def test_killed_migration_leaves_the_source_whole_and_no_half_target(
    wait_s: float, store: Path, tmp_path: Path, command: Command
) -> None:
    """Whenever it is killed, the target is there whole or not at all."""
    target = tmp_path / "new"
    arguments = ["store", "migrate", str(store), str(target), "--lanes", "2"]
    with subprocess.Popen([sys.executable, "-m", "dataflows.cli", *arguments], cwd=ROOT) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)
        process.kill()
    assert active(store) == sessions()
    if target.exists():
        assert active(target) == sessions()
    else:
        assert command(*arguments)[0] == 0
