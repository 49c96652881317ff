"""Sessions taken out of real stores: what is in the file, and what becomes of the file."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bytewax.recovery import init_db_dir
from msgspec.structs import replace

from dataflows import sessions as flow
from heartwheel.store.contents import Contents
from heartwheel.store.recovery_files import Recovery
from session_logic import journal
from session_logic.keys import key_groups_of
from tests.support.broker import ROOT
from tests.support.carrying import CarryingDecode
from tests.support.command import Inside, one_line
from tests.support.fixture_stores import FOLDER, POLLS, sessions
from tests.support.flow import SETTINGS, history, run
from tests.support.stores import active, execute

HEARTBEAT = {"HEARTWHEEL_HEARTBEAT_MS": "1000", "HEARTWHEEL_MAX_SESSION_MS": "3600000"}


Export = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with bases and several segments, whose sessions carry something."""
    folder = tmp_path_factory.mktemp("carrying") / "store"
    folder.mkdir()
    init_db_dir(folder, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "SEGMENT_BYTES", 150)
        patch.setattr(flow, "Decode", CarryingDecode)
        # So that time passes with the input, and not only once it is read to its end.
        run(history(POLLS), folder, [], settings=replace(SETTINGS, catch_up="all"))
    return folder


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Inside:
    """Return the command."""
    return Inside(capsys)


@pytest.fixture
def exported(command: Inside) -> Export:
    """Return what exports sessions."""
    return lambda *arguments: command("sessions", "export", *arguments, **HEARTBEAT)


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("part", sorted(FOLDER.glob("state-*.sqlite3")), ids=lambda one: one.stem)
def test_store_of_every_version_can_be_exported(
    exported: Export, part: Path, tmp_path: Path
) -> None:
    """The sessions are those of a whole restore."""
    shutil.copy(part, tmp_path / "part-0.sqlite3")
    found = {
        one["device_id"]: one["session_id"] for one in lines(exported(tmp_path, "--format=jsonl"))
    }
    assert found == json.loads(part.with_suffix(".json").read_text()) == active(tmp_path)


@pytest.mark.parametrize("lanes", [1, 256])
def test_store_that_was_moved_to_other_lanes_can_be_exported(
    command: Inside, exported: Export, lanes: int, store: Path, tmp_path: Path
) -> None:
    """Its key groups may be from lanes that had come to different moments."""
    new = tmp_path / "new"
    assert (
        command(
            "store", "migrate", str(store), str(new), "--lanes", str(lanes), **HEARTBEAT
        ).returncode
        == 0
    )
    before, after = (lines(exported(one, "--format", "jsonl")) for one in (store, new))
    names = ("device_id", "session_id", "platform", "started_ms", "timeout_ms", "context")

    def kept(found: list[dict[str, Any]]) -> list[list[Any]]:
        rows = [[one.get(name) for name in names] for one in found]
        return sorted(rows, key=lambda row: row[0])

    assert kept(before) == kept(after) != []


def test_export_tells_each_session_and_its_moment(exported: Export, store: Path) -> None:
    """What a listing over HTTP tells, as of the lane's last snapshot."""
    with Recovery(store) as recovery:
        contents = Contents(recovery, SETTINGS.rules())
        want = {
            session.device_id: (session, lane)
            for lane in (contents.restore(number)[0] for number in contents.states)
            for group in key_groups_of(lane.lane, lane.lanes)
            for session in lane.table.groups[group].active.values()
        }
    done = exported(store, "--format", "jsonl")
    found = lines(done)
    assert {one["device_id"] for one in found} == want.keys() == sessions(CarryingDecode).keys()
    for one in found:
        session, lane = want[one["device_id"]]
        assert one["active"] is True
        assert (one["lane"], one["as_of_ms"]) == (lane.lane, lane.watermark_ms)
        assert one["started_ms"] == session.started_ms
        assert one["timeout_ms"] == session.started_ms + SETTINGS.max_session_ms
        assert lane.watermark_ms < one["next_heartbeat_ms"] <= lane.watermark_ms + 1_000
        assert one.get("context") == json.loads(getattr(session, "context", b"null"))
    first, last = done.stderr.splitlines()
    assert re.fullmatch(rf"heartwheel: {store} as of 2023-11-14 22:\d\d:\S+Z.*, epoch \d+", first)
    assert last == f"heartwheel: {len(found)} sessions written to standard output"


def test_export_to_a_file_is_csv_and_never_replaces_one_by_itself(
    exported: Export, store: Path, tmp_path: Path
) -> None:
    """What is there stays as it is, unless it is said to be replaced."""
    file = tmp_path / "sessions.csv"
    done = exported(store, "-o", file)
    assert (done.returncode, done.stdout) == (0, "")
    text = file.read_text()
    assert text == exported(store).stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["device_id"] for row in rows} == active(store).keys()
    one_line(exported(store, "-o", file, "--limit", 1), 2, str(file), "exists", "--overwrite")
    assert file.read_text() == text
    assert exported(store, "-o", file, "--limit", 1, "--overwrite").returncode == 0
    assert len(file.read_text().splitlines()) == 2
    one_line(exported(store, "-o", tmp_path / "no" / "x"), 2, "cannot be made")
    assert [one.name for one in tmp_path.iterdir()] == ["sessions.csv"]


def test_export_replaces_files_only(exported: Export, store: Path, tmp_path: Path) -> None:
    """A link stays one, and a directory or a device what it is."""
    file, link, pipe = tmp_path / "file", tmp_path / "link", tmp_path / "pipe"
    file.write_text("before")
    link.symlink_to(file)
    os.mkfifo(pipe)
    assert exported(store, "-o", link, "--overwrite").returncode == 0
    assert link.is_symlink()
    assert file.read_text().startswith("device_id,")
    for place in (tmp_path, pipe):
        one_line(exported(store, "-o", place, "--overwrite"), 2, f"{place} is no file")
    assert pipe.is_fifo()


def test_export_that_fails_leaves_no_file_and_the_one_of_before(
    exported: Export, store: Path, tmp_path: Path
) -> None:
    """Half of the sessions must not look like all of them."""
    damaged = Path(shutil.copytree(store, tmp_path / "damaged"))
    execute(damaged / "part-0.sqlite3", "DELETE FROM snaps WHERE state_key = 'base-002'")
    file = tmp_path / "sessions.csv"
    done = exported(damaged, "-o", file)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        f"{damaged}: lane 2: base-002 missing; see `heartwheel store check`"
    )
    file.write_text("before")
    assert exported(damaged, "-o", file, "--overwrite").returncode == 1
    assert file.read_text() == "before"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["damaged", "sessions.csv"]
    execute(damaged / "part-0.sqlite3", "DELETE FROM snaps WHERE state_key = 'lane-003'")
    one_line(exported(damaged), 1, "lane 3: its state is missing")


def test_export_is_of_what_is_wanted(exported: Export, store: Path) -> None:
    """By what a session carries, up to a number of them; anything else is refused."""
    every = lines(exported(store, "--format", "jsonl"))
    carrying = next(one for one in every if one.get("context"))
    name, value = next(iter(carrying["context"].items()))
    text = value if isinstance(value, str) else json.dumps(value)
    chosen = lines(exported(store, "--format", "jsonl", "--where", f"context.{name}={text}"))
    carried = [(one, one.get("context", {})) for one in every]
    assert chosen == [one for one, some in carried if name in some and some[name] == value]
    assert 0 < len(chosen) < len(every)
    assert lines(exported(store, "--format", "jsonl", "--where", "platform=console")) == []
    assert len(lines(exported(store, "--format", "jsonl", "--limit", "2"))) == 2
    one_line(exported(store, "--where", "pc"), 2, "--where pc: write it as platform=pc")
    one_line(exported(store, "--where", "lane=1"), 2, "cannot be chosen by 'lane'")


def test_empty_store_exports_the_columns_alone(exported: Export, tmp_path: Path) -> None:
    """Before the first snapshot there is nothing, which is no fault."""
    init_db_dir(tmp_path, 2)
    done = exported(tmp_path)
    assert done.returncode == 0, done
    assert len(done.stdout.splitlines()) == 1
    assert "as of a time before it has anything" in done.stderr


def test_limit_of_any_size_exports_all(exported: Export, store: Path) -> None:
    """Also one that is larger than any count can be."""
    done = exported(store, "--limit", "9" * 30)
    assert done.returncode == 0, done
    assert done.stdout == exported(store).stdout


def test_reader_that_ends_early_is_no_error_to_be_told(store: Path) -> None:
    """As with `| head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "heartwheel.cli", "sessions", "export", str(store)],
            cwd=ROOT,
            env={**os.environ, **HEARTBEAT},
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr
