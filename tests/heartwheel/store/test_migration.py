"""Stores moved to another number of lanes."""

import contextlib
import json
import pickle
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING
from msgspec import UNSET, structs

from dataflows import sessions as flow
from dataflows.formats import DEAD_LETTER_VERSION, SOURCE_VERSION, to_stored_letter
from dataflows.kafka.input_topics import OtherTopicError
from dataflows.messages import DeadLetter
from heartwheel.store.backup import back_up
from heartwheel.store.contents import Contents
from heartwheel.store.copying import copy_store
from heartwheel.store.identity import note_begin, note_clean_stop
from heartwheel.store.migration import check_moved
from heartwheel.store.recovery_files import Recovery
from heartwheel.store.sources import source_states
from heartwheel.store.summary import summarize
from session_logic.errors import SnapshotError
from session_logic.events import Heartbeat, SessionEnd
from session_logic.restoring import CARRYING_VERSION
from tests.support.broker import ROOT
from tests.support.carrying import CarryingDecode
from tests.support.command import limited
from tests.support.events import by_device
from tests.support.fake_input import FakeInput
from tests.support.fixture_stores import POLLS, sessions
from tests.support.flow import SETTINGS, T, history, run, sent
from tests.support.stores import Command, active, execute, make, sink


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


POSITIONS = {
    "in/0": 17,  # of version 1
    "in/1": (2, 40, "topic-id", "cluster-id"),
    "in/2": (2, OFFSET_BEGINNING, "topic-id", "cluster-id"),  # that may come
    "retired/0": (2, 9, "its-id", "cluster-id"),
}


def test_migrated_store_has_the_positions_of_every_version_and_kind(
    store: Path, tmp_path: Path, command: Command
) -> None:
    """Ids included; a run goes on from each, and keeps those that it does not read."""
    for key, state in POSITIONS.items():
        put_source(store, key, state)
    assert command("store", "migrate", store, tmp_path / "new", "--lanes", 2)[0] == 0
    states = source_states(tmp_path / "new")
    assert states == source_states(store)
    assert states.items() >= POSITIONS.items()
    code, output = command("store", "inspect", tmp_path / "new", "--json")
    assert code == 0
    shown = json.loads(output)["source"]
    assert {key: shown.get(key) for key in POSITIONS} == {
        "in/0": 17, "in/1": 40, "in/2": None, "retired/0": 9
    }  # fmt: skip
    fake = FakeInput(2)
    fake.log.ids["in"], fake.log.cluster_id = "topic-id", "cluster-id"
    source = fake.source()
    source.check({key: states[key] for key in POSITIONS})
    assert source.list_parts()[0] == "retired/0"
    parts = {key: source.build_part("source", key, states[key]) for key in POSITIONS}
    assert {key: part.snapshot() for key, part in parts.items()} == {
        **POSITIONS, "in/0": (2, 17, "topic-id", "cluster-id")
    }  # fmt: skip


def test_migrated_store_still_tells_a_topic_that_was_made_anew(
    store: Path, tmp_path: Path, command: Command
) -> None:
    """The ids that it has are those of the topic that was read."""
    put_source(store, "in/0", (2, 40, "topic-id", "cluster-id"))
    assert command("store", "migrate", store, tmp_path / "new", "--lanes", 2)[0] == 0
    fake = FakeInput()
    fake.log.ids["in"], fake.log.cluster_id = "other-id", "cluster-id"
    with pytest.raises(OtherTopicError, match=r"made anew.*topic-id.*other-id"):
        fake.source().check({"in/0": source_states(tmp_path / "new")["in/0"]})


def put_source(store: Path, key: str, state: object) -> None:
    """Put the position of an input partition into a store."""
    statement = "INSERT INTO snaps VALUES (CURRENT_TIMESTAMP, 'heartwheel.source', ?, 1, ?)"
    execute(store / "part-1.sqlite3", statement, key, pickle.dumps(state))


def test_position_of_a_newer_version_is_not_migrated(
    store: Path, tmp_path: Path, command: Command
) -> None:
    """What this program cannot read, it does not hand on."""
    put_source(store, "in/0", (SOURCE_VERSION + 1, 40, "topic-id", "cluster-id", "more"))
    code, output = command("store", "migrate", store, tmp_path / "new", "--lanes", 2)
    assert code == 1
    assert "is newer than this program knows" in output


@pytest.mark.parametrize("lanes", [2, 256])
def test_migrated_store_has_what_its_sessions_carry(
    lanes: int, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records of the next run have the same context as without the move."""
    monkeypatch.setattr(flow, "Decode", CarryingDecode)
    store = make(tmp_path / "store", 1, POLLS)
    assert command("store", "migrate", store, tmp_path / "new", "--lanes", lanes)[0] == 0
    with Recovery(tmp_path / "new") as recovery:
        versions = summarize(Contents(recovery, SETTINGS.rules())).state_versions
    assert CARRYING_VERSION in versions
    out: list[Any] = []
    run(history(60), tmp_path / "new", out, settings=structs.replace(SETTINGS, lanes=lanes))
    whole: list[Any] = []
    run(history(60), store, whole)
    assert by_device(sent(out)) == by_device(sent(whole))
    of_stored = [
        e for e in sent(out) if e.context is not UNSET and e.started_ms < T + POLLS * 1_000
    ]
    assert {type(event) for event in of_stored} == {Heartbeat, SessionEnd}


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
    assert "ended before all that it has was sent" in output
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


@pytest.mark.parametrize("copy", [copy_store, partial(back_up, rules=SETTINGS.rules())])
def test_store_of_a_run_that_has_not_ended_is_not_migrated_and_no_copy_of_it(
    copy: Callable[[Path, Path], object], store: Path, tmp_path: Path, command: Command
) -> None:
    """Even where SQLite's log is gone, because a start that was refused has opened the store."""
    note_begin(store)
    copy(store, tmp_path / "copy")
    for source in (store, tmp_path / "copy"):
        code, output = command("store", "migrate", source, tmp_path / "new", "--lanes", 2)
        assert code == 2
        assert "what it sent last is not known" in output
    note_clean_stop(store)
    assert command("store", "migrate", store, tmp_path / "new", "--lanes", 2)[0] == 0


def test_dead_letters_that_wait_move_with_a_store_that_was_stopped(
    store: Path, tmp_path: Path, command: Command
) -> None:
    """A clean stop may leave them so, and they are the same whatever the lanes are."""
    letter = DeadLetter("in", 0, (7, T, b"device-1", b"{", False, None), "not_json", "it is none")
    sink("rejected", DEAD_LETTER_VERSION, {0: 5}, [to_stored_letter(letter)])(store)
    assert command("store", "migrate", store, tmp_path / "new", "--lanes", 2)[0] == 0
    summary = json.loads(command("store", "inspect", tmp_path / "new", "--json")[1])
    rejected = {"version": DEAD_LETTER_VERSION, "end_offsets": {"0": 5}, "waiting": 1}
    assert summary["sink"] == {"rejected": rejected}


def test_killed_run_is_not_migrated_after_another_command_has_opened_it(
    store: Path, tmp_path: Path, command: Command
) -> None:
    """A command that is refused, or a copy, does not take away what tells of the kill."""
    killed = tmp_path / "killed"
    with closing(sqlite3.connect(store / "part-0.sqlite3")) as db:
        with db:
            db.execute("UPDATE parts SET created_at = 'in the log'")
        shutil.copytree(store, killed)
    files = {path.name for path in killed.glob("*-wal*") if path.stat().st_size}
    for _ in range(2):
        code, output = command("store", "migrate", killed, tmp_path / "new", "--lanes", 2)
        assert code == 2
        assert "was killed" in output
    assert command("store", "copy", killed, tmp_path / "copy")[0] == 0
    assert command("store", "migrate", killed, tmp_path / "new", "--lanes", 2)[0] == 2
    assert {path.name for path in killed.glob("*-wal*") if path.stat().st_size} == files
    assert active(killed) == active(tmp_path / "copy") == sessions()
    with closing(sqlite3.connect(killed / "part-0.sqlite3")) as db:
        assert db.execute("SELECT created_at FROM parts").fetchone() == ("in the log",)
    assert command("store", "migrate", killed, tmp_path / "new", "--lanes", 2)[0] == 0


@pytest.mark.parametrize("lanes", [0, 3, 512, "x"])
def test_impossible_number_of_lanes_is_refused(
    lanes: object, store: Path, tmp_path: Path, command: Command
) -> None:
    """Lanes are a power of two up to 256; nothing is left behind."""
    code, output = command("store", "migrate", store, tmp_path / "new", "--lanes", lanes)
    assert code == 2
    assert "LANES" in output.upper()
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("wait_s", [0.3, 0.6, 0.8, 1.0])
def test_killed_migration_leaves_the_source_whole_and_no_half_target(
    wait_s: float, store: Path, tmp_path: Path, command: Command
) -> None:
    """Whenever it is killed, the target is there whole or not at all."""
    target = tmp_path / "new"
    arguments = ["store", "migrate", str(store), str(target), "--lanes", "2"]
    with subprocess.Popen(
        [sys.executable, "-m", "heartwheel.cli", *arguments], cwd=ROOT
    ) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)
        process.kill()
    assert active(store) == sessions()
    if target.exists():
        assert active(target) == sessions()
    else:
        assert command(*arguments)[0] == 0


def test_migration_beyond_the_limit_of_the_size_of_files_shows_no_backtrace(
    store: Path, tmp_path: Path
) -> None:
    """Rust has one for a panic where the environment asks for it; the cause is the last line."""
    arguments = ["store", "migrate", str(store), str(tmp_path / "new"), "--lanes", "2"]
    done = limited(4096, *arguments, RUST_BACKTRACE="1")
    assert done.returncode == 1
    assert "stack backtrace" not in done.stderr
    assert "or raise the limit of 4096 bytes a file" in done.stderr.splitlines()[-1]


def test_migrated_store_that_lacks_a_session_is_refused(store: Path) -> None:
    """The new store is read again and counted before it gets its name."""
    count = len(sessions())
    rules = SETTINGS.rules()
    with Recovery(store) as recovery:
        contents = Contents(recovery, rules)
        kept = sum(len(contents.restore(n)[0].table.wheel) for n in contents.states)
    assert kept >= count
    check_moved(store, rules, kept)
    with pytest.raises(SnapshotError, match=f"has {kept} sessions, not {kept + 1}; keep"):
        check_moved(store, rules, kept + 1)
    execute(store / "part-0.sqlite3", "DELETE FROM snaps WHERE state_key = 'base-002'")
    execute(store / "part-1.sqlite3", "DELETE FROM snaps WHERE state_key = 'base-002'")
    with pytest.raises(SnapshotError, match="base-002 missing"):
        check_moved(store, rules, kept)
