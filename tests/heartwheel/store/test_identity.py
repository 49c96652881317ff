"""Who a store is, and which devices it has."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from bytewax.recovery import init_db_dir
from msgspec import convert, to_builtins
from msgspec.structs import replace

from dataflows.shard import Shard
from heartwheel.store.identity import (
    RESHARDED_VERSION,
    Identity,
    Layout,
    bind,
    identify,
    identify_resharded,
    made_ms,
    may_have_sent_more,
    note_begin,
    note_clean_stop,
    read_notes,
)
from heartwheel.store.recovery_files import Recovery
from session_logic.errors import SnapshotError
from tests.support.fixture_stores import FOLDER
from tests.support.stores import active

SHARD = Layout("partition", Shard(1, 4))
OLD = sorted(FOLDER.glob("identity-*.sqlite3"))


def execute(folder: Path, statement: str) -> None:
    """Change the first part of a store."""
    with closing(sqlite3.connect(folder / "part-0.sqlite3")) as db, db:
        db.execute(statement)


def test_store_keeps_its_topic_and_which_devices_it_has(tmp_path: Path) -> None:
    """With all devices by their hash it is as programs know it that know nothing else."""
    init_db_dir(tmp_path, 1)
    new = identify(tmp_path)
    assert (new.output_topic, new.layout) == ("", Layout())
    assert bind(tmp_path, new, "out", Layout()) == identify(tmp_path)
    bind(tmp_path, new, "out", SHARD)
    found = identify(tmp_path)
    assert (found.id, found.output_topic, found.layout) == (new.id, "out", SHARD)
    assert str(found.layout) == "route partition, the lanes of shard 1/4"


def test_store_of_a_later_version_is_refused(tmp_path: Path) -> None:
    """As earlier programs refuse that of a shard."""
    init_db_dir(tmp_path, 1)
    bind(tmp_path, identify(tmp_path), "out", SHARD)
    newer = RESHARDED_VERSION + 1
    execute(tmp_path, f"UPDATE heartwheel_identity SET version = {newer}")
    with pytest.raises(SnapshotError, match=f"version {newer}"):
        identify(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM heartwheel_layout",
        "UPDATE heartwheel_layout SET shard = 'x'",
        "UPDATE heartwheel_layout SET route = 7",
        "UPDATE heartwheel_layout SET shard = NULL",
    ],
)
def test_store_that_does_not_tell_which_devices_it_has_is_refused(
    tmp_path: Path, damage: str
) -> None:
    """A run would take others for its own."""
    init_db_dir(tmp_path, 1)
    bind(tmp_path, identify(tmp_path), "out", SHARD)
    execute(tmp_path, damage)
    with pytest.raises(SnapshotError, match="cannot be read"):
        identify(tmp_path)


def test_store_that_was_made_of_others_keeps_which(tmp_path: Path) -> None:
    """A run with it changes nothing of that."""
    init_db_dir(tmp_path, 1)
    made = Identity("new", "out", SHARD, {"one": 0, "two": 3})
    assert made.generation == 4
    with Recovery(tmp_path) as recovery:
        assert made_ms(recovery) == 0
    identify_resharded(tmp_path, made, "two stores")
    with Recovery(tmp_path) as recovery:
        (note,) = read_notes(recovery)
        assert note.note.endswith("of two stores")
        assert made_ms(recovery) == note.noted_ms > 0
    assert bind(tmp_path, identify(tmp_path), "out", SHARD) == identify(tmp_path) == made


def test_store_says_that_more_may_have_been_sent_until_a_clean_stop(tmp_path: Path) -> None:
    """One that no run has had says nothing of it."""
    init_db_dir(tmp_path, 1)

    def said() -> bool:
        with Recovery(tmp_path) as recovery:
            return may_have_sent_more(recovery)

    assert not said()
    for _ in range(2):  # a run that was killed, and the one after it
        note_begin(tmp_path)
        assert said()
    note_clean_stop(tmp_path)
    assert not said()


def test_every_version_has_a_fixture() -> None:
    """A new version of a store's identity comes with a store that has it."""
    assert [part.stem for part in OLD] == [f"identity-{n + 1}" for n in range(RESHARDED_VERSION)]


@pytest.mark.parametrize("part", OLD, ids=lambda part: part.stem)
def test_store_of_a_version_is_who_it_was_and_goes_on(part: Path, tmp_path: Path) -> None:
    """Its sessions are those that it had, and a run with it leaves its version as it is."""
    shutil.copy(part, tmp_path / "part-0.sqlite3")
    known = json.loads(part.with_suffix(".json").read_text())
    found = identify(tmp_path)
    assert to_builtins(found) == to_builtins(convert(known["identity"], Identity))
    assert active(tmp_path) == known["active"] != {}
    assert bind(tmp_path, found, found.output_topic, found.layout) == identify(tmp_path) == found
    moved = bind(tmp_path, found, "another", found.layout)
    assert moved == identify(tmp_path) == replace(found, output_topic="another")
    with closing(sqlite3.connect(tmp_path / "part-0.sqlite3")) as db:
        ((version,),) = db.execute("SELECT version FROM heartwheel_identity")
    assert part.stem == f"identity-{version}"
